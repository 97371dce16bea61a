"""Compares outputs: whether two say the same of each image, and whether what a step judges is what forward returns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from torch_bgdebias.probabilities import are_probabilities
from torch_bgdebias.probe.passes.outputs import undo_sigmoid

__all__ = ["Answers", "Judged", "Role", "cut_at", "same_answers"]

#: probabilities as near to 0 or 1 as this have lost their logit to rounding
_LEAST = 1e-6
#: no logit is asked whether it is above this to say yes: its sigmoid is 1 in any precision
_FAR = 100.0


#: what makes a tensor a judged one, the surest first, as `Judged` explains
Role: TypeAlias = Literal["output", "last", "part", "cut"]


@dataclass(eq=False)
class Judged:
    """Some rows of a tensor that a step takes losses or predictions of, or may.

    Attributes:
        values: (rows, K) or (rows,).
        role: ``"output"``: torch's losses, an extreme or an order were taken of it; ``"last"``: the user's own losses
            and metrics begin with it, or the step returned it; ``"part"``: it stands in the user's own operations, and
            may be the beginning of a loss; ``"cut"``: it was compared with a threshold, and is what `cut_at` gives,
            above 0 where the threshold says yes.
    """

    values: Tensor
    role: Role


@dataclass(frozen=True)
class Answers:
    """What a step judges, of some rows of its batch."""

    judged: tuple[Judged, ...] = ()

    def of(self, role: Role) -> list[Tensor]:
        """The values of those with this role."""
        return [judged.values for judged in self.judged if judged.role == role]

    @property
    def predict(self) -> bool:
        """Whether predictions or losses of torch were made of them, or yes and no by a threshold."""
        return any(judged.role in ("output", "cut") for judged in self.judged)

    @property
    def candidates(self) -> list[Tensor]:
        """Those of which one should be what forward returns; no one-hot labels. Waits for the device."""
        roles: tuple[Role, ...] = ("output", "last", "part")
        return next(filter(None, (_without_labels(self.of(role)) for role in roles)), [])

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for steps that judge as many tensors of as many numbers an image, which `joined` can put together."""
        return tuple((judged.role, tuple(judged.values.shape[1:])) for judged in self.judged)

    @classmethod
    def joined(cls, several: Sequence[Answers]) -> Answers:
        """The answers of several steps of one `kind`, as if they were one step's."""
        alike = zip(*(answers.judged for answers in several), strict=True)
        return cls(tuple(Judged(torch.cat([one.values for one in steps]), steps[0].role) for steps in alike))

    def same(self, logits: Tensor, *, task: str, slack: float = 1) -> list[bool]:
        """Whether each candidate says the same as these logits. Waits for the device."""
        cut_at_half = self._compare_cuts(logits, task, slack)
        return [cut_at_half or same_answers(candidate, logits, task=task, slack=slack) for candidate in self.candidates]

    def cut_elsewhere(self, logits: Tensor, *, task: str, slack: float = 1) -> bool:
        """Whether these are judged by thresholds, none of which is where the probability is a half."""
        return not self._compare_cuts(logits, task, slack) and self._compare_cuts(
            logits, task, slack, lambda x: x - x.mean()
        )

    def _compare_cuts(
        self, logits: Tensor, task: str, slack: float, change: Callable[[Tensor], Tensor] = lambda values: values
    ) -> bool:
        """Whether any of the cuts is the logits' own log odds but for a factor, ``change`` made to both."""
        tolerance = _tolerance(logits, slack=slack)
        for cut, margin in itertools.product(self.of("cut"), _margins(logits.double(), task)):
            rows = min(len(cut), len(margin))
            value, expected = (x[:rows].reshape(rows, -1).double() for x in (cut, margin))
            if value.shape != expected.shape:
                continue
            is_known = value.isfinite() & expected.isfinite()
            first, second = change(value[is_known]), change(expected[is_known])
            says_something = len(second) > 1 and float(second.abs().max()) > tolerance
            if says_something and _proportional(first, second, tolerance):
                return True
        return False


def cut_at(values: Tensor, threshold: float | Tensor, *, below: bool = False) -> Tensor:
    """Log odds of values, which may be probabilities, minus those of a threshold.

    NaN where rounding has taken them, and where the threshold is so far out that it says nothing of an answer.

    Args:
        values: (B,) or (B, K).
        threshold: what they are compared with.
        below: it is the lower ones that are picked.
    """
    are_shares = ((values >= 0) & (values <= 1)).all()
    rounded = (values <= _LEAST) | (values >= 1 - _LEAST)
    if isinstance(threshold, Tensor):
        odds_at: float | Tensor = threshold.double().logit()
    else:
        odds_at = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.inf
    odds = torch.where(rounded, math.nan, undo_sigmoid(values) - odds_at)
    cut = torch.where(are_shares, odds, values.float() - threshold)
    if isinstance(threshold, Tensor):
        cut = torch.where(threshold.abs() >= _FAR, math.nan, cut)
    elif abs(threshold) >= _FAR:
        cut = torch.full_like(cut, math.nan)
    return -cut if below else cut


