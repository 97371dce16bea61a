"""``ConceptProbeCallback``: IoU of concept vectors, by background, in the training log. It only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from torch_bgdebias._deprecated import renamed_arguments
from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.concepts.activations import Forward
from torch_bgdebias.concepts.experiment import Variant
from torch_bgdebias.concepts.settings import ConceptOptions, ConceptSettings
from torch_bgdebias.lightning import LightningModule, ReadingCallback, Trainer
from torch_bgdebias.probe.passes.loading import rng_untouched

__all__ = ["ConceptProbeCallback"]


class ConceptProbeCallback(ReadingCallback):
    """Fit Net2Vec vectors at the end of a validation or test epoch, test them, log the mean IoU.

    Logs ``concepts/{layer}/{background}``: the mean over test images whose masks are large enough for the layer; a
    background on which there is none is not logged.

    Args:
        fit: samples that vectors are fitted on, in the module's units. Every process has the same.
        test: other samples.
        categories: name -> backgrounds of the test samples, as for :func:`torch_bgdebias.concepts.concept_transfer`.
        layers: names; ``None``: an early, a middle and a late one.
        every_n_epochs: how often in a fit.
        seed: of the order in which vectors are fitted.
        log: log, do not, or log under this prefix.
        forward: how to run the module; ``None``: ``pl_module(images)``.
        **options: fields of :class:`torch_bgdebias.concepts.ConceptSettings` (``size``, ``epochs``, ``lr``, ...).

    Attributes:
        result: the last measurement, or ``None``.
    """

    log_prefix = "concepts"

    @renamed_arguments(prefix="log")
    def __init__(
        self,
        fit: ConceptSamples,
        test: ConceptSamples,
        *,
        categories: Mapping[str, Variant] | None = None,
        layers: Sequence[str] | None = None,
        every_n_epochs: int = 1,
        seed: int = 0,
        log: bool | str = True,
        forward: Forward | None = None,
        **options: Unpack[ConceptOptions],
    ) -> None:
        named = {"categories": list(categories or ()), "layers": layers, "every_n_epochs": every_n_epochs, "log": log}
        super().__init__(every_n_epochs=every_n_epochs, seed=seed, log=log, options={**named, **options})
        self.settings = ConceptSettings(**options)
        self.samples, self.categories, self.layers = (fit, test), categories, layers
        self._forward = forward
        self.result: ConceptTransfer | None = None

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        def forward(module: nn.Module, image: Tensor) -> object:
            with trainer.precision_plugin.forward_context():  # around the module alone: it may exchange torch's dtype
                return module(image) if self._forward is None else self._forward(module, image)

        with rng_untouched():
            probe = ConceptProbe(pl_module, self.layers, forward=forward, settings=self.settings)
            self.result = concept_transfer(probe, *self.samples, categories=self.categories, methods=("net2vec",))
        named = {}
        for layer in self.result.layers:
            values = self.result.values(layer)
            for place, background in enumerate(self.result.categories):
                if not np.isnan(values[:, place]).all():
                    named[f"{layer}/{background}"] = float(np.nanmean(values[:, place]))
        return named
