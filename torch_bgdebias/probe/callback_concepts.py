"""``ConceptProbeCallback``: IoU of concept vectors, by background, in the training log. It only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.concepts.activations import Forward
from torch_bgdebias.concepts.experiment import Variant
from torch_bgdebias.probe.passes.loading import rng_untouched

__all__ = ["ConceptProbeCallback"]


class ConceptProbeCallback(pl.Callback):
    """Fit Net2Vec vectors at the end of a validation epoch, test them, log the mean IoU.

    Logs ``{prefix}/{layer}/{background}``: the mean over test images whose masks are large enough for the layer; a
    background on which there is none is not logged.

    Args:
        fit: samples that vectors are fitted on, in the module's units. Every process has the same.
        test: other samples.
        categories: name -> backgrounds of the test samples, as for :func:`torch_bgdebias.concepts.concept_transfer`.
        layers: names; ``None``: an early, a middle and a late one.
        every_n_epochs: how often.
        prefix: of the logged names.
        forward: how to run the module; ``None``: ``pl_module(images)``.
        **settings: of :class:`torch_bgdebias.concepts.ConceptProbe` (size, epochs, lr, ...).

    Attributes:
        result: the last measurement, or ``None``.
    """

    def __init__(
        self,
        fit: ConceptSamples,
        test: ConceptSamples,
        *,
        categories: Mapping[str, Variant] | None = None,
        layers: Sequence[str] | None = None,
        every_n_epochs: int = 1,
        prefix: str = "concepts",
        forward: Forward | None = None,
        **settings: Any,
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: expected at least 1, got {every_n_epochs}")
        ConceptProbe(torch.nn.Identity(), **settings)  # what does not fit is told now, not after an epoch
        self.samples, self.categories, self.layers = (fit, test), categories, layers
        self.every_n_epochs, self.prefix = every_n_epochs, prefix
        self._forward, self._settings = forward, settings
        self.result: ConceptTransfer | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log."""
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        with rng_untouched(), trainer.precision_plugin.forward_context():
            probe = ConceptProbe(pl_module, self.layers, forward=self._forward, **self._settings)
            self.result = concept_transfer(probe, *self.samples, categories=self.categories, methods=("net2vec",))
        named = {}
        for layer in self.result.layers:
            values = self.result.values(layer)
            for place, background in enumerate(self.result.categories):
                if not np.isnan(values[:, place]).all():
                    named[f"{self.prefix}/{layer}/{background}"] = float(np.nanmean(values[:, place]))
        # every process has measured the same: the mean over processes keeps it
        pl_module.log_dict(named, on_step=False, on_epoch=True, sync_dist=trainer.world_size > 1)
