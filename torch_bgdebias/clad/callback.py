"""``CLADCallback``: the CLAD loss for a LightningModule that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_label, describe
from torch_bgdebias.clad.functional import check_temperature
from torch_bgdebias.clad.loss import CLADLoss
from torch_bgdebias.clad.paired import Pair, paired_pass
from torch_bgdebias.lightning import (
    LightningModule,
    StepCall,
    Trainer,
    TrainingStepCallback,
    add_to_loss,
    device_number,
)
from torch_bgdebias.models import LogitsKey, find_head, get_layer, logits_of, original_module
from torch_bgdebias.swap import BackgroundSwap, StreamedBackgroundBank

__all__ = ["CLADCallback"]


class CLADCallback(TrainingStepCallback):
    """Adds ``weight * CLAD`` (and CE(x+) for CLAD+) to the loss of every training step.

    The embedding of the images is caught from the user's own forward pass. The positives are the same images with
    other backgrounds (``swap``), taken through the same network. The user's module stays as it is: no parameter,
    buffer or submodule is added, and its own ``training_step`` is back after the fit, also after a failed one.

    What is drawn depends on the seed, the process' rank and the number of training batches seen. That number, and the
    queue, are in the checkpoint: a resumed run goes on as an uninterrupted one. Logged: ``clad/loss``, ``clad/weight``,
    ``clad/queue_fill`` (share of the queue's slots that are filled), with ``plus`` also ``clad/ce_positive``.

    Args:
        swap: makes the positives; its bank is moved to the module's device when a fit starts. Backgrounds are asked
            of another class, as CLAD's positives need, unless the swap was made with ``different_class=False``.
        num_classes: how many keys the queue has; ``None``: outputs of the last linear layer, or, where
            ``spec.background_label`` is given, classes of the swap's bank.
        weight: lambda, a number or a function of (epoch, step), both counted from 0.
        plus: CLAD+, the classification loss of the positives as well.
        num_negatives: rows per key.
        temperature: of the softmax.
        layer: name of the layer whose input is the embedding; ``None`` looks for the last linear layer. Of tokens
            (B, T, D) and maps (B, C, H, W) that enter it the average is taken.
        joint: one forward pass of images and positives together instead of one pass each: batch norm then sees both
            (its statistics in the user's step are of another, doubled batch), and is updated once instead of twice.
        spec: where image, label and mask are in a batch. With ``spec.background_label`` that is the key (hospital
            site, camera, texture: any nuisance label) instead of the class, and the swap looks for another one of it.
        label_of: makes one class a sample (B,) of targets that are something else: multi-label, soft labels.
        criterion: loss of (logits, target) for ``plus``; cross-entropy by default, for class labels only.
        logits: where the logits are in what the network returns, for ``plus`` with a ``layer`` of one's own.
        seed: of the draws.
        refresh: images that a `StreamedBackgroundBank` exchanges a step.
        max_batch: with several processes, the most images of any process's batch (the loader's batch size): the step
            then never waits for the device. ``None``: any batches will do, and each step waits for their sizes.

    Raises:
        TypeError: ``swap`` is no BackgroundSwap, ``weight`` neither a number nor a function.
        ValueError: a number out of range.

    Source: CLAD, arXiv 2210.02748.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = CLADCallback(BackgroundSwap("batch"), plus=True, spec=BatchSpec("x", "y", "seg"))
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    def __init__(
        self,
        swap: BackgroundSwap,
        num_classes: int | None = None,
        *,
        weight: float | Callable[[int, int], float] = 1.0,
        plus: bool = False,
        num_negatives: int = 32,
        temperature: float = 0.2,
        layer: str | None = None,
        joint: bool = False,
        spec: BatchSpec | None = None,
        label_of: Callable[[Tensor], Tensor] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        logits: LogitsKey = None,
        seed: int = 0,
        refresh: int = 8,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not isinstance(swap, BackgroundSwap):
            raise TypeError(f"swap: expected a BackgroundSwap, got {describe(swap)}")
        if not callable(weight) and (isinstance(weight, bool) or not isinstance(weight, int | float)):
            raise TypeError(f"weight: expected a number or a function of (epoch, step), got {describe(weight)}")
        self.swap, self.num_classes = swap, num_classes
        self.weight, self.plus, self.joint = weight, plus, joint
        self.num_negatives, self.temperature = num_negatives, check_temperature(temperature)
        self.layer, self.spec = layer, spec or BatchSpec()
        self.label_of, self.criterion, self.logits = label_of, criterion, logits
        self.refresh, self.max_batch = refresh, max_batch
        #: queue and loss, from the start of the fit on
        self.loss: CLADLoss | None = None
        if num_classes is not None:
            self.loss = self._new_loss(num_classes)
        self._layer = ""
        self._saved: dict[str, Tensor] | None = None

    @property
    def state_key(self) -> str:
        """Tells several of one trainer apart, by layer, key and seed."""
        key = "class" if self.spec.background_label is None else str(self.spec.background_label)
        return self._generate_state_key(layer=self.layer, key=key, seed=self.seed)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Go around the training step, unless there is no loss to add to."""
        if stage == "fit" and not pl_module.automatic_optimization:
            raise TypeError(
                f"{type(pl_module).__name__} optimises manually, so there is no loss to add to: "
                "use CLADLoss in its training_step"
            )
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layer, make the queue or take it from the checkpoint, follow the module to its device."""
        self._layer, head = self._find_layer(pl_module)
        self.loss = self._new_loss(self._keys(head))
        if self._saved is not None:
            self.loss.load_state_dict(self._saved)
            self._saved = None
        self.loss.to(pl_module.device)
        self.swap.to(pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        """The queue, batches seen and the seed, the same on every rank; a streamed bank's place in its folder."""
        state = super().state_dict()
        if self.loss is not None:
            state["loss"] = {name: value.detach().clone() for name, value in self.loss.state_dict().items()}
        if isinstance(self.swap.bank, StreamedBackgroundBank):
            state["bank"] = self.swap.bank.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        super().load_state_dict(state_dict)
        self._saved = state_dict.get("loss")
        if isinstance(self.swap.bank, StreamedBackgroundBank) and "bank" in state_dict:
            self.swap.bank.load_state_dict(state_dict["bank"])

    def weight_at(self, epoch: int, step: int) -> float:
        """Lambda at an epoch and step."""
        return float(self.weight(epoch, step)) if callable(self.weight) else float(self.weight)

    def _step(self, call: StepCall) -> Any:
        image, mask, target = self._read(call.batch)
        foreground = self._classes(target)
        key = self._key_of(call.batch, foreground, image)
        if isinstance(self.swap.bank, StreamedBackgroundBank):
            self.swap.bank.refresh(min(self.refresh, len(self.swap.bank)))
        generator = self._seeded(call.module)

        def positives(entering: Tensor) -> Tensor:
            # another class, unless the swap was made with different_class=False
            swapped = self.swap(entering.detach(), mask=mask, label=key, different_class=True, generator=generator)
            assert isinstance(swapped, Tensor), "one positional input gives one output"
            return swapped

        with paired_pass(call.module, self._layer, image, positives, joint=self.joint) as paired:
            output = call.run()
            self.steps += 1
            if output is None:  # the user's step skips this batch
                return None
            pair = paired.finish()
        extra = self._loss(call.module, pair, key, foreground, target)
        return add_to_loss(output, extra)

    def _loss(
        self, module: LightningModule, pair: Pair, key: Tensor, foreground: Tensor | None, target: Tensor
    ) -> Tensor:
        assert self.loss is not None, "a training step runs after the fit has started"
        background = self.swap.drawn["background_label"]
        if foreground is None:
            foreground = torch.full_like(key, -1)
        elif self.spec.background_label is None:
            # on a background of its own class a sample is nobody's negative: it would only take up the queue
            background = torch.where(background == foreground, -1, background)
        clad = self.loss(pair.anchor, pair.positive, key, background, foreground)
        weight = self.weight_at(module.current_epoch, module.global_step)
        fill = self.loss.queue.fill.float().mean() / self.loss.queue.size
        parts = {"clad/loss": clad.detach(), "clad/weight": device_number(weight, module), "clad/queue_fill": fill}
        total: Tensor = weight * clad
        if self.plus:
            positive = self._classify(pair, target)
            parts["clad/ce_positive"] = positive.detach()
            total = total + positive
        module.log_dict(parts, batch_size=key.shape[0])
        return total

    def _classify(self, pair: Pair, target: Tensor) -> Tensor:
        output = pair.layer_output if self.layer is None else pair.output
        logits = logits_of(output, None if self.layer is None else self.logits)
        if self.criterion is not None:
            return self.criterion(logits, target)
        if target.is_floating_point() or target.ndim != 1:
            raise TypeError(
                f"criterion: expected a function of (logits, target) for CLAD+, as the target is no class label but a "
                f"{describe(target)}; for multi-label targets pass criterion=F.binary_cross_entropy_with_logits"
            )
        return F.cross_entropy(logits.float(), target.long())

    def _read(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        image, target = self.spec.image_of(batch), self.spec.label_of(batch)
        try:
            return image, self.spec.mask_of(batch), target
        except KeyError as error:
            hint = (
                "CLAD needs foreground masks: torch_bgdebias.grabcut_masks or the command 'bgdebias masks' makes them"
            )
            raise KeyError(f"{error.args[0]}; {hint}") from None

    def _classes(self, target: Tensor) -> Tensor | None:
        """The class of each sample, or ``None`` where there is no single one and none is needed."""
        if self.label_of is not None:
            return check_label(self.label_of(target), target.shape[0], name="label_of(target)")
        if target.ndim == 1 and not target.is_floating_point():
            return check_label(target, target.shape[0])
        if self.spec.background_label is not None:
            return None
        raise TypeError(
            f"label: expected one class a sample (B,), got {describe(target)}; the queue needs one key a sample: for "
            "multi-label or soft targets pass label_of=, for example lambda target: target.argmax(1), or "
            "BatchSpec(background_label=...) when the batch says what the background is"
        )

    def _key_of(self, batch: Any, foreground: Tensor | None, image: Tensor) -> Tensor:
        background = self.spec.background_label_of(batch)
        if background is not None:
            return check_label(background, image.shape[0], name="background_label")
        assert foreground is not None, "without a nuisance label there is a class"
        return foreground

    def _new_loss(self, keys: int) -> CLADLoss:
        return CLADLoss(keys, None, self.num_negatives, self.temperature, max_batch=self.max_batch)

    def _find_layer(self, module: LightningModule) -> tuple[str, nn.Module]:
        if self.layer is not None:
            return self.layer, get_layer(module, self.layer)
        try:
            return find_head(module)
        except LookupError as error:
            raise LookupError(f"{error.args[0]}; pass CLADCallback(layer=...)") from None

    def _keys(self, layer: nn.Module) -> int:
        if self.num_classes is not None:
            return self.num_classes
        if self.spec.background_label is not None:
            bank = self.swap.bank
            if bank is not None and bank.num_classes:
                return int(bank.num_classes)
        elif isinstance(inner := original_module(layer), nn.Linear):
            return inner.out_features
        raise ValueError("num_classes: expected how many background labels there are, which cannot be told; pass it")
