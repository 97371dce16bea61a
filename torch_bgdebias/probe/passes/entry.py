"""Compares how images enter a network in the user's own step with a plain call on the batch's images.

A module may normalise, flip or resize its images inside its steps. Whoever calls the module with the images of the
loader then measures another network than the one that is trained. So one of the user's own steps is watched: the first
module that both the step and a plain call reach shows what each of them hands over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.probe.passes.judged import ROWS

__all__ = [
    "AS_FORWARD",
    "ELSEWHERE",
    "EXACT",
    "FORWARD",
    "LOW",
    "Call",
    "Calls",
    "ChannelMap",
    "Entry",
    "calls_by_module",
    "compare_entries",
    "joined_entries",
    "other_networks",
    "picture_in",
    "several_calls",
]

#: more channels than this are features, not pictures
_CHANNELS = 4
#: of so many calls of a module the pictures are kept
_CALLS = 16
#: what to do about a step that judges something else than forward returns
AS_FORWARD = "pass forward=lambda module, image: module(image) if forward is what the step judges, else what is"
FORWARD = (
    "pass forward=lambda module, image: ... (what the step judges, for these images), or logits= where that stands "
    "elsewhere in the output"
)
#: a problem, and what to do about it
ELSEWHERE = (
    "its own step says yes from another threshold on than a probability of a half",
    "pass forward=lambda module, image: ... (module(image) without a sigmoid, minus the threshold's log odds)",
)
#: of the largest value: differences of this size come of rounding, in float32 and in half precision
EXACT, LOW = 1e-4, 2e-2


@dataclass(frozen=True)
class ChannelMap:
    """x -> weight x + bias over the channels of images (B, C, H, W): a normalisation, a change of their order.

    Attributes:
        weight: (D, C).
        bias: (D,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, D, H, W)."""
        weight, bias = (x.to(device=image.device, dtype=image.dtype) for x in (self.weight, self.bias))
        return torch.einsum("dc,bc...->bd...", weight, image) + bias.view(-1, *[1] * (image.ndim - 2))

    def __repr__(self) -> str:
        weight, bias = ([round(x, 4) for x in y.flatten().tolist()] for y in (self.weight, self.bias))
        if self.weight.shape[0] == self.weight.shape[1] and torch.equal(self.weight, self.weight.diag().diag()):
            weight = [round(x, 4) for x in self.weight.diag().tolist()]
        return f"channels times {weight} plus {bias}, as in the module's own step"


@dataclass(frozen=True)
class Entry:
    """How the images of a step compare with those of a plain call.

    Attributes:
        compared: whether both were seen.
        preprocess: what the step does to the batch's image before the network has it; ``None`` for nothing.
        problem: why that is not known; empty where it is, or where nothing was compared.
        advice: what to do about the problem; empty for what helps where images are changed.
        batches: of how many batches this is said.
        at: the module that was compared.
        arrives: what the module's images are made of the batch's by, in a step; ``None``: as they are.
        by_forward: forward itself changes the images before the module has them, by more than a normalisation.
        calls: how often the step runs it.
        tops: modules that the step itself runs on pictures.
        failed: whether a plain call was not possible: the measurement will say why.
        whole: a network that looks at the whole batch at once.
        partly: what is judged was not compared in all batches.
        labels: ``"unseen"`` where nobody saw by which labels a step judges, ``"elsewhere"`` where it also predicts.
        training: it was seen in training steps, of which only how images enter is known.
    """

    compared: bool
    preprocess: ChannelMap | None = None
    problem: str = ""
    advice: str = ""
    batches: int = 1
    at: str | None = None
    arrives: ChannelMap | None = None
    by_forward: bool = False
    calls: int = 1
    tops: tuple[str, ...] = ()
    failed: bool = False
    whole: bool = False
    partly: bool = False
    labels: str = ""
    training: bool = False

    def with_problem(self, problem: str, advice: str = "") -> Entry:
        """The same, but for this problem."""
        return dataclasses.replace(self, compared=True, problem=problem, advice=advice)


@dataclass(frozen=True)
class Call:
    """One call of a module with pictures.

    Attributes:
        size: how many.
        picture: the first of them; ``None`` after the first calls.
        answer: (B, K), the first rows of what it returned, where that was one row an image.
    """

    size: int
    picture: Tensor | None
    answer: Tensor | None = None


class Calls(dict[str, list[Call]]):
    """The calls of each module with pictures, by its name, in order of first calls; the module itself is ``""``.

    Attributes:
        tops: names of those that were not called by another one, in order.
        answered: is given what each of these returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answered: Callable[[Any], None] = lambda output: None
        self.tops: dict[str, None] = {}
        self._open: list[bool] = []

    @property
    def running(self) -> bool:
        """Whether a module that was given pictures has not returned yet."""
        return any(self._open)

    def enter(self, name: str, picture: Tensor | None) -> None:
        """A call starts."""
        if picture is not None and not self.running:
            self.tops[name] = None
        self._open.append(picture is not None)
        if picture is not None:
            before = self.setdefault(name, [])
            before.append(Call(len(picture), picture[:ROWS].detach().clone() if len(before) < _CALLS else None))

    def leave(self, name: str, output: Any) -> None:
        """It ends."""
        if self._open and self._open.pop():
            last = self[name][-1]
            self[name][-1] = dataclasses.replace(last, answer=_rows_of_answer(output, last.size))
            if not self.running:
                self.answered(output)


