"""``AdversarialBackgroundAccuracy``: how many foregrounds survive every background of a bank (Background Challenge)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds.pool import BackgroundSource, Pool, as_pool
from torch_bgdebias.checks import check_count, check_finite, check_image, check_label, check_mask, describe
from torch_bgdebias.compositing import FOREGROUND_THRESHOLD, paste
from torch_bgdebias.metrics.consistency import ClassSums
from torch_bgdebias.metrics.functional import Average, class_sums, mean_compute, sample_groups
from torch_bgdebias.models import LogitsKey, eval_mode, logits_of

__all__ = ["AdversarialBackgroundAccuracy", "AdversarialBackgrounds", "adversarial_background_accuracy"]

#: from logits (B, K) to classes (B,); -1 for an answer that is none of the labels' classes
Predict: TypeAlias = Callable[[Tensor], Tensor]


class AdversarialBackgrounds(NamedTuple):
    """The effect of every background of a bank on a batch of foregrounds.

    Attributes:
        accuracy: scalar float32, share of the foregrounds that no background fooled; NaN without any foreground.
        robust: (B,) bool, classified correctly on every background.
        fooled_by: (B,) int64, position in the bank of the first background that fooled it; -1 where none did.
        predicted: (B,) int64, the class it was taken for there; -1 where none did (and where ``predict`` says so).
        tried: (B,) int64, backgrounds tried until then, the whole bank for a robust one; 0 without a foreground.
        valid: (B,) bool, False where the mask has no foreground: nothing is there to be classified, nothing is counted.
    """

    accuracy: Tensor
    robust: Tensor
    fooled_by: Tensor
    predicted: Tensor
    tried: Tensor
    valid: Tensor


def adversarial_background_accuracy(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    label: Tensor,
    bank: BackgroundSource,
    *,
    predict: Predict | None = None,
    logits: LogitsKey = None,
    chunk: int = 256,
    void: Tensor | None = None,
) -> AdversarialBackgrounds:
    """Paste every foreground on every background of a bank, until one fools the model.

    Backgrounds are tried in the bank's order, and a fooled foreground drops out, which is asked once a pass.

    Args:
        model: any classifier; runs in evaluation mode without gradients.
        image: (B, C, H, W) float as the model takes it.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1], 1 = foreground.
        label: (B,) integer classes.
        bank: images (N, C, Hb, Wb), no foregrounds, or a ``BackgroundBank``, whose filter is heeded; moved in parts.
        predict: from logits to classes; the largest logit by default.
        logits: where the logits are in the model's output.
        chunk: composites in one forward pass, at least 1: what decides memory.
        void: (B, 1, H, W) or (B, H, W) of pixels that are neither object nor background; no object takes them along.

    Returns:
        ``AdversarialBackgrounds``; its ``accuracy`` is one minus the challenge's share of vulnerable foregrounds.

    Raises:
        TypeError, ValueError: tensors that do not fit together, a bank without images, non-finite logits.

    Source: Noise or Signal (arXiv 2006.09994), section 3.2 and the Background Challenge.

    Example:
        >>> class Brightness(torch.nn.Module):
        ...     def forward(self, image):
        ...         bright = image.mean((1, 2, 3)) - 0.5
        ...         return torch.stack([-bright, bright], 1)
        >>> image, mask = torch.ones(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
        >>> mask[0, :, :1], mask[1, :, :3] = 1, 1
        >>> bank = torch.stack([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)])
        >>> result = adversarial_background_accuracy(Brightness(), image, mask, torch.tensor([1, 1]), bank)
        >>> result.accuracy, result.fooled_by.tolist(), result.tried.tolist()
        (tensor(0.5000), [1, -1], [2, 2])
    """
    check_finite(check_image(image), name="image")
    mask = check_mask(mask, image)
    if void is not None:
        mask = torch.minimum(mask, 1 - check_mask(void, image, name="void"))
    label = check_label(label, len(image)).to(image.device)
    pool = as_pool(bank, name="bank")
    check_count(chunk, name="chunk")
    valid = (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)
    fooled_by, predicted = torch.full_like(label, -1), torch.full_like(label, -1)
    with torch.no_grad(), eval_mode(model):

        def answers(batch: Tensor) -> Tensor:
            return _classes(logits_of(model(batch), logits), len(batch), predict)

        attack = _Attack(answers, image, mask, label, pool, chunk)
        rows = valid.nonzero()[:, 0]
        for start in range(0, len(rows), chunk):
            active = rows[start : start + chunk]
            attack.on(active, fooled_by, predicted)
    robust = valid & (fooled_by < 0)
    tried = torch.where(fooled_by < 0, len(pool), fooled_by + 1) * valid
    accuracy = (robust.sum() / valid.sum()).to(torch.float32)
    return AdversarialBackgrounds(accuracy, robust, fooled_by, predicted, tried, valid)


class AdversarialBackgroundAccuracy(ClassSums):
    """Share of foregrounds that are classified correctly on every background of a bank. Range [0, 1].

    Args:
        bank: see `adversarial_background_accuracy`. It is shared, never copied, with clones of the metric, and
            does not move with the metric.
        num_classes: K, needed for results by class (``average`` other than ``"micro"``).
        average: ``"micro"`` over all foregrounds; ``"macro"`` mean over the classes that occur; ``"none"`` per class
            (K,), NaN for an absent class.
        predict: from logits to classes, see there.
        logits: where the logits are in the model's output.
        chunk: composites in one forward pass.
        **kwargs: torchmetrics' own.

    Attributes:
        bank: as given.

    Source: Noise or Signal (arXiv 2006.09994), the Background Challenge.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        >>> metric = AdversarialBackgroundAccuracy(torch.rand(5, 3, 4, 4))
        >>> metric.update(model, torch.rand(2, 3, 4, 4), torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> float(metric.compute()) in (0.0, 0.5, 1.0)
        True
    """

    higher_is_better: bool | None = True
    _totals: ClassVar[dict[str, torch.dtype]] = dict.fromkeys(("total", "count", "count_tried"), torch.int64)
    total: Tensor
    count: Tensor
    count_tried: Tensor
    count_without_foreground: Tensor
    count_fooled_by: Tensor

    def __init__(
        self,
        bank: BackgroundSource,
        num_classes: int | None = None,
        average: Average = "micro",
        *,
        predict: Predict | None = None,
        logits: LogitsKey = None,
        chunk: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, average, **kwargs)
        self._shared = _Shared(bank)
        self._predict, self._logits, self._chunk = predict, logits, chunk
        size = len(as_pool(bank, name="bank"))
        self.add_state("count_fooled_by", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count_without_foreground", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def bank(self) -> BackgroundSource:
        """The backgrounds, as passed."""
        return self._shared.bank

    def update(
        self, model: nn.Module, image: Tensor, mask: Tensor, label: Tensor, *, void: Tensor | None = None
    ) -> None:
        """Attack a batch of foregrounds; arguments as in `adversarial_background_accuracy`."""
        result = adversarial_background_accuracy(
            model,
            image,
            mask,
            label,
            self.bank,
            predict=self._predict,
            logits=self._logits,
            chunk=self._chunk,
            void=void,
        )
        self._add(**_adversarial_update(result, label, self.num_classes, len(self.count_fooled_by)))

    def compute(self) -> Tensor:
        """The accuracy: a scalar, or (K,) with ``average="none"``; NaN and a warning when there was no foreground."""
        self._warn_if_empty(self.count)
        return mean_compute(self.total, self.count, average=self.average)

    def tried(self) -> Tensor:
        """Composites that decided, mean over foregrounds: 1 (fooled by the first) to the bank's size; all processes."""
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            return mean_compute(self.count_tried, self.count, average=self.average)

    def fooled_by(self) -> Tensor:
        """Foregrounds that each background fooled first, int64 (N,), of all processes."""
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            return self.count_fooled_by.clone()

    def without_foreground(self) -> Tensor:
        """Images whose mask is empty, which are counted nowhere else; of all processes."""
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            return self.count_without_foreground.clone()


class _Shared:
    """Holds what a copy of the metric holds too: banks can be as large as the memory."""

    def __init__(self, bank: BackgroundSource) -> None:
        self.bank = bank

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


@dataclasses.dataclass(frozen=True)
class _Attack:
    """Foregrounds, the backgrounds to try on them, and the model's answer to a batch of composites."""

    answers: Callable[[Tensor], Tensor]
    image: Tensor
    mask: Tensor
    label: Tensor
    pool: Pool
    chunk: int

    def on(self, active: Tensor, fooled_by: Tensor, predicted: Tensor) -> None:
        """Try the whole pool on the foregrounds at ``active`` (A <= chunk), noting the first that fools each."""
        start, total = 0, len(self.pool)
        while start < total and len(active):
            stop = min(total, start + max(1, self.chunk // len(active)))
            backgrounds = self.pool.take(torch.arange(start, stop), self.image)
            width = len(backgrounds)
            rows = active.repeat_interleave(width)
            composite = paste(self.image[rows], self.mask[rows], backgrounds.repeat(len(active), 1, 1, 1))
            classes = self.answers(composite).reshape(len(active), width)
            wrong = classes != self.label[active, None]
            allowed = self.pool.allowed(self.label[active])
            if allowed is not None:  # where the foreground must not stand, an error is not the foreground's
                wrong = wrong & allowed[:, start:stop]
            first_wrong = wrong.int().argmax(1)  # of equal values the first
            fooled = wrong.any(1)
            fooled_by[active] = torch.where(fooled, start + first_wrong, -1)
            predicted[active] = torch.where(fooled, classes.gather(1, first_wrong[:, None])[:, 0], -1)
            active, start = active[~fooled], stop


def _classes(output: Tensor, batch: int, predict: Predict | None) -> Tensor:
    if output.ndim != 2 or len(output) != batch or output.shape[1] < 2:
        raise ValueError(f"model output: expected logits ({batch}, K), K > 1, got {describe(output)}")
    check_finite(output, name="logits")
    classes = output.argmax(1) if predict is None else predict(output)
    return check_label(classes, batch, name="predict(logits)")


def _adversarial_update(
    result: AdversarialBackgrounds, label: Tensor, num_classes: int | None, backgrounds: int
) -> dict[str, Tensor]:
    """Robust foregrounds, foregrounds and composites per class, and foregrounds per background, all int64."""
    group, weight = sample_groups(label, result.valid, len(result.robust), num_classes, result.robust.device)
    total, count = class_sums(result.robust.long(), group, weight, num_classes)
    tried, _ = class_sums(result.tried, group, weight, num_classes)
    fooled = (result.fooled_by >= 0).long()
    per_background = torch.zeros(backgrounds, dtype=torch.int64, device=fooled.device)
    per_background = per_background.index_add(0, result.fooled_by.clamp(min=0), fooled)
    return {
        "total": total,
        "count": count,
        "count_tried": tried,
        "count_fooled_by": per_background,
        "count_without_foreground": (~result.valid).sum(),
    }