def same_answers(first: Tensor, second: Tensor, *, task: str, slack: float = 1) -> bool:
    """Whether two outputs (B, K) say the same, but for a temperature, a softmax or a sigmoid.

    Of two classes one may have both columns, and the other one number an image.

    Args:
        first, second: logits or probabilities.
        task: ``"multiclass"``, where a row's logits may differ by a constant, ``"binary"`` or ``"multilabel"``.
        slack: times the usual tolerance.
    """
    tolerance = _tolerance(first, second, slack=slack)
    rows = min(len(first), len(second))
    first, second = (x[:rows].reshape(rows, -1).double() for x in (first, second))
    of_two = task != "multilabel" and {first.shape[1], second.shape[1]} == {1, 2}
    if (first.shape != second.shape and not of_two) or not bool(first.isfinite().all() & second.isfinite().all()):
        return False
    task = "binary" if of_two else task
    firsts, seconds = (
        [_margin_of_two(x)] if of_two and x.shape[1] == 2 else _readings(x, task) for x in (first, second)
    )
    return any(_say_the_same(one, other, task, tolerance) for one, other in itertools.product(firsts, seconds))


def _say_the_same(first: _Reading, second: _Reading, task: str, tolerance: float) -> bool:
    both_known = first.is_known & second.is_known
    values, others = first.log_odds, second.log_odds
    if task == "multiclass":
        values, others = _centred(values, both_known), _centred(others, both_known)
        if not bool((both_known.sum(1) > 1).any()):  # rounded to one class an image
            return torch.equal(first.is_known.double().argmax(1), second.is_known.double().argmax(1))
    return _proportional(values * both_known, others * both_known, tolerance)


def _tolerance(*outputs: Tensor, slack: float) -> float:
    low = any(output.dtype in (torch.float16, torch.bfloat16) for output in outputs)
    return slack * (5e-2 if low else 5e-3)


def _without_labels(values: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that are no tables of 0 and 1."""
    return [x for x in values if x.ndim == 1 or x.shape[1] == 1 or not bool(((x == 0) | (x == 1)).all())]


def _proportional(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Whether one is the other times a factor above 0, or both are nearly 0."""
    if float(first.abs().max()) < tolerance > float(second.abs().max()):
        return True
    scale = (first * second).sum() / second.square().sum()
    return bool(scale > 0) and bool((first - scale * second).abs().max() <= tolerance * first.abs().max())


class _Reading(NamedTuple):
    """Outputs without a softmax or a sigmoid, and where they are known."""

    log_odds: Tensor
    is_known: Tensor


def _readings(values: Tensor, task: str) -> list[_Reading]:
    """What values may be: within [0, 1] probabilities, or logits that all lie there by chance, as before a training."""
    as_they_are = _Reading(values, torch.ones_like(values, dtype=torch.bool))
    if task == "multiclass":
        if values.shape[1] > 1 and are_probabilities(values):
            return [_Reading(values.clamp_min(_LEAST).log(), values > _LEAST)]
        return [as_they_are]
    if bool(((values >= 0) & (values <= 1)).all()):
        is_known = (values > _LEAST) & (values < 1 - _LEAST)
        return [_Reading(undo_sigmoid(values).double(), is_known), as_they_are]
    return [as_they_are]


def _margins(logits: Tensor, task: str) -> list[Tensor]:
    """Log odds that are above 0 where a model says yes, as they may be read; none of more than two classes."""
    table = logits.reshape(len(logits), -1)
    if task == "multiclass" and table.shape[1] != 2:
        return []
    readings = [_margin_of_two(table)] if task == "multiclass" else _readings(table, task)
    return [torch.where(reading.is_known, reading.log_odds, math.nan) for reading in readings]


def _margin_of_two(values: Tensor) -> _Reading:
    """Log odds (B, 1) of the second of two classes."""
    logits, is_known = _readings(values, "multiclass")[0]
    return _Reading(logits[:, 1:] - logits[:, :1], is_known.all(1, keepdim=True))


def _centred(values: Tensor, is_known: Tensor) -> Tensor:
    return values - (values * is_known).sum(1, keepdim=True) / is_known.sum(1, keepdim=True).clamp_min(1)
