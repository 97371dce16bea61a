"""How images enter a network in somebody's own step, and how that differs from handing it the batch's image.

A module may normalise, flip or resize its images inside its steps. Whoever calls the module with the images of the
loader then measures another network than the one that is trained. So one of the user's own steps is watched: the first
module that both the step and a plain call reach shows what each of them hands over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ChannelMap", "Entry", "compare_entries", "inputs_by_module", "joined_entries"]

#: more channels than this are features, not pictures
_CHANNELS = 4
_IMAGES = 8


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
        return torch.einsum("dc,bchw->bdhw", weight, image) + bias[:, None, None]

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
        batches: of how many batches this is said.
    """

    compared: bool
    preprocess: ChannelMap | None = None
    problem: str = ""
    batches: int = 1


@contextmanager
def inputs_by_module(module: nn.Module, size: int) -> Iterator[dict[str, Tensor]]:
    """The first picture (B, C, H, W), B = ``size``, that each module is given inside, by its name, in order of calls.

    The module itself is called ``""``.
    """
    seen: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor) and _is_picture(value, size):
                    seen.setdefault(name, value[:_IMAGES].detach().clone())
                    return

        return hook

    handles = [m.register_forward_pre_hook(noting(name), with_kwargs=True) for name, m in module.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def compare_entries(step: Mapping[str, Tensor], plain: Mapping[str, Tensor], image: Tensor) -> Entry:
    """What a step does to its images.

    Args:
        step: from `inputs_by_module` around the user's step.
        plain: the same around ``module(image)``, in evaluation mode.
        image: the batch's images.
    """
    name = next((n for n in plain if n in step), None)
    if name is None:
        inside = [next((n for n in seen if n), "") for seen in (step, plain)]
        if all(inside):
            return Entry(True, problem=f"its own step runs its part {inside[0]!r}, and its forward {inside[1]!r}")
        return Entry(compared=False)
    theirs, ours = step[name].double(), plain[name].double()
    low = any(x.dtype in (torch.float16, torch.bfloat16) for x in (step[name], plain[name], image))
    tolerance = 2e-2 if low else 1e-4
    if _close(theirs, ours, tolerance):
        return Entry(compared=True)
    where = f"its module {name!r}" if name else "it"
    if theirs.shape[2:] != ours.shape[2:]:
        sizes = " instead of ".join(f"{tuple(x.shape[2:])}" for x in (theirs, ours))
        return Entry(True, problem=f"{where} is given images of {sizes} pixels in the module's own step")
    batch_image = image[:_IMAGES].double()
    if not _close(ours, batch_image, tolerance):
        return Entry(True, problem=f"{where} is given other images in the module's own step than by its forward")
    channel_map = _channel_map(batch_image, theirs, tolerance)
    if channel_map is None:
        return Entry(True, problem=f"{where} is given the batch's images changed in a way that is no normalisation")
    return Entry(True, preprocess=channel_map)


def joined_entries(entries: Sequence[Entry]) -> Entry | None:
    """What several batches say together: a problem of one is a problem, and all have to be changed in the same way.

    Args:
        entries: one a batch; ``None`` comes of none.
    """
    compared = [entry for entry in entries if entry.compared]
    if not compared:
        return Entry(compared=False, batches=len(entries)) if entries else None
    problem = next((entry.problem for entry in compared if entry.problem), "")
    first = compared[0].preprocess
    if not problem and not all(_alike(first, entry.preprocess) for entry in compared):
        problem = "the module's own step changes images in another way in every batch (at random?)"
    batches = sum(entry.batches for entry in compared)
    return Entry(True, None if problem else first, problem, batches)


def _alike(one: ChannelMap | None, two: ChannelMap | None) -> bool:
    if one is None or two is None:
        return one is two
    if one.weight.shape != two.weight.shape:
        return False
    pairs = ((one.weight, two.weight), (one.bias, two.bias))
    return all(bool((a - b).abs().max() <= 2e-2 * (1 + a.abs().max())) for a, b in pairs)


def _channel_map(image: Tensor, target: Tensor, tolerance: float) -> ChannelMap | None:
    """The map over channels that turns the one into the other, where there is exactly one."""
    pixels, wanted = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (image, target))  # (P, C), (P, D)
    if pixels.shape[1] == wanted.shape[1]:
        centred = pixels - pixels.mean(0)
        spread = centred.square().mean(0)
        if bool((spread > 1e-8).all()):
            slope = (centred * (wanted - wanted.mean(0))).mean(0) / spread
            shift = wanted.mean(0) - slope * pixels.mean(0)
            if _close(pixels * slope + shift, wanted, tolerance):
                return ChannelMap(slope.diag(), shift)
    design = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    if int(torch.linalg.matrix_rank(design)) < design.shape[1]:
        return None
    solution = torch.linalg.lstsq(design, wanted).solution
    if not _close(design @ solution, wanted, tolerance):
        return None
    return ChannelMap(solution[:-1].T.contiguous(), solution[-1])


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


def _is_picture(value: Tensor, size: int) -> bool:
    return value.ndim == 4 and len(value) == size and value.shape[1] <= _CHANNELS and value.is_floating_point()
