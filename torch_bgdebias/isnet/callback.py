"""``ISNetCallback``: training with the heatmap loss for a LightningModule that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_option, describe
from torch_bgdebias.isnet.calibration import INPUT, add_sums, range_of_sums
from torch_bgdebias.isnet.dimming import BackgroundDimming
from torch_bgdebias.isnet.loss import ISNetLoss
from torch_bgdebias.isnet.targets import VARIANTS, DualTarget, Variant
from torch_bgdebias.isnet.watch import Explanation
from torch_bgdebias.isnet.wrapper import Attribution, BatchNorm, InputRule, ISNet
from torch_bgdebias.lightning import (
    LightningModule,
    StepCall,
    Trainer,
    TrainingStepCallback,
    add_to_loss,
    device_number,
    gradients_allowed,
)
from torch_bgdebias.models import LogitsKey, eval_mode, get_layer, original_module

__all__ = ["ISNetCallback", "Schedule"]

#: P as a function of the epoch and of the training batches seen before this one, both from 0
Schedule: TypeAlias = "Callable[[int, int], float]"


class ISNetCallback(TrainingStepCallback):
    """Add ISNet's heatmap loss to the training of any LightningModule: ``(1 - P) * its loss + P * heatmap loss``.

    The images and logits of the module's own training step are explained: its forward pass is the only one. Nothing is
    added to the module's parameters, submodules or state; its ``training_step`` is back after the fit, also after a
    failed one. Works with gradient accumulation, clipping, mixed precision (relevance and loss are float32 at least)
    and several processes. Validation is left alone.

    Args:
        variant: "selective", "stochastic", "dual" or "original", see :class:`~torch_bgdebias.isnet.ISNet`.
        loss: the heatmap loss; ``ISNetLoss(mask_dilation=2)`` by default: an edge needs both its sides.
        weight: P in [0, 1], or a function of the epoch and of the batches seen so far. With P = 0 nothing is explained.
        spec: where images and masks are in a batch.
        network: name of the submodule that maps images to logits; the LightningModule's own ``forward`` by default.
        logits: where the logits are in what the network returns, if it does not return them alone.
        dimming: share of the images whose background is dimmed by a random amount before the step sees them
            (:mod:`~torch_bgdebias.isnet.dimming` says why); 0 leaves the batch as it is. Normalise bright images: they
            are dimmed towards 0.
        fraction: take the heatmap loss on a random part of each batch, at least one image, to save time. Less than 1
            costs a forward pass of that part, in which batch norm's running statistics are updated too.
        calibrate: measure the loss's range C1, C2 (each layer's) over so many training batches before the first step,
            on the model as it is then: one that was trained without the heatmap loss. Set in ``loss``, kept in the
            checkpoint and not measured again on resuming. 0: the loss's own range.
        mean, std: of the images' normalisation. With them the z^B rule can be used at the first layer, and is, which
            has trained better or as well everywhere it was tried (docs/isnet.md).
        input_rule: "zbox" (z^B) or "gradient"; ``None``: the former where ``mean`` and ``std`` are given.
        epsilon, deep_supervision, selective_eps, batch_norm, attribution, dual_target, multi_label: see
            :class:`~torch_bgdebias.isnet.ISNet`; ``dual_target`` is "contrast" here.
        seed: of the random choices (part of the batch, stochastic and dual variants). They depend on the process's
            rank and on the number of batches seen, which is in the checkpoint, so a resumed run draws as an
            uninterrupted one.
        log: log ``isnet/heatmap_loss``, ``isnet/background``, ``isnet/foreground`` and ``isnet/weight`` per epoch.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = ISNetCallback("selective", ISNetLoss(), spec=BatchSpec(image="pixels", label="y", mask="seg"))
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    def __init__(
        self,
        variant: Variant = "selective",
        loss: ISNetLoss | None = None,
        weight: float | Schedule = 0.7,
        spec: BatchSpec | None = None,
        *,
        dimming: float = 1.0,
        network: str | None = None,
        logits: LogitsKey = None,
        fraction: float = 1.0,
        calibrate: int = 0,
        epsilon: float = 1e-2,
        input_rule: InputRule | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        deep_supervision: Sequence[str] | None = None,
        selective_eps: float | None = None,
        batch_norm: BatchNorm = "linear",
        attribution: Attribution = "lrp",
        dual_target: DualTarget = "contrast",
        multi_label: bool = False,
        seed: int = 0,
        log: bool = True,
    ) -> None:
        super().__init__(seed)
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"fraction: expected in (0, 1], got {fraction!r}")
        if not 0.0 <= dimming <= 1.0:
            raise ValueError(f"dimming: expected in [0, 1], got {dimming!r}")
        if not isinstance(calibrate, int) or calibrate < 0:
            raise ValueError(f"calibrate: expected a number of batches, 0 or more, got {calibrate!r}")
        if loss is not None and not isinstance(loss, ISNetLoss):
            raise TypeError(f"loss: expected an ISNetLoss, got {type(loss).__name__}")
        self.variant = check_option(variant, VARIANTS, name="variant")
        if not callable(weight):
            _check_weight(weight)
        self.loss = ISNetLoss(mask_dilation=2) if loss is None else loss
        self.weight = weight
        self.spec = spec or BatchSpec()
        self.network = network
        self.dimming = BackgroundDimming(dimming)
        self.fraction = fraction
        self.calibrate = calibrate
        self._logs = log  # Lightning writes its own `log` onto callbacks
        self.calibrated = False
        self._options: dict[str, Any] = {
            "epsilon": epsilon,
            "input_rule": input_rule or ("gradient" if mean is None or std is None else "zbox"),
            "mean": mean,
            "std": std,
            "deep_supervision": deep_supervision,
            "selective_eps": selective_eps,
            "batch_norm": batch_norm,
            "attribution": attribution,
            "dual_target": dual_target,
            "logits": logits,
            "multi_label": multi_label,
        }
        ISNet(nn.Identity(), variant, **{**self._options, "deep_supervision": None})  # bad options fail here
        self._isnet: ISNet | None = None

    @property
    def state_key(self) -> str:
        """Tells several of them in one trainer apart, by variant and network."""
        return self._generate_state_key(variant=self.variant, network=self.network)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the network to explain."""
        if not pl_module.automatic_optimization:
            raise TypeError(
                f"{type(pl_module).__name__}: with manual optimisation the backward pass is over when a loss could be "
                "added; use ISNet and ISNetLoss in your own training step"
            )
        network = pl_module if self.network is None else get_layer(pl_module, self.network)
        self._isnet = ISNet(network, self.variant, **self._options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the module to its device and calibrate, once."""
        assert self._isnet is not None, "on_fit_start comes first"
        self._isnet.low = self._isnet.low.to(pl_module.device)
        self._isnet.high = self._isnet.high.to(pl_module.device)
        if self.calibrate and not self.calibrated:
            # the order in which the training batches come must not depend on whether it was measured
            with torch.random.fork_rng(devices=[]):
                self._measure_range(trainer, pl_module)
            self.calibrated = True

    def state_dict(self) -> dict[str, Any]:
        """Batches seen, the seed and the loss's ranges of relevance, the same on every rank."""
        return {
            **super().state_dict(),
            "calibrated": self.calibrated,
            "relevance_range": list(self.loss.relevance_range),
            "hidden_ranges": {name: list(values) for name, values in self.loss.hidden_ranges.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written; a calibrated range replaces the loss's own."""
        super().load_state_dict(state_dict)
        self.calibrated = bool(state_dict["calibrated"])
        if self.calibrated:
            low, high = state_dict["relevance_range"]
            self.loss.relevance_range = (low, high)
            self.loss.hidden_ranges = {name: (a, b) for name, (a, b) in state_dict["hidden_ranges"].items()}

    def weight_at(self, epoch: int) -> float:
        """P in an epoch, at the number of batches seen."""
        return _check_weight(self.weight(epoch, self.steps) if callable(self.weight) else self.weight)

    def _step(self, call: StepCall) -> Any:
        module = call.module
        weight = self.weight_at(module.current_epoch)
        if weight == 0.0:
            self.steps += 1
            return call.run()
        mask = self.spec.mask_of(call.batch)
        generator = self._seeded(module)
        if self.dimming.p > 0.0:
            image = self.spec.image_of(call.batch)
            if not image.is_floating_point():
                raise TypeError(
                    f"image: expected a floating point tensor, got {describe(image)}; backgrounds are dimmed in the "
                    "batch, so convert it before the step (on_after_batch_transfer), or pass dimming=0"
                )
            dimmed = self.dimming(image, mask, generator=generator)
            call.batch = self.spec.replace(call.batch, image=dimmed)
        if self.fraction < 1.0:
            output, explanation, mask = self._explained_part(call, mask, generator)
        else:
            output, explanation = self._explained(call, generator)
        self.steps += 1
        if explanation is None:  # the step skipped this batch
            return output
        terms = self.loss.terms(explanation.relevance, mask, explanation.hidden)
        loss = terms.loss.mean()
        if self._logs:
            self._log(module, weight, len(mask), loss, terms.background.mean(), terms.foreground.mean())
        return add_to_loss(output, weight * loss, weight=1.0 - weight)

    def _explained(self, call: StepCall, generator: torch.Generator) -> tuple[Any, Explanation | None]:
        """Run the step and explain its own forward pass."""
        assert self._isnet is not None, "a training step runs after the fit has started"
        with self._isnet.watching() as watch:
            output = call.run()
        if output is None:
            return None, None
        if not len(watch):
            raise self._not_called(call.module)
        # the first pass is the step's own; callbacks further in may have added passes after it
        return output, watch.explain(create_graph=True, index=0, generator=generator)

    def _explained_part(
        self, call: StepCall, mask: Tensor, generator: torch.Generator
    ) -> tuple[Any, Explanation | None, Tensor]:
        """Run the step, then explain a random part of the images that entered the network."""
        assert self._isnet is not None, "a training step runs after the fit has started"
        entered: list[Tensor] = []

        def record(_: nn.Module, args: tuple[Any, ...]) -> None:
            if torch.is_grad_enabled() and not entered:  # the network may change it in place
                entered.extend(x.detach().clone() for x in args[:1])

        handle = original_module(self._isnet.model).register_forward_pre_hook(record)
        try:
            output = call.run()
        finally:
            handle.remove()
        if output is None:
            return None, None, mask
        if not entered:
            raise self._not_called(call.module)
        image = entered[0]
        count = max(1, round(self.fraction * len(image)))
        part = torch.randperm(len(image), generator=generator, device=image.device)[:count]
        explanation = self._isnet.explain(image[part], create_graph=True, generator=generator)
        return output, explanation, mask[part]

    def _measure_range(self, trainer: Trainer, module: LightningModule) -> None:
        """Set the loss's ranges from the training images of all processes."""
        assert self._isnet is not None, "on_fit_start comes first"
        stats: dict[str, Tensor] = {}
        with eval_mode(module), gradients_allowed(), trainer.precision_plugin.train_step_context():
            for batch in islice(_batches(trainer), self.calibrate):
                image = self.spec.image_of(batch).detach().clone()
                explanation = self._isnet.explain(image, create_graph=False, generator=self._seeded(module))
                for name, relevance in ((INPUT, explanation.relevance), *explanation.hidden.items()):
                    add_sums(stats, name, relevance)
        ranges = {}
        for name, values in stats.items():
            total = trainer.strategy.reduce(values, reduce_op="sum")
            ranges[name] = range_of_sums(*total.tolist())
        if not ranges:
            raise ValueError("calibrate: the training loader gave no batch")
        self.loss.relevance_range = ranges.pop(INPUT)
        self.loss.hidden_ranges = {**self.loss.hidden_ranges, **ranges}

    def _log(self, module: LightningModule, weight: float, size: int, *parts: Tensor) -> None:
        names = ("isnet/heatmap_loss", "isnet/background", "isnet/foreground")
        values = {name: part.detach() for name, part in zip(names, parts, strict=True)}
        module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        module.log("isnet/weight", device_number(weight, module), on_step=False, on_epoch=True, batch_size=size)

    def _not_called(self, module: LightningModule) -> RuntimeError:
        children = [
            f"{name} ({type(child).__name__})"
            for name, child in module.named_children()
            if next(child.parameters(), None) is not None
        ]
        called = f"{type(module).__name__}.forward" if self.network is None else f"the network {self.network!r}"
        return RuntimeError(
            f"network: training_step did not call {called} with gradients enabled, so there is nothing to explain "
            "(a call of `.forward` itself runs no hooks: call the module); "
            f"pass ISNetCallback(network=...) with the submodule that maps images to logits: {', '.join(children)}"
        )

    def _leave(self) -> None:
        self._isnet = None
        super()._leave()


def _batches(trainer: Trainer) -> Iterator[Any]:
    """The training loader's batches as the step gets them."""
    loader = trainer.train_dataloader
    if loader is None:
        raise ValueError("calibrate: the trainer has no training loader")
    for batch in loader:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _check_weight(weight: float) -> float:
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight: expected P in [0, 1], got {weight!r}")
    return float(weight)
