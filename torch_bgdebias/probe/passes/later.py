"""The steps after the first ones: does the network still run as often, on images changed in the same way?

A change that is made at random, in few batches, is not in the first ones. Some pixels of every image are compared, on
the images' device, and nobody waits for it before the numbers are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.probe.passes.entry import EXACT, LOW, Entry, picture_in

__all__ = ["LaterSteps"]

#: pixels along a side that are compared
_PIXELS = 48
#: the map over channels was fitted to the first batches: others may have larger values
_SLACK = 10


class LaterSteps:
    """Watches steps for what differs from the first ones.

    Args:
        entry: how images entered in those.

    Attributes:
        steps: how many were watched.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._worst: Tensor | None = None
        self._said = ""
        self.steps = 0

    @contextmanager
    def watching(self, module: nn.Module, image: Tensor) -> Iterator[None]:
        """Around one step.

        Args:
            module: the user's.
            image: (B, C, H, W) of the batch.
        """
        if self._entry.at is None or self._said:
            yield
            return
        step = max(1, max(image.shape[2:]) // _PIXELS)
        before, calls = image[:, :, ::step, ::step].detach().clone(), 0

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal calls
            picture = picture_in(args, kwargs)
            if picture is not None:
                calls += 1
                self._compare(before, image.shape, picture, step)

        handle = module.get_submodule(self._entry.at).register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        self.steps += 1
        if calls != self._entry.calls:
            self._said = f"in some of its own steps it runs {calls} times, in others {self._entry.calls}"

    def problem(self) -> str:
        """What differed; empty where nothing did. Waits for the device."""
        if not self._said and self._worst is not None and not float(self._worst) <= 1:
            self._said = "the module's own step changes the images of some batches in another way (at random?)"
        return self._said

    def _compare(self, before: Tensor, shape: torch.Size, picture: Tensor, step: int) -> None:
        if len(picture) != shape[0] or picture.shape[2:] != shape[2:]:
            self._said = f"in some of its own steps it is given images of {tuple(picture.shape)}"
            return
        low = any(x.dtype in (torch.float16, torch.bfloat16) for x in (before, picture))
        expected = before.float() if before.dtype != torch.float64 else before
        expected = expected if self._entry.preprocess is None else self._entry.preprocess(expected)
        seen = picture[:, :, ::step, ::step].detach().to(expected.dtype)
        off = (seen - expected).abs().amax() / ((LOW if low else EXACT) * _SLACK * (1 + expected.abs().amax()))
        off = off.nan_to_num(nan=0.0)  # images that are not finite are refused where they are measured
        self._worst = off if self._worst is None else torch.maximum(self._worst, off)
