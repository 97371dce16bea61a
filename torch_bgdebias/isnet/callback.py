"""``ISNetCallback``: adds the heatmap loss to any LightningModule."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, Unpack, cast

import torch
from torch import Tensor

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.calls import around_calls
from torch_bgdebias.checks import describe
from torch_bgdebias.isnet.balance import GradientBalance
from torch_bgdebias.isnet.calibration import RelevanceRange
from torch_bgdebias.isnet.callback_calibration import measured_range
from torch_bgdebias.isnet.callback_fit import Fit, loss_of, ways_to_name_it
from torch_bgdebias.isnet.callback_validation import Validation, loader_names, log_figures
from torch_bgdebias.isnet.calls import place_of_image
from torch_bgdebias.isnet.class_masks import dimming_mask, loss_mask
from torch_bgdebias.isnet.dimming import BackgroundDimming
from torch_bgdebias.isnet.loss import NO_RANGE, ISNetLoss
from torch_bgdebias.isnet.record import Explanation
from torch_bgdebias.isnet.rules import RuleOptions, Rules
from torch_bgdebias.isnet.settings import ISNetSettings
from torch_bgdebias.isnet.targets import Variant
from torch_bgdebias.isnet.wrapper import ISNet
from torch_bgdebias.lightning import LightningModule, Schedule, StepCall, Trainer, TrainingStepCallback, add_to_loss
from torch_bgdebias.lightning.step import wrap_method
from torch_bgdebias.models import get_layer, logits_of, original_module
from torch_bgdebias.records import fields_of
from torch_bgdebias.sharded import parameters_whole
from torch_bgdebias.stages import LAST_STAGE

__all__ = ["ISNetCallback", "Schedule"]

P = ParamSpec("P")
T = TypeVar("T")


def _positions_of_earlier_releases(function: Callable[P, T]) -> Callable[P, T]:
    """``(variant, loss, weight, spec)`` goes on working: what stands after the variant was a loss, not a BatchSpec."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        callback, *positional = args
        is_old_order = len(positional) > 2 or (len(positional) == 2 and isinstance(positional[1], ISNetLoss))
        if not is_old_order:
            return function(*args, **kwargs)
        warn_renamed("ISNetCallback(variant, loss, weight, spec)", "ISNetCallback(variant, spec, loss=..., weight=...)")
        names = ("variant", "loss", "weight", "spec")
        by_name = dict(zip(names, positional, strict=False))
        return cast("Callable[..., T]", function)(callback, **by_name, **kwargs)

    return call


