"""Watches how images enter a module in its own validation steps."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.models import eval_mode
from torch_bgdebias.probe.passes.entry import Entry, compare_entries, inputs_by_module, joined_entries

__all__ = ["NOT_COMPARED", "EntryWatch", "how_images_enter"]

NOT_COMPARED = (
    "how images enter the module in its own step could not be seen (batches of another layout, or a step that hands "
    "them to no module of its own), so its forward gets those of the batch as they are; where that is another network, "
    "pass preprocess= (what the step does to its images) or forward=lambda module, image: ... (the model's output)"
)

_IMAGES = 8
#: what a step does at random leaves some batches as they are
_BATCHES = 8


class EntryWatch:
    """Compares the first validation steps of a run with handing the batch's images to the module.

    Args:
        spec: where the images are in a batch.
    """

    def __init__(self, spec: BatchSpec) -> None:
        self.spec = spec
        self._entries: list[Entry] = []
        self._hooks = ExitStack()
        self._image: Tensor | None = None
        self._step: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Begin anew, with no hook left."""
        self._hooks.close()
        self._entries, self._image, self._step = [], None, {}

    @property
    def entry(self) -> Entry | None:
        """What came of it so far; ``None`` before the first step."""
        return joined_entries(self._entries)

    def start(self, module: nn.Module, batch: Any) -> None:
        """Before the step."""
        if len(self._entries) >= _BATCHES:
            return
        try:
            image = self.spec.image_of(batch)
        except (KeyError, TypeError):  # a validation batch of another layout than the probe's own loader
            self._entries.append(Entry(compared=False))
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
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # NotImplementedError among them
            self._entries.append(Entry(compared=False))  # the measurement itself will say what is wrong
            return
        self._entries.append(compare_entries(self._step, plain, image))
        self._step = {}


def how_images_enter(entry: Entry | None) -> str:
    """What a report says of it."""
    if entry is None or not entry.compared:
        return "not compared with the module's own step"
    return f"as in the module's own step, in the {entry.batches} batch(es) that were looked at"
