"""``CLADCallback``: adds the CLAD loss to any LightningModule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec

import torch
import torch.nn.functional as F
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_label, describe
from torch_bgdebias.clad.callback_answers import check_answers
from torch_bgdebias.clad.loss import CLADLoss
from torch_bgdebias.clad.paired import Forward, Pair, paired_pass
from torch_bgdebias.clad.settings import CLADSettings
from torch_bgdebias.class_names import known_names, plain_name
from torch_bgdebias.lightning import LightningModule, Schedule, StepCall, Trainer, add_to_loss
from torch_bgdebias.models import LogitsKey, check_one_device, find_head, get_layer, logits_of, original_module
from torch_bgdebias.moved_pixels import ChangeWatch, Views
from torch_bgdebias.records import fields_of
from torch_bgdebias.swap.callback import SwappingCallback
from torch_bgdebias.swap.module import BackgroundSwap
from torch_bgdebias.swap.sampling import SwapParams

__all__ = ["CLADCallback"]

_FREED = "backward through the graph a second time"
_OWN_GRADIENTS = (
    "CLADCallback contrasts the embedding of the step's first pass of the batch; where training_step takes gradients "
    "of that pass itself (adversarial images), let it keep the graph: torch.autograd.grad(..., retain_graph=True)"
)

P = ParamSpec("P")


def _accept_num_classes_second(init: Callable[P, None]) -> Callable[P, None]:
    """In earlier releases the number of classes came second, where ``spec`` is now."""

    @functools.wraps(init)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if len(args) > 2 and isinstance(args[2], int):
            warn_renamed("CLADCallback(swap, K)", "CLADCallback(swap, num_classes=K)")
            kwargs["num_classes"] = args[2]
            args = args[:2]  # type: ignore[assignment]
        init(*args, **kwargs)

    return call


class CLADCallback(SwappingCallback):
    """Adds ``weight * CLAD`` (and CE(x+) for CLAD+) to the loss of every training step.

    The embedding of the images is caught from the user's own forward pass. The positives are the same images with
    other backgrounds (``swap``), taken through the same network. The user's module stays as it is: no parameter,
    buffer or submodule is added, and its own ``training_step`` is back after the fit, however it ends.

    What is drawn depends on the seed, the process' rank and the number of training batches seen. That number, and the
    queue, are in the checkpoint: a resumed run goes on as an uninterrupted one. Logged per epoch: ``clad/loss``,
    ``clad/weight``, ``clad/queue_fill`` (share of the queue's slots that are filled), with ``plus`` also
    ``clad/ce_positive``.

    Args:
        swap: makes the positives; its bank is moved to the module's device in the first step. Backgrounds are asked
            of another class, as CLAD's positives need, unless the swap was made with ``different_class=False``.
        spec: where image, label and mask are in a batch. With ``spec.background_label`` that is the key (hospital
            site, camera, texture: any nuisance label) instead of the class, and the swap looks for another one of it.
        seed: of the draws.
        refresh: images that a `StreamedBackgroundBank` exchanges a step.
        log: log, do not, or log under this prefix instead of ``clad``.
        num_classes, weight, plus, num_negatives, temperature, layer, joint, label_of, criterion, logits, forward,
            max_batch: see `CLADSettings`.

    Raises:
        TypeError: ``swap`` is no BackgroundSwap, ``weight`` neither a number nor a function.
        ValueError: a number out of range.

    Source: CLAD, arXiv 2210.02748.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = CLADCallback(BackgroundSwap("batch"), BatchSpec("x", "y", "seg"), plus=True)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    log_prefix: ClassVar[str] = "clad"
    by_hand: ClassVar[str] = "CLADLoss"

    @_accept_num_classes_second
    def __init__(
        self,
        swap: BackgroundSwap,
        spec: BatchSpec | None = None,
        *,
        num_classes: int | None = None,
        weight: float | Schedule = 1.0,
        plus: bool = False,
        num_negatives: int = 32,
        temperature: float = 0.2,
        layer: str | None = None,
        joint: bool = False,
        label_of: Callable[[Tensor], Tensor] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        logits: LogitsKey = None,
        forward: Forward | None = None,
        seed: int = 0,
        refresh: int = 8,
        max_batch: int | None = None,
        log: bool | str = True,
    ) -> None:
        self.settings = CLADSettings(
            num_classes=num_classes,
            weight=weight,
            plus=plus,
            num_negatives=num_negatives,
            temperature=temperature,
            layer=layer,
            joint=joint,
            label_of=label_of,
            criterion=criterion,
            logits=logits,
            forward=forward,
            max_batch=max_batch,
        )
        options = fields_of(self.settings)
        if forward is None:  # keys in checkpoints of earlier versions have no such option
            del options["forward"]
        super().__init__(swap, spec, refresh=refresh, seed=seed, log=log, options=options)
        #: queue and loss, from a fit's first step, or a checkpoint, on
        self.loss: CLADLoss | None = None
        self._layer = ""
        self._one_logit = False
        self._changes = ChangeWatch(self._warn_of_changes)
        self._views: Views | None = None
        self._compared = self._entered = self._warned_of_empty = False

    def state_dict(self) -> dict[str, Any]:
        """The queue, batches seen and the seed (the same on every rank), and the position of a streamed bank."""
        state = super().state_dict()
        if self.loss is not None:
            state["loss"] = {name: value.detach().clone() for name, value in self.loss.state_dict().items()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; a tuner also does this after its trial steps."""
        super().load_state_dict(state_dict)
        saved, self.loss = state_dict.get("loss"), None
        if saved is not None:
            self.loss = self.settings.new_loss(self.settings.num_classes or len(saved["queue.fill"]))
            self.loss.load_state_dict(saved)
        self._ready = False

    def weight_at(self, epoch: int, step: int) -> float:
        """Lambda at an epoch, after so many training batches."""
        return self.settings.weight_at(epoch, step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's methods; explain the failure of a step that frees the graph of its first pass."""
        super().on_exception(trainer, pl_module, exception)
        if _FREED in str(exception) and _OWN_GRADIENTS not in getattr(exception, "__notes__", ()):
            exception.add_note(_OWN_GRADIENTS)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the bank's categories and the data's classes have different names."""
        super().on_train_start(trainer, pl_module)
        categories = getattr(self.swap.bank, "classes", None)  # of a bank or a stream; other sources have no names
        if categories is None or self.spec.background_label is not None or self.settings.label_of is not None:
            return
        loaders = tree_leaves(trainer.train_dataloader)
        classes = next(filter(None, (known_names(None, loader) for loader in loaders)), [])
        if any(
            plain_name(class_name) != plain_name(category)
            for class_name, category in zip(classes, categories, strict=False)
        ):
            rank_zero_warn(
                "CLADCallback: a class's negatives are images that the swap put on the backgrounds of the same number, "
                f"and category 0 of the bank is {categories[0]!r}, class 0 {classes[0]!r}: if they do not belong "
                "together, take BackgroundSwap('batch'), or BatchSpec(background_label=...) where the batch says which "
                "category is behind an image; if they do, BackgroundBank(bank.images, bank.labels) has no names"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn, once a fit, if a whole epoch had no negatives to contrast with."""
        super().on_train_epoch_end(trainer, pl_module)
        self._changes.say()
        if self._warned_of_empty or self.loss is None or bool(self.loss.queue.fill.any()):
            return
        self._warned_of_empty = True
        rank_zero_warn(
            "CLADCallback added nothing in this epoch: its queue is empty, as no image has had a background of one "
            "other class. A pattern of several backgrounds (pattern='voronoi') has none: take BackgroundSwap() or a "
            "bank with labels; nor has a batch of one class alone"
        )

    def _begin(self) -> None:
        super()._begin()
        self.loss = None

    def _prepare(self, module: LightningModule) -> None:
        """Find the layer, make the queue unless a checkpoint brought it, follow the module to its device."""
        super()._prepare(module)
        check_one_device(module, what=type(self).__name__)
        self._changes, self._views = ChangeWatch(self._warn_of_changes), None
        self._compared = self._entered = self._warned_of_empty = False
        self._layer, head = self._find_layer(module)
        inner = original_module(head)
        self._one_logit = isinstance(inner, nn.Linear) and inner.out_features == 1
        if self.loss is None:
            self.loss = self.settings.new_loss(self._number_of_keys(head))
        self.loss.to(module.device)

    def _step(self, call: StepCall) -> Any:
        image, mask, target = self._read(call.batch)
        foreground = self._classes(target)
        key = self._queue_keys(call.batch, foreground, image)
        self._refresh_bank()
        generator = self._seeded(call.module)
        drawn: list[SwapParams] = []
        image_before, void = self._changes.before(image), self.spec.void_of(call.batch)

        def positives(anchors: Tensor) -> Tensor:
            if anchors.shape == image.shape:
                self._changes.look_at(anchors, image_before)
            # another class, unless the swap was made with different_class=False
            params = self.swap.generate_parameters(
                anchors.shape, key, different_class=True, device=anchors.device, generator=generator
            )
            drawn.append(params)
            swapped = self.swap(anchors.detach(), mask=mask, params=params, void=void)
            assert isinstance(swapped, Tensor), "one positional input gives one output"
            return swapped

        own = self.settings
        with paired_pass(
            call.module, self._layer, image, positives, joint=own.joint, views=self._views, forward=own.forward
        ) as paired:
            output = call.run()
            if output is None:  # the user's step skips this batch
                return None
            if not self._entered:
                self._entered = True
                paired.check_parts()
            pair = paired.finish()
        self._note_views(paired.views)
        if self.settings.plus and not self._compared:
            self._compared = True
            if own.criterion is None:
                logits, is_named = self._logits(pair), own.layer is not None
                check_answers(call.module, output, logits, target, layer=self._layer, is_named=is_named)
        extra = self._loss(call.module, pair, key, drawn[-1]["background_label"], foreground, target)
        return add_to_loss(output, extra)

    def _note_views(self, views: Views | None) -> None:
        if views is not None and self._views is None:
            self._views = views
            rank_zero_warn(
                "training_step runs several views of each image through the network: CLADCallback looks at those that "
                "are the batch's own, for other views there are no masks"
            )

    def _warn_of_changes(self) -> None:
        rank_zero_warn(
            "training_step changes the images before the network gets them by more than a normalisation: backgrounds "
            "are exchanged in what it gets, right after a normalisation, not after flips, crops, mixup or CutMix, of "
            "which the masks, and the targets of CLAD+, know nothing"
        )

    def _loss(
        self,
        module: LightningModule,
        pair: Pair,
        key: Tensor,
        background: Tensor,
        foreground: Tensor | None,
        target: Tensor,
    ) -> Tensor:
        assert self.loss is not None, "the first step has made it"
        if foreground is None:
            foreground = torch.full_like(key, -1)
        elif self.spec.background_label is None:
            # on a background of its own class a sample is no negative: it would only fill the queue
            background = torch.where(background == foreground, -1, background)
        clad = self.loss(pair.anchor, pair.positive, key, background, foreground)
        weight = self.weight_at(module.current_epoch, self.steps)
        fill = self.loss.queue.fill.float().mean() / self.loss.queue.size
        values: dict[str, float | Tensor] = {"loss": clad, "weight": weight, "queue_fill": fill}
        total: Tensor = weight * clad
        if self.settings.plus:
            values["ce_positive"] = positive = self._classify(pair, target)
            total = total + positive
        self._log_values(module, values, batch_size=key.shape[0])
        return total

    def _logits(self, pair: Pair) -> Tensor:
        own_layer = self.settings.layer is not None
        return logits_of(pair.output if own_layer else pair.layer_output, self.settings.logits if own_layer else None)

    def _classify(self, pair: Pair, target: Tensor) -> Tensor:
        logits = self._logits(pair)
        if self.settings.criterion is not None:
            return self.settings.criterion(logits, target)
        if logits.ndim == 1 or logits.shape[1:] == (1,):
            scores = logits.float().reshape(-1)
            return F.binary_cross_entropy_with_logits(scores, target.to(scores.dtype).reshape(-1))
        if target.is_floating_point() or target.ndim != 1:
            raise TypeError(
                f"criterion: expected a function of (logits, target) for CLAD+, as the target is no class label but a "
                f"{describe(target)}; for multi-label targets pass criterion=F.binary_cross_entropy_with_logits, for "
                "soft labels criterion=F.cross_entropy"
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
        label_of = self.settings.label_of
        if label_of is not None:
            return check_label(label_of(target), target.shape[0], name="label_of(target)")
        if self._one_logit and target.numel() == target.shape[0]:
            return (target.reshape(-1) > 0.5).long()
        if target.ndim == 1 and not target.is_floating_point():
            return check_label(target, target.shape[0])
        if self.spec.background_label is not None:
            return None
        raise TypeError(
            f"label: expected one class a sample (B,), got {describe(target)}; the queue needs one key a sample: for "
            "multi-label or soft targets pass label_of=, for example lambda target: target.argmax(1), or "
            "BatchSpec(background_label=...) when the batch says what the background is"
        )

    def _queue_keys(self, batch: Any, foreground: Tensor | None, image: Tensor) -> Tensor:
        background = self.spec.background_label_of(batch)
        if background is not None:
            return check_label(background, image.shape[0], name="background_label")
        assert foreground is not None, "without a nuisance label there is a class"
        return foreground

    def _find_layer(self, module: LightningModule) -> tuple[str, nn.Module]:
        if self.settings.layer is not None:
            return self.settings.layer, get_layer(module, self.settings.layer)
        try:
            return find_head(module)
        except LookupError as error:
            raise LookupError(f"{error.args[0]}; pass CLADCallback(layer=...)") from None

    def _number_of_keys(self, layer: nn.Module) -> int:
        if self.settings.num_classes is not None:
            return self.settings.num_classes
        if self.spec.background_label is not None:
            bank = self.swap.bank
            if bank is not None and bank.num_classes:
                return int(bank.num_classes)
        elif isinstance(inner := original_module(layer), nn.Linear):
            return max(2, inner.out_features)  # one logit separates two classes
        raise ValueError("num_classes: expected how many background labels there are, which is not known; pass it")
