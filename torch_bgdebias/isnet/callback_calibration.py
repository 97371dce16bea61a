"""Measures the relevance range on training batches before the first step of a fit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.isnet.calibration import RelevanceRange, add_explanation, ranges_of_sums
from torch_bgdebias.isnet.wrapper import ISNet
from torch_bgdebias.lightning import LightningModule, Trainer, gradients_allowed
from torch_bgdebias.models import eval_mode

__all__ = ["measured_range"]


def measured_range(
    module: LightningModule, isnet: ISNet, spec: BatchSpec, batches: int, generator: Callable[[], torch.Generator]
) -> RelevanceRange:
    """(C1, C2) of every layer, from training images of all processes, in evaluation mode.

    Args:
        module: in its first training step.
        isnet: wraps its network.
        spec: where the images are in a batch.
        batches: how many, of each process.
        generator: a new one for each batch's random choices.

    Raises:
        ValueError: no training batch, or no relevance.
    """
    trainer = module.trainer
    sums: dict[str, Tensor] = {}
    with _order_unchanged(trainer.train_dataloader), eval_mode(module), gradients_allowed():
        for batch in islice(_batches(trainer), batches):
            image = spec.image_of(batch).detach().clone()
            add_explanation(sums, isnet.explain(image, create_graph=False, generator=generator()))
    if not sums:
        raise ValueError("calibrate: the training loader gave no batch")
    totals = {name: trainer.strategy.reduce(values, reduce_op="sum") for name, values in sums.items()}
    return ranges_of_sums({name: tuple(values.tolist()) for name, values in totals.items()})


def _batches(trainer: Trainer) -> Iterator[Any]:
    """The training loaders' batches as the step gets them, from iterators beside those of the fit."""
    loaders = trainer.train_dataloader
    if loaders is None:
        raise ValueError("calibrate: the trainer has no training loader")
    iterators = tree_map(lambda loader: iter(_fresh_loader(loader)), loaders)
    while True:
        try:
            batch = tree_map(next, iterators)
        except StopIteration:
            return
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _fresh_loader(loader: Any) -> Any:
    """A loader of the same data; one whose workers persist would otherwise start the fit's own iterator anew."""
    if not isinstance(loader, DataLoader):
        return loader
    duplicate = copy.copy(loader)
    duplicate._iterator = None
    return duplicate


@contextmanager
def _order_unchanged(loaders: Any) -> Iterator[None]:
    """Keep the order of the training batches independent of this earlier pass over them."""
    owners = [owner for loader in tree_leaves(loaders) for owner in (loader, getattr(loader, "sampler", None))]
    generators = {id(g): g for g in (getattr(owner, "generator", None) for owner in owners) if g is not None}
    states = [(g, g.get_state()) for g in generators.values()]
    python = random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            for g, state in states:
                g.set_state(state)
