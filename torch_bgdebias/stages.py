"""Finds a network's last stage: the layers after the last halving of the maps, or a ViT's last blocks."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torch_bgdebias.checks import describe
from torch_bgdebias.models import as_map, device_of, eval_mode, is_compiled, run_eagerly, uncompiled_name

__all__ = ["LAST_STAGE", "LastStage", "last_stage"]

#: instead of layers' names: what enters the last stage
LAST_STAGE = "last-stage"
#: sides of the square images that are tried where none is given
_SIDES = (224, 112, 96, 64, 48, 32, 28)
#: equal blocks in a row that make a network one of blocks, and the share of them that is the last stage
_BLOCKS, _SHARE = 4, 0.25
#: share of the maps' parameters below which what precedes the last halving is a stem
_STEM = 0.05


class LastStage(NamedTuple):
    """Names of layers, as in ``model.named_modules()``.

    Args:
        first: the first layer of the stage.
        before: the layer whose output enters it.
    """

    first: str
    before: str


@dataclasses.dataclass(eq=False)
class _Call:
    """One call of a layer in a forward pass; tensors are held, so that two are the same one only if they are."""

    name: str
    module: nn.Module
    entered: Tensor | None
    side_in: float
    outer: _Call | None
    left: Tensor | None = None
    side_out: float = 0.0

    @property
    def halves(self) -> bool:
        """One halving of the map, and no pooling to a point."""
        return self.side_out > 1 and 1.5 < self.side_in / self.side_out < 3

    @property
    def learns(self) -> bool:
        return next(self.module.parameters(), None) is not None


def last_stage(model: nn.Module, image: Tensor | None = None) -> LastStage:
    """Find the last stage of a network, by one forward pass in evaluation mode.

    It begins with the outermost layer that brings maps to their last size, such as ``layer4`` of a ResNet; where that
    is a pooling layer, with the first layer that learns after it (VGG). Of networks of equal blocks without a halving
    but in the stem (ViT) it is the last quarter of the blocks.

    Args:
        model: maps images (B, C, H, W) to logits; left as it is.
        image: (B, C, H, W), what it is tried with; ``None``: zeros of 224 pixels or, if it does not take them, fewer.

    Raises:
        TypeError: ``model`` is no module.
        LookupError: it does not run on such an image, or no stage was recognised; name the layers yourself.

    Example:
        >>> from torch import nn
        >>> lower = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        >>> upper = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        >>> last_stage(nn.Sequential(lower, upper, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)))
        LastStage(first='1', before='0')
    """
    argument: object = model
    if not isinstance(argument, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {describe(argument)}")
    calls = _calls_of(model, image)
    stage = _after_last_halving(calls)
    if stage is None or _share_before(calls, stage) < _STEM:
        stage = _last_blocks(calls) or stage
    if stage is None:
        raise LookupError(
            f"{type(model).__name__}: no last stage could be told (no layer halves the maps after others have run, and "
            f"no {_BLOCKS} equal blocks follow each other); name the layers yourself"
        )
    return stage


def _calls_of(model: nn.Module, image: Tensor | None) -> list[_Call]:
    """The calls in a forward pass, in the order in which they began."""
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise LookupError(f"{type(model).__name__} has layers without a size yet (lazy ones): name the layers yourself")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    device, errors = device_of(model), []
    tried = [image] if image is not None else [
        torch.zeros(1, channels, side, side, dtype=parameter.dtype, device=device) for side in _SIDES
    ]  # fmt: skip
    for trial in tried:
        calls: list[_Call] = []
        size = (trial.shape[-2], trial.shape[-1])
        try:
            with eval_mode(model), torch.no_grad(), _drawing_apart(device), _recorded(model, calls, size):
                model(trial)
        except Exception as error:  # any code of the user's may run here: the reason is in the message
            errors.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        return calls
    raise LookupError(
        f"{type(model).__name__}: its stages could not be looked at, it does not run on {describe(tried[0])} "
        f"({errors[0]}); name the layers yourself"
    )


@contextmanager
def _drawing_apart(device: torch.device) -> Iterator[None]:
    """Leave the program's generators as they were, whatever the model draws."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def _recorded(model: nn.Module, calls: list[_Call], size: tuple[int, int]) -> Iterator[None]:
    open_calls: list[_Call] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensor = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
            outer = open_calls[-1] if open_calls else None
            calls.append(_Call(name, module, tensor, _side(tensor, size), outer))
            open_calls.append(calls[-1])

        return hook

    def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = open_calls.pop()
        call.left = output if isinstance(output, Tensor) else None
        call.side_out = _side(call.left, size)

    with ExitStack() as stack:
        if is_compiled(model):
            warnings.warn(
                f"{type(model).__name__} is compiled: it runs eagerly while its stages are read", stacklevel=5
            )
            stack.enter_context(run_eagerly())
        for name, module in model.named_modules():
            if name:
                hook = enter(uncompiled_name(name))
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        yield


def _side(tensor: Tensor | None, size: tuple[int, int]) -> float:
    """The side of a map or of patches, as the root of its area; 0 for what is neither."""
    try:
        height, width = as_map(tensor, size).shape[-2:]
    except ValueError:
        return 0.0
    return float((height * width) ** 0.5)


def _after_last_halving(calls: list[_Call]) -> LastStage | None:
    """The outermost call that is no more than the last halving that something learned precedes."""
    for halving in reversed([call for call in calls if call.halves]):
        for call in (halving_call for halving_call in reversed([halving, *_around(halving)]) if halving_call.halves):
            first = _first_that_learns(calls, calls.index(call))
            before = None if first is None else _maker_of(calls, first)
            if first is not None and before is not None:
                return LastStage(first.name, before.name)
    return None


def _share_before(calls: list[_Call], stage: LastStage) -> float:
    """The share of parameters, of the layers that map maps to maps, that come before a stage."""
    begin = next(i for i, call in enumerate(calls) if call.name == stage.first)
    parameters = [
        sum(p.numel() for p in call.module.parameters(recurse=False)) if call.side_out > 1 else 0 for call in calls
    ]
    return sum(parameters[:begin]) / max(1, sum(parameters))


def _first_that_learns(calls: list[_Call], start: int) -> _Call | None:
    """The layer at ``start``, or where it has no parameters the next one with some that maps maps to maps."""
    return next((call for call in calls[start:] if call.learns and call.side_in > 1 and call.side_out > 1), None)


def _maker_of(calls: list[_Call], first: _Call) -> _Call | None:
    """The outermost layer that returned what enters another one, if a layer that learns has run before."""
    earlier, outside = calls[: calls.index(first)], _around(first)
    if not any(call.learns and call not in outside for call in earlier):
        return None
    return next((call for call in earlier if call.left is not None and call.left is first.entered), None)


def _around(call: _Call) -> list[_Call]:
    chain = []
    while call.outer is not None:
        call = call.outer
        chain.append(call)
    return chain


def _last_blocks(calls: list[_Call]) -> LastStage | None:
    """The last quarter of the longest row of equal blocks, each of which takes what the one before it returned."""
    longest: list[_Call] = []
    row: list[_Call] = []
    for call in sorted(
        (candidate for candidate in calls if candidate.learns and candidate.side_out > 1),
        key=lambda candidate: candidate.name.count("."),
    ):
        follows = row and type(row[-1].module) is type(call.module) and row[-1].left is call.entered
        row = [*row, call] if follows else [call]
        longest = max(longest, row, key=len)
    if len(longest) < _BLOCKS:
        return None
    first = len(longest) - max(1, round(_SHARE * len(longest)))
    return LastStage(longest[first].name, longest[first - 1].name)
