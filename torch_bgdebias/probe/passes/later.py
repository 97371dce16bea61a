"""Checks whether later steps behave as the first ones did.

A change that is made at random, in few batches, is not in the first ones. Some pixels of every image and some rows of
what is judged are compared, on the images' device, and nobody waits for it before the numbers are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.probe.passes.answers import Answers
from torch_bgdebias.probe.passes.entry import EXACT, LOW, Entry, picture_in
from torch_bgdebias.probe.passes.judged import Judgements

__all__ = ["LaterSteps", "Plain"]

#: pixels along a side that are compared
_PIXELS = 48
#: images of a batch that are given to a plain call as well, and how many make one such call
_ROWS, _TOGETHER = 2, 32
#: the map over channels was fitted to the first batches: others may have larger values
_SLACK = 10
#: rows of many batches are compared in place of eight
_ANSWERS_SLACK = 2

#: the logits (B, K) of a plain call of the module with images; ``None`` where there are none
Plain: TypeAlias = Callable[[nn.Module, Tensor], Tensor | None]


@dataclass(frozen=True)
class _Step:
    """Images of a step, and of some of their rows what the compared module got and what was judged."""

    images: Tensor
    rows: slice
    pictures: Tensor | None
    judged: Answers


class LaterSteps:
    """Watches steps for what differs from the first ones.

    Args:
        entry: how images entered in those.
        plain: calls the module.
        task: as of `torch_bgdebias.probe.EvaluationSettings`.

    Attributes:
        steps: how many were watched.
        unanswered: whether a plain call failed, so that what is judged was not compared in some of them.
    """

    def __init__(self, entry: Entry, plain: Plain, *, task: str = "multiclass") -> None:
        self._entry, self._plain, self._task = entry, plain, task
        self._largest_error: Tensor | None = None  # in multiples of what is allowed
        self._problem = ""
        self._waiting: list[_Step] = []  # for a plain call
        self._answered: list[tuple[Tensor, Answers]] = []  # what plain calls returned, and what the steps judged
        self._judges_otherwise = self._cuts_elsewhere = False
        self.steps, self.unanswered = 0, False

    @contextmanager
    def watching(self, module: nn.Module, image: Tensor) -> Iterator[Judgements]:
        """Around one step.

        Args:
            module: the user's.
            image: (B, C, H, W) of the batch.
        """
        start = (_ROWS * self.steps) % max(1, len(image) - _ROWS + 1)
        rows = slice(start, start + _ROWS)
        judgements = Judgements(len(image), lambda: True, rows, sets=self._task == "multilabel")
        if self._problem or not len(image):
            yield judgements
            return
        entered = _EnteredImages(self._entry.at, image, rows)
        with ExitStack() as stack:
            for name in self._entry.tops:
                stack.enter_context(_paused(module.get_submodule(name), judgements))
            stack.enter_context(entered.watching(module))
            sampled, rows_of_sampled = (image, rows) if self._entry.whole else (image[rows], slice(None))
            images = sampled.detach().clone()
            stack.enter_context(judgements)
            yield judgements
        self.steps += 1
        if self._entry.at is not None:
            self._compare_entered(entered)
        answers = judgements.answers
        if answers.judged or self._entry.by_forward:
            self._queue(module, _Step(images, rows_of_sampled, entered.picture, answers))

    def forget_waiting(self) -> None:
        """Pass over steps of other weights than those that come."""
        self._waiting = []

    def finish(self, module: nn.Module) -> None:
        """Call the module for those that are waiting, with the weights that they had."""
        if self._waiting:
            self._call_plainly(module)

    def problem(self) -> str:
        """The difference in words; empty where there is none. Waits for the device."""
        if not self._problem and self._largest_error is not None and not float(self._largest_error) <= 1:
            self._problem = "the module's own step changes the images of some batches in another way (at random?)"
        return self._problem

    def judges_otherwise(self) -> bool:
        """Whether some steps judged what forward does not return. Waits for the device."""
        self._compare_answers()
        return self._judges_otherwise

    def cuts_elsewhere(self) -> bool:
        """Whether some judged it by a threshold that is not at a half. Waits for the device."""
        self._compare_answers()
        return self._cuts_elsewhere

    def _compare_answers(self) -> None:
        alike: dict[object, list[tuple[Tensor, Answers]]] = {}
        for logits, judged in self._answered:
            alike.setdefault((judged.kind, tuple(logits.shape[1:])), []).append((logits, judged))
        for steps in alike.values():
            logits, judged = torch.cat([x for x, _ in steps]), Answers.joined([answers for _, answers in steps])
            same = judged.same(logits, task=self._task, slack=_ANSWERS_SLACK)
            self._judges_otherwise |= bool(same) and not any(same)
            self._cuts_elsewhere |= judged.cut_elsewhere(logits, task=self._task, slack=_ANSWERS_SLACK)
        self._answered = []

    def _compare_entered(self, entered: _EnteredImages) -> None:
        if entered.calls != self._entry.calls:
            self._problem = f"in some of its own steps it runs {entered.calls} times, in others {self._entry.calls}"
        if self._entry.by_forward:
            return
        if entered.other_shape:
            self._problem = f"in some of its own steps it is given images of {entered.other_shape}"
        for picture in entered.pixels:
            expected = _floating(entered.before)
            expected = expected if self._entry.arrives is None else self._entry.arrives(expected)
            self._compare(picture, expected, low=_is_low(entered.before) or _is_low(picture))

    def _compare(self, picture: Tensor, expected: Tensor, *, low: bool) -> None:
        if picture.shape != expected.shape:
            self._problem = f"in some of its own steps it is given images of {tuple(picture.shape)}"
            return
        error = (picture.to(expected.dtype) - expected).abs().amax()
        error = error / ((LOW if low else EXACT) * _SLACK * (1 + expected.abs().amax()))
        error = error.nan_to_num(nan=0.0)  # images that are not finite are refused where they are measured
        largest = self._largest_error
        self._largest_error = error if largest is None else torch.maximum(largest, error)

    def _queue(self, module: nn.Module, step: _Step) -> None:
        earlier = self._waiting[0].images if self._waiting else step.images
        if (earlier.shape[1:], earlier.dtype) != (step.images.shape[1:], step.images.dtype):
            self._call_plainly(module)
        self._waiting.append(step)
        if self._entry.whole or sum(len(waiting.images) for waiting in self._waiting) >= _TOGETHER:
            self._call_plainly(module)

    def _call_plainly(self, module: nn.Module) -> None:
        """One plain call for the images of several steps."""
        steps, self._waiting = self._waiting, []
        images = torch.cat([step.images for step in steps])
        entered = _EnteredImages(self._entry.at if self._entry.by_forward else None, images, slice(None))
        with entered.watching(module):
            answers = self._plain(module, images)
        start = 0
        for step in steps:
            rows = slice(start, start + len(step.images))
            start = rows.stop
            if self._entry.by_forward and step.pictures is not None and entered.picture is not None:
                picture = entered.picture[rows][step.rows]
                self._compare(step.pictures, _floating(picture), low=_is_low(step.pictures) or _is_low(picture))
            if answers is not None and len(answers) == len(images):
                self._answered.append((answers[rows][step.rows], step.judged))
            else:
                self.unanswered = True


class _EnteredImages:
    """The pictures that a module is given while a batch is under way.

    Args:
        name: of the module; ``None`` for nothing.
        image: (B, C, H, W) of the batch.
        rows: of the first call's pictures, to be kept whole.

    Attributes:
        before: some pixels of the batch's images, which a step may change in place.
        pixels: the same ones of the pictures in each call.
        picture: the rows that are kept.
    """

    def __init__(self, name: str | None, image: Tensor, rows: slice) -> None:
        self._name, self._shape, self._rows = name, image.shape, rows
        self._step = max(1, max(image.shape[2:]) // _PIXELS)
        self.before = self._thinned(image).clone() if name is not None else image
        self.calls, self.other_shape = 0, ""
        self.pixels: list[Tensor] = []
        self.picture: Tensor | None = None

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        if self._name is None:
            yield
            return
        handle = module.get_submodule(self._name).register_forward_pre_hook(self._enter, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        picture = picture_in(args, kwargs)
        if picture is None:
            return
        self.calls += 1
        if self.picture is None:
            self.picture = picture.detach()[self._rows].clone()
        if len(picture) != self._shape[0] or picture.shape[2:] != self._shape[2:]:
            self.other_shape = f"{tuple(picture.shape)}"
        else:
            self.pixels.append(self._thinned(picture).clone())

    def _thinned(self, image: Tensor) -> Tensor:
        return image.detach()[:, :, :: self._step, :: self._step]


@contextmanager
def _paused(network: nn.Module, judgements: Judgements) -> Iterator[None]:
    handles = [
        network.register_forward_pre_hook(lambda *_: judgements.pause()),
        network.register_forward_hook(lambda _, args, output: judgements.resume(output), always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _floating(image: Tensor) -> Tensor:
    return image if image.dtype == torch.float64 else image.float()


def _is_low(image: Tensor) -> bool:
    return image.dtype in (torch.float16, torch.bfloat16)