@contextmanager
def calls_by_module(module: nn.Module) -> Iterator[Calls]:
    """Note what pictures (B, C, H, W) each module is given inside."""
    calls = Calls()

    def entering(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, args, kwargs: calls.enter(name, picture_in(args, kwargs))

    def leaving(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, args, output: calls.leave(name, output)

    handles = []
    for name, submodule in module.named_modules():
        # scripted parts take no hooks, and those inside of compiled ones hear of some calls only
        if isinstance(submodule, torch.jit.ScriptModule) or "_orig_mod" in name.split("."):
            continue
        handles.append(submodule.register_forward_pre_hook(entering(name), with_kwargs=True))
        handles.append(submodule.register_forward_hook(leaving(name), always_call=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def picture_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first picture (B, C, H, W) among the arguments of a module."""
    values = (*args, *kwargs.values())
    return next((value for value in values if isinstance(value, Tensor) and _is_picture(value)), None)


def compare_entries(step: Calls, plain: Calls, image: Tensor) -> Entry:
    """What a step does to its images.

    Args:
        step: from `calls_by_module` around the user's step.
        plain: the same around ``module(image)``, in evaluation mode.
        image: those images, the first `ROWS` of the batch's.
    """
    name = _first_shared_module(step, plain)
    if name is None:
        inside = [next((n for n in recorded if n), "") for recorded in (step, plain)]
        if all(inside):
            return Entry(True, problem=f"its own step runs its part {inside[0]!r}, and its forward {inside[1]!r}")
        return Entry(compared=False, tops=tuple(step.tops))
    in_step, in_plain = step[name][0].picture, plain[name][0].picture
    assert in_step is not None
    assert in_plain is not None
    low = any(x.dtype in (torch.float16, torch.bfloat16) for x in (in_step, in_plain, image))
    tolerance, batch_image = LOW if low else EXACT, image.double()
    in_step, in_plain = in_step[: len(image)].double(), in_plain.double()
    as_they_are = _close(in_plain, batch_image, tolerance)
    unchanged = Entry(True, at=name, calls=len(step[name]), tops=tuple(step.tops))
    if _close(in_step, in_plain, tolerance):
        if as_they_are:
            return unchanged
        arrives = _channel_map(batch_image, in_step, tolerance) if batch_image.shape == in_step.shape else None
        return dataclasses.replace(unchanged, arrives=arrives, by_forward=arrives is None)
    network = f"its module {name!r}" if name else "it"
    if in_step.shape[2:] != in_plain.shape[2:]:
        sizes = " instead of ".join(f"{tuple(x.shape[2:])}" for x in (in_step, in_plain))
        return Entry(True, problem=f"{network} is given images of {sizes} pixels in the module's own step")
    if not as_they_are:
        return Entry(True, problem=f"{network} is given other images in the module's own step than by its forward")
    channel_map = _channel_map(batch_image, in_step, tolerance) if in_step.shape == in_plain.shape else None
    if channel_map is None:
        return Entry(True, problem=f"{network} is given the batch's images changed in a way that is no normalisation")
    return dataclasses.replace(unchanged, preprocess=channel_map, arrives=channel_map)


def several_calls(step: Calls, plain: Calls, size: int) -> str:
    """What a step asks of the network more than a plain call does; empty where nothing.

    Args:
        step, plain: as in `compare_entries`.
        size: of the batch in the step.
    """
    name = _first_shared_module(step, plain)
    if name is None:
        return ""
    step_calls, plain_calls = step[name], plain[name]
    network = f"its module {name!r}" if name else "it"
    plain_size = min(size, ROWS)
    if [call.size / size for call in step_calls] == [call.size / plain_size for call in plain_calls]:
        changes = [sum(not _alike_pictures(*pair) for pair in pairwise(calls)) for calls in (step_calls, plain_calls)]
        return "" if changes[0] == changes[1] else f"{network} is given different images in {len(step_calls)} calls"
    if any(call.size != size for call in step_calls):
        times = f"{sum(call.size for call in step_calls)} images in {len(step_calls)} call(s)"
        return f"{network} is given {times} for the {size} of the batch (crops, views?)"
    pairs = [(call, step_calls[number % len(plain_calls)]) for number, call in enumerate(step_calls[:_CALLS])]
    times = f"{network} runs {len(step_calls)} times in one validation step"
    if len(step_calls) % len(plain_calls) or not all(_alike_pictures(*pair) for pair in pairs):
        return f"{times}, on different images (views, scales?)"
    if not all(_alike_answers(*pair) for pair in pairs):
        return f"{times} and answers the same images differently (dropout?)"
    return ""


def other_networks(step: Calls, plain: Calls, outputs: int) -> dict[str, Tensor]:
    """Networks that a step runs beside those of a plain call and that could be the one it judges, and their answers.

    Args:
        step, plain: as in `compare_entries`.
        outputs: K, numbers an image that the plain call returns.
    """
    candidates: dict[str, Tensor] = {}
    for name, calls in step.items():
        in_plain = not name or name in plain or any(other.startswith(f"{name}.") for other in plain)
        answers = [call.answer for call in calls if call.answer is not None and call.answer.shape[1] == outputs]
        if answers and not in_plain:
            candidates[name] = answers[0]
    return {
        name: answer
        for name, answer in candidates.items()
        if not any(name.startswith(f"{other}.") for other in candidates)
    }


def _first_shared_module(step: Calls, plain: Calls) -> str | None:
    return next((name for name in plain if name in step), None)


def joined_entries(entries: Sequence[Entry]) -> Entry | None:
    """What several batches say together: a problem of one is a problem, and all have to be changed in the same way.

    Args:
        entries: one a batch; ``None`` comes of none.
    """
    compared = [entry for entry in entries if entry.compared]
    if not compared:
        return next((entry for entry in entries if not entry.failed), entries[0] if entries else None)
    worst = next((entry for entry in compared if entry.problem), None)
    problem, advice = ("", "") if worst is None else (worst.problem, worst.advice)
    first = compared[0]
    if not problem and not all(_alike_maps(first.preprocess, entry.preprocess) for entry in compared):
        problem = "the module's own step changes images in another way in every batch (at random?)"
    arrive_alike = all(_alike_maps(first.arrives, entry.arrives) for entry in compared)
    return dataclasses.replace(
        first,
        preprocess=None if problem else first.preprocess,
        problem=problem,
        advice=advice,
        batches=sum(entry.batches for entry in compared),
        at=first.at if all(entry.at == first.at for entry in compared) else None,
        by_forward=not arrive_alike or any(entry.by_forward for entry in compared),
        tops=tuple(dict.fromkeys(name for entry in compared for name in entry.tops)),
        whole=any(entry.whole for entry in compared),
        partly=any(entry.partly for entry in compared),
        labels=next(filter(lambda kind: kind in [entry.labels for entry in compared], ("elsewhere", "unseen")), ""),
    )


def _alike_maps(first: ChannelMap | None, second: ChannelMap | None) -> bool:
    if first is None or second is None:
        return first is second
    if first.weight.shape != second.weight.shape:
        return False
    pairs = ((first.weight, second.weight), (first.bias, second.bias))
    return all(bool((a - b).abs().max() <= 2e-2 * (1 + a.abs().max())) for a, b in pairs)


def _channel_map(image: Tensor, target: Tensor, tolerance: float) -> ChannelMap | None:
    """The map over channels that turns the one into the other, where there is exactly one."""
    pixels, targets = (x.movedim(1, -1).flatten(0, -2) for x in (image, target))  # (P, C), (P, D)
    if pixels.shape[1] == targets.shape[1]:
        centred = pixels - pixels.mean(0)
        spread = centred.square().mean(0)
        if bool((spread > 1e-8).all()):
            slope = (centred * (targets - targets.mean(0))).mean(0) / spread
            shift = targets.mean(0) - slope * pixels.mean(0)
            if _close(pixels * slope + shift, targets, tolerance):
                return ChannelMap(slope.diag(), shift)
    design = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    if int(torch.linalg.matrix_rank(design)) < design.shape[1]:
        return None
    solution = torch.linalg.lstsq(design, targets).solution
    if not _close(design @ solution, targets, tolerance):
        return None
    return ChannelMap(solution[:-1].T.contiguous(), solution[-1])


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


def _is_picture(value: Tensor) -> bool:
    return value.ndim in (4, 5) and value.shape[1] <= _CHANNELS and value.is_floating_point()


def _rows_of_answer(output: Any, size: int) -> Tensor | None:
    """The first rows of the first (B, K) in what a module returned."""
    values = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
    )
    rows = (value for value in values if isinstance(value, Tensor) and value.ndim == 2 and len(value) == size)
    answer = next(rows, None)
    return None if answer is None else answer[:ROWS].detach().clone()


def _alike_pictures(first: Call, second: Call) -> bool:
    if first.picture is None or second.picture is None or first.size != second.size:
        return False
    return _close(first.picture.double(), second.picture.double(), EXACT)


def _alike_answers(first: Call, second: Call) -> bool:
    if first.answer is None or second.answer is None:
        return first.answer is second.answer
    low = first.answer.dtype in (torch.float16, torch.bfloat16)
    return _close(first.answer.double(), second.answer.double(), LOW if low else EXACT)
