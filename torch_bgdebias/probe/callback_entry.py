"""Watches how images enter a module in one of its own validation steps."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.models import eval_mode
from torch_bgdebias.probe.passes.entry import Entry, compare_entries, inputs_by_module

__all__ = ["EntryWatch"]

_IMAGES = 8


class EntryWatch:
    """Compares the first validation step of a run with handing the batch's images to the module.

    Args:
        spec: where the images are in a batch.

    Attributes:
        entry: what came of it; ``None`` before, and where nothing could be compared.
    """

    def __init__(self, spec: BatchSpec) -> None:
        self.spec = spec
        self.entry: Entry | None = None
        self._done = False
        self._hooks = ExitStack()
        self._image: Tensor | None = None
        self._step: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Begin anew, with no hook left."""
        self._hooks.close()
        self.entry, self._done, self._image, self._step = None, False, None, {}

    def start(self, module: nn.Module, batch: Any) -> None:
        """Before the step."""
        if self._done:
            return
        self._done = True
        try:
            image = self.spec.image_of(batch)
        except (KeyError, TypeError):  # a validation batch of another layout than the probe's own loader
            return
        self._image = image[:_IMAGES].detach().clone()
        self._step = self._hooks.enter_context(inputs_by_module(module, len(image)))

    def stop(self, module: nn.Module) -> None:
        """After the step: the same images are handed to the module, in evaluation mode and without gradients."""
        if self._image is None:
            return
        self._hooks.close()
        image, self._image = self._image, None
        try:
            with eval_mode(module), torch.no_grad(), inputs_by_module(module, len(image)) as plain:
                module(image)
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            return  # the measurement itself will say what is wrong
        self.entry = compare_entries(self._step, plain, image)
        self._step = {}