class ISNetCallback(TrainingStepCallback):
    """Add ISNet's heatmap loss to the training of any LightningModule: ``(1 - P) * its loss + P * heatmap loss``.

    The images and logits of the module's own training step are explained: its forward pass is the only one. Nothing is
    added to the module's parameters, submodules or state. Works with gradient accumulation, clipping, mixed precision
    (relevance and loss are float32 at least) and several processes. docs/isnet.md lists what is logged.

    Args:
        variant: "selective", "stochastic", "dual" or "original", or `torch_bgdebias.isnet.Rules` with all of
            ``options``.
        spec: where images and masks are in a batch; masks of classes (B, K, H, W) with ``variant="original"``.
        loss: the heatmap loss; ``ISNetLoss()`` by default, ``ISNetLoss.paper()`` for the papers'.
        weight: P in [0, 1], or a function of the epoch and of the batches seen so far. With P = 0 nothing is explained.
        network: name of the submodule that maps images to logits; the LightningModule's own ``forward`` by default. Of
            parts that the step calls one after the other: the names of the first and the last, ("backbone", "head").
        dimming: share of the images whose background is dimmed by a random amount before the step sees them
            (`torch_bgdebias.isnet.dimming` says why); 0 leaves the batch as it is. Normalise bright images: they
            are dimmed towards 0.
        fraction: take the heatmap loss on a random part of each batch, at least one image, to save time. Less than 1
            costs a forward pass of that part, in which batch norm's running statistics are updated too.
        calibrate: measure the papers' loss's range C1, C2 over so many training batches before the first step, on a
            model that was trained without it; it is in the checkpoint. 0: the loss's own range.
        balance: the heatmap loss's gradient is at most so many times that of the module's own loss
            (`torch_bgdebias.isnet.GradientBalance`), by a scale that is logged as ``isnet/scale``; ``None``: no
            matter how large it is, as in the papers.
        validate: explain validation batches too, which must have masks, and log ``isnet/val_loss``,
            ``val_heatmap_loss``, ``val_pixel_ratio`` and more (docs/isnet.md) for checkpoints and early stopping; names
            of several loaders, ``("iid", "ood")``.
        seed: of the random choices (part of the batch, stochastic and dual variants).
        log: log, do not, or log under this prefix.
        options: what `torch_bgdebias.isnet.ISNet` takes beside the model: ``epsilon``, ``input_rule``,
            ``mean``, ``std``, ``deep_supervision``, ... With ``mean`` and ``std`` the z^B rule is used where the image
            enters (docs/isnet.md); input x gradient, with a warning, where no layer takes it.

    Raises:
        ValueError, TypeError: an option out of range or of another type.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = ISNetCallback("selective", BatchSpec(image="pixels", label="y", mask="seg"))
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    log_prefix: ClassVar[str] = "isnet"
    by_hand: ClassVar[str] = "ISNet and ISNetLoss"
    if_masks_do_not_fit: ClassVar[str] = "ISNetCallback then trains against masks that do not fit"

    #: place of the validation loader that the present batch comes from
    _loader: int = 0

    @_positions_of_earlier_releases
    def __init__(
        self,
        variant: Variant | Rules = "selective",
        spec: BatchSpec | None = None,
        *,
        loss: ISNetLoss | None = None,
        weight: float | Schedule = 0.7,
        network: str | tuple[str, str] | None = None,
        dimming: float = 1.0,
        fraction: float = 1.0,
        calibrate: int = 0,
        balance: float | None = 1.0,
        validate: bool | Sequence[str] = False,
        seed: int = 0,
        log: bool | str = True,
        **options: Unpack[RuleOptions],
    ) -> None:
        if isinstance(variant, Rules) and options:
            raise TypeError("variant: a Rules object holds all options; pass them to it instead of beside it")
        #: what is explained, and how
        self.rules = variant if isinstance(variant, Rules) else Rules(variant, **options)
        if loss is not None and not isinstance(loss, ISNetLoss):
            raise TypeError(f"loss: expected an ISNetLoss, got {type(loss).__name__}")
        #: weight, network, dimming, fraction, calibrate, balance and validate
        self.settings = ISNetSettings(weight, network, dimming, fraction, calibrate, balance, validate)
        #: the heatmap loss; after calibration one with the ranges that were measured
        self.loss = loss or ISNetLoss(form="paper" if calibrate else None)
        if calibrate and self.loss.form == "share":
            raise ValueError(f"calibrate: {NO_RANGE}")
        if calibrate and not self.rules.at_input:
            raise ValueError("calibrate: measures the input's range, which at_input=False leaves out")
        #: the loss's ranges were measured, in this run or in the one that is resumed
        self.calibrated = False
        described = fields_of(self.settings)
        super().__init__(seed, log=log, spec=spec, options={"rules": self.rules, "loss": self.loss, **described})
        self._dimming = BackgroundDimming(dimming)
        self._balance = self._new_balance()
        self._isnet: ISNet | None = None
        self._fit = Fit("")
        self._validation: Validation | None = None
        self._restores: list[Callable[[], None]] = []

    @classmethod
    def finetuning(cls, variant: Variant = "selective", spec: BatchSpec | None = None, **options: Any) -> Self:
        """Settings for a pretrained network: explains the input of its last stage instead of the image.

        ``deep_supervision="last-stage", at_input=False`` beside what else the class takes. Beside it
        `FreezeLowerStages` keeps what the stages before it know.
        """
        return cls(variant, spec, **{"deep_supervision": LAST_STAGE, "at_input": False, **options})

    @classmethod
    def paper(cls, variant: Variant = "selective", spec: BatchSpec | None = None, **options: Any) -> Self:
        """The papers' settings: their loss and scores, masks as they are, without balance and dimming.

        ``loss=ISNetLoss.paper(mask_dilation=0), balance=None, dimming=0, selective_eps=1e-2, dual_target="sum"`` beside
        what else the class takes; ``mean`` and ``std`` for z^B.
        """
        papers = {
            "loss": ISNetLoss.paper(mask_dilation=0), "balance": None, "dimming": 0.0, "selective_eps": 1e-2,
            "dual_target": "sum",
        }  # fmt: skip
        return cls(variant, spec, **{**papers, **options})

    weight = property(attrgetter("settings.weight"), doc="P, or its schedule.")
    network = property(attrgetter("settings.network"), doc="The network's name in the module.")

    def _new_balance(self) -> GradientBalance | None:
        return None if self.settings.balance is None else GradientBalance(self.settings.balance)

    def _begin(self) -> None:
        super()._begin()
        self._balance = self._new_balance()

    def state_dict(self) -> dict[str, Any]:
        """Batches seen, seed, relevance ranges and measured gradient norms, the same on every rank."""
        return {
            **super().state_dict(),
            "balance": None if self._balance is None else self._balance.state_dict(),
            "calibrated": self.calibrated,
            "relevance_range": list(self.loss.relevance_range),
            "hidden_ranges": {name: list(values) for name, values in self.loss.hidden_ranges.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; a calibrated range replaces the loss's own."""
        super().load_state_dict(state_dict)
        self.calibrated = bool(state_dict["calibrated"])
        if self._balance is not None and state_dict.get("balance") is not None:  # a checkpoint of before has none
            self._balance.load_state_dict(state_dict["balance"])
        if self.calibrated:
            low, high = state_dict["relevance_range"]
            self.loss = self.loss.with_ranges(
                (low, high), {name: (a, b) for name, (a, b) in state_dict["hidden_ranges"].items()}
            )

    def weight_at(self, epoch: int, step: int | None = None) -> float:
        """P at an epoch, after so many training batches (by default those seen so far)."""
        return self.settings.weight_at(epoch, self.steps if step is None else step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject unsupported modules, then wrap the training step, and the validation step if requested."""
        super().setup(trainer, pl_module, stage)
        self._validation = None
        if self.settings.validate and stage in ("fit", "validate"):
            around = wrap_method(pl_module, "validation_step", self, self._validate, trainer=trainer)
            self._restores.append(around)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the validation metrics."""
        if self._validation is not None:
            self._validation.epoch()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record which loader a batch comes from."""
        self._loader = dataloader_idx

    def _validate(self, call: StepCall) -> Any:
        """Run a validation step, then explain what entered the network."""
        module = call.module
        if module.trainer.training or self.spec.absent(call.batch):  # or a training step that calls this one
            return call.run()
        if self._validation is None:
            self._validation = Validation(self._explainer(module), self.spec, self._called(module), self.seed)
        self._validation.loader = self._loader
        names = loader_names(module.trainer, self.settings.loader_names)
        output, figures = self._validation(call, self.loss, self.weight_at(module.current_epoch))
        if self._logs:
            loader = names[self._loader] if names else ""
            log_figures(module, figures, prefix=self._prefix, loader=loader)
        return output

    def _explainer(self, module: LightningModule) -> ISNet:
        """An ISNet around the network, on its device."""
        name = self.settings.network
        isnet = ISNet(get_layer(module, name) if isinstance(name, str) else module, self.rules.lenient())
        isnet.box.to(module.device, non_blocking=True)
        return isnet

    def _prepare(self, module: LightningModule) -> None:
        """Find the network, follow it to its device, and calibrate, once."""
        for part in self.settings.parts or ():
            get_layer(module, part)  # an error now where there is none
        self._isnet = self._explainer(module)
        self._fit = Fit(self._called(module))
        if self.settings.calibrate and not self.calibrated:
            batches = self.settings.calibrate
            measured = measured_range(module, self._isnet, self.spec, batches, lambda: self._seeded(module))
            self._take_range(measured)

    def _take_range(self, measured: RelevanceRange) -> None:
        self.loss = self.loss.with_ranges((measured[0], measured[1]), measured.hidden)
        self.calibrated = True

    def _step(self, call: StepCall) -> Any:
        module = call.module
        weight = self.weight_at(module.current_epoch)
        if weight == 0.0:
            return call.run()
        with parameters_whole(module):
            return self._explained_step(call, weight)

    def _explained_step(self, call: StepCall, weight: float) -> Any:
        module = call.module
        mask, void = self.spec.mask_of(call.batch), self.spec.void_of(call.batch)
        rank = self.spec.image_of(call.batch).ndim
        generator = self._seeded(module)
        if self._dimming.p > 0.0:
            call.batch = self._dimmed(call.batch, dimming_mask(mask, rank), generator)
        mask = loss_mask(mask, self.rules, rank)
        if self.settings.fraction < 1.0:
            output, explanation, part = self._explained_part(call, generator)
            if part is not None:
                mask, void = mask[part], None if void is None else void[part]
        else:
            output, explanation = self._explained(call, generator)
        if explanation is None:  # the step skipped this batch
            return output
        if self._fit.views is not None and self.settings.fraction == 1.0:
            explanation = explanation.rows(self._fit.views)
        void_args = () if void is None else (void,)  # a loss of the user's own may know nothing of void
        terms = self.loss.terms(explanation.relevance, mask, explanation.hidden, *void_args)
        loss = terms.loss.mean()
        parts = {"heatmap_loss": loss, "background": terms.background.mean(), "foreground": terms.foreground.mean()}
        if self._balance is not None:
            reduce = functools.partial(module.trainer.strategy.reduce, reduce_op="mean")
            loss = self._balance(loss_of(output), loss, module.parameters(), reduce=reduce)
            parts["scale"] = self._balance.scale
        self._log_values(module, {**parts, "weight": weight}, batch_size=len(mask))
        return add_to_loss(output, weight * loss, weight=1.0 - weight)

    def _dimmed(self, batch: Any, mask: Tensor, generator: torch.Generator) -> Any:
        image = self.spec.image_of(batch)
        if not image.is_floating_point():
            raise TypeError(
                f"image: expected a floating point tensor, got {describe(image)}; backgrounds are dimmed in the "
                "batch, so convert it before the step (on_after_batch_transfer), or pass dimming=0"
            )
        return self.spec.replace(batch, image=self._dimming(image, mask, generator=generator))

    def _explained(self, call: StepCall, generator: torch.Generator) -> tuple[Any, Explanation | None]:
        """Run the step and explain its own forward pass."""
        assert self._isnet is not None, "a training step runs after the network was found"
        image = self._fit.before(self.spec.image_of(call.batch))
        with self._isnet.watching(*(self.settings.parts or (None, None))) as watch:
            output = call.run()
        if output is None:
            return None, None
        if not len(watch):
            raise self._not_called(call.module)
        index = self._fit.decisive_pass(loss_of(output), [watch.logits(number) for number in range(len(watch))])
        self._fit.look_at(watch.entered(index), image)
        explanation = watch.explain(create_graph=True, index=index, generator=generator)
        self._fit.look_at_loss(loss_of(output), explanation.logits)
        return output, explanation

    def _explained_part(
        self, call: StepCall, generator: torch.Generator
    ) -> tuple[Any, Explanation | None, Tensor | None]:
        """Run the step, then explain a random part of the images that entered the network; which part, too."""
        assert self._isnet is not None, "a training step runs after the network was found"
        batch_image = self._fit.before(self.spec.image_of(call.batch))
        inputs: list[Tensor] = []
        returned: list[Any] = []

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and not inputs:  # the network may change it in place
                argument = place_of_image(args, kwargs)
                inputs.append((args[0] if argument is None else kwargs[argument]).detach().clone())

        with around_calls(original_module(self._isnet.model), enter, lambda output: returned.append(output)):
            output = call.run()
        if output is None:
            return None, None, None
        if not inputs:
            raise self._not_called(call.module)
        image = inputs[0]
        self._fit.look_at(image, batch_image)
        self._fit.look_at_loss(loss_of(output), logits_of(returned[-1], self.rules.logits))
        if self._fit.views is not None:
            image = image[self._fit.views]
        count = max(1, round(self.settings.fraction * len(image)))
        part = torch.randperm(len(image), generator=generator, device=image.device)[:count]
        explanation = self._isnet.explain(image[part], create_graph=True, generator=generator)
        return output, explanation, part

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Emit the warnings that need values from the device."""
        super().on_train_epoch_end(trainer, pl_module)
        self._fit.say()

    def _called(self, module: LightningModule) -> str:
        network = self.settings.network
        if network is None:
            return f"{type(module).__name__}.forward"
        return f"the network {network!r}" if isinstance(network, str) else f"the parts {network!r}"

    def _not_called(self, module: LightningModule) -> RuntimeError:
        return RuntimeError(
            f"network: training_step did not call {self._called(module)} with gradients enabled, so there is nothing "
            f"to explain; {ways_to_name_it(module, self.settings.network)}"
        )

    def _leave(self) -> None:
        self._isnet = self._validation = None
        while self._restores:
            self._restores.pop()()
        super()._leave()
