"""``ConceptProbeCallback``: IoU of concept vectors, by background, in the training log. It only reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, Unpack, cast

import numpy as np
from torch import Tensor, nn

from torch_bgdebias._deprecated import renamed_arguments, warn_renamed
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import describe
from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.concepts.activations import Forward
from torch_bgdebias.concepts.experiment import Variant
from torch_bgdebias.concepts.settings import ConceptOptions, ConceptSettings
from torch_bgdebias.lightning import LightningModule, ReadingCallback, Trainer
from torch_bgdebias.probe.callback_settings import call_with_advice
from torch_bgdebias.probe.passes.loading import rng_untouched

__all__ = ["ConceptProbeCallback"]


P = ParamSpec("P")


def _accept_fit_and_test_separately(init: Callable[P, None]) -> Callable[P, None]:
    """In earlier releases the samples were two arguments, ``fit`` and ``test``."""

    @functools.wraps(init)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        callback, *positional = args
        separate = [*positional[:2], *(kwargs.pop(name) for name in ("fit", "test") if name in kwargs)]
        if len(separate) == 2 and all(isinstance(part, ConceptSamples) for part in separate):
            warn_renamed("ConceptProbeCallback(fit, test)", "ConceptProbeCallback((fit, test))")
            cast("Callable[..., None]", init)(callback, tuple(separate), *positional[2:], **kwargs)
        else:
            init(*args, **kwargs)

    return call


class ConceptProbeCallback(ReadingCallback):
    """Fit Net2Vec vectors at the end of a validation or test epoch, test them, log the mean IoU.

    Logs ``concepts/{layer}/{background}``: the mean over test images whose masks are large enough for the layer; a
    background on which there is none is not logged.

    Args:
        samples: those that vectors are fitted on, and others that they are tested on, in the module's units. Every
            process has the same.
        spec: where things are in the loaders' batches; only needed where it hides masks from the module.
        categories: name -> backgrounds of the test samples, as for `torch_bgdebias.concepts.concept_transfer`.
        layers: names; ``None``: an early, a middle and a late one.
        every_n_epochs: how often in a fit.
        seed: accepted as by every callback; nothing is drawn here.
        log: ``True``, ``False``, or the prefix of the logged names.
        forward: how to run the module; ``None``: ``pl_module(images)``.
        **options: fields of `torch_bgdebias.concepts.ConceptSettings` (``size``, ``epochs``, ``lr``, ...).

    Attributes:
        result: the last measurement, or ``None``.
    """

    log_prefix = "concepts"

    @_accept_fit_and_test_separately
    @renamed_arguments(prefix="log", block="chunk")
    def __init__(
        self,
        samples: tuple[ConceptSamples, ConceptSamples],
        spec: BatchSpec | None = None,
        *,
        categories: Mapping[str, Variant] | None = None,
        layers: Sequence[str] | None = None,
        every_n_epochs: int = 1,
        seed: int = 0,
        log: bool | str = True,
        forward: Forward | None = None,
        **options: Unpack[ConceptOptions],
    ) -> None:
        described = {
            "categories": list(categories or ()),
            "layers": layers,
            "every_n_epochs": every_n_epochs,
            "log": log,
        }
        super().__init__(every_n_epochs=every_n_epochs, seed=seed, log=log, spec=spec, options={**described, **options})
        self.settings = ConceptSettings(**options)
        pair: Sequence[object] = samples
        if len(pair) != 2 or not all(isinstance(part, ConceptSamples) for part in pair):
            raise TypeError(f"samples: expected two ConceptSamples, to fit and to test, got {describe(samples)}")
        self.samples, self.categories, self.layers = samples, categories, layers
        self._forward = forward
        self.result: ConceptTransfer | None = None

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        def forward(module: nn.Module, image: Tensor) -> object:
            with trainer.precision_plugin.forward_context():  # around the module alone: it may exchange torch's dtype
                if self._forward is not None:
                    return self._forward(module, image)
                return call_with_advice(module, image, who=type(self).__name__)

        with rng_untouched():
            probe = ConceptProbe(pl_module, self.layers, forward=forward, settings=self.settings)
            self.result = concept_transfer(probe, *self.samples, categories=self.categories, methods=("net2vec",))
        logged = {}
        for layer in self.result.layers:
            values = self.result.values(layer)
            for column, background in enumerate(self.result.categories):
                if not np.isnan(values[:, column]).all():
                    logged[f"{layer}/{background}"] = float(np.nanmean(values[:, column]))
        return logged
