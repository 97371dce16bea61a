"""Runs one model batch by batch and returns logits and embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import describe
from torch_bgdebias.models import LayerTap, LogitsKey, call_behind_output, find_head, get_layer, logits_of, tap
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probabilities import are_probabilities, without_softmax
from torch_bgdebias.probe.passes.outputs import class_logits, sigmoid_taken, undo_sigmoid
from torch_bgdebias.probe.passes.settings import EvaluationSettings
from torch_bgdebias.probe.passes.units import doubt_about_units
from torch_bgdebias.superclasses import Superclasses

__all__ = ["ModelRun"]

#: what shares are multiplied with: nothing, or to per cent
_WHOLES = (1.0, 100.0)

_LEFT_OUT = "feature consistency is left out, pass layer= to have it"


class ModelRun:
    """Runs a model as the settings say.

    Args:
        model: the model.
        settings: say how its output is read and which layer's input is the embedding.

    Attributes:
        layer: name of the layer whose input is the embedding; ``None`` where there is none to read.
        no_embedding: why there is none although one was asked for; empty otherwise.
        sigmoids: whether a model of several classes takes a sigmoid of each class's logit.
        probabilities: whether an output so far was a softmax already, or, with one logit or label sets, a sigmoid.
        doubt: what in the first images speaks against their units, empty where nothing does; ``None`` before them.
    """

    def __init__(self, model: nn.Module, settings: EvaluationSettings) -> None:
        self.model, self.settings = model, settings
        self.layer: str | None = None
        self.no_embedding = ""
        self.probabilities = False
        self._sigmoid: bool | None = None  # not looked yet
        self._whole = 1.0  # what a sigmoid is multiplied with
        self._extent = (math.inf, -math.inf)  # smallest and largest output so far
        self.doubt: str | None = None
        self._key, self._joined = _taken_apart(settings.logits)
        if settings.embeddings and settings.mixed:
            self._find_layer()

    @property
    def sigmoids(self) -> bool:
        """See the class."""
        return self.settings.task == "multiclass" and bool(self._sigmoid)

    @property
    def in_unit(self) -> bool:
        """Whether all outputs so far lie in [0, 1] and neither a softmax nor a sigmoid is seen."""
        return self._are_shares and self._extent[1] <= 1

    @property
    def in_per_cent(self) -> bool:
        """The same of [0, 100], some of them above 50."""
        return self._are_shares and 50 < self._extent[1] <= 100

    @property
    def _are_shares(self) -> bool:
        return not self.probabilities and not self._sigmoid and self._extent[0] >= 0

    @contextmanager
    def watching(self) -> Iterator[LayerTap | None]:
        """Read the embedding layer inside."""
        if self.layer is None:
            yield None
        else:
            with tap(self.model, [self.layer]) as layer_tap:
                yield layer_tap

    def prepared(self, image: Tensor) -> Tensor:
        """Images as the model wants them.

        Raises:
            TypeError: a preprocessing that returns no such batch.
            ValueError: volumes, of whose dimensions a preprocessing of images takes the depth for the channels.
        """
        if image.ndim == 5 and isinstance(self.settings.preprocess, Preprocessing):
            raise ValueError(
                f"preprocess: expected images (B, C, H, W), got {describe(image)}; normalise volumes in the loader, "
                "and pass mean= and std="
            )
        if self.settings.preprocess is None:
            return image
        prepared: object = self.settings.preprocess(image)
        if not isinstance(prepared, Tensor) or prepared.ndim != image.ndim or len(prepared) != len(image):
            kind = type(prepared).__name__ if isinstance(prepared, Mapping) else describe(prepared)
            raise TypeError(
                f"preprocess: expected a function from images (B, C, H, W) in the loader's units to a tensor of as "
                f"many, got {kind}; of an image processor: lambda image: processor(list(image), do_rescale=False, "
                'return_tensors="pt")["pixel_values"]'
            )
        return prepared

    def __call__(
        self, image: Tensor, layer_tap: LayerTap | None, *, variant: str, number: int
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K) float32 on the host, and embeddings (B, D) or ``None``.

        Args:
            image: (B, C, H, W) as the loader yields them.
            layer_tap: from `watching`.
            variant: of the images, for errors.
            number: of the batch, for errors.
        """
        settings, prepared = self.settings, self.prepared(image)
        if self.doubt is None:
            units = None if settings.mean is None or settings.std is None else (settings.mean, settings.std)
            self.doubt = doubt_about_units(
                self.model, self._call, image, prepared, normalised=units, preprocess=settings.preprocess
            )
            if layer_tap is not None:
                _clear_tap(layer_tap)  # its pass is none of the measurement's
        output = self._call(prepared)
        embedding = None if layer_tap is None else self._embedding(layer_tap, output, len(image))
        where = f"{variant}, batch {number}"
        logits = class_logits(output, self._key, size=len(image), task=settings.task, where=where)
        if settings.task != "multiclass":
            logits = self._without_sigmoid(logits, prepared)
        else:
            logits = self._without_shares(logits, prepared)
        if self._joined is not None:
            logits = self._joined(logits)
        if layer_tap is not None:
            _clear_tap(layer_tap)  # a second look at the output is none of the measurement's either
        return logits, embedding

    def _without_shares(self, outputs: Tensor, prepared: Tensor) -> Tensor:
        """Logits (B, K) also where the model has taken a softmax of them, or a sigmoid of each."""
        if are_probabilities(outputs):
            self.probabilities = True
            return without_softmax(outputs)
        if self._takes_sigmoid(outputs, prepared):
            return undo_sigmoid(outputs / self._whole)
        return outputs

    def _without_sigmoid(self, logits: Tensor, prepared: Tensor) -> Tensor:
        """Logits (B, K) also where the model has taken a sigmoid of them, as it is seen to do in its first batch."""
        of_two = self.settings.task == "binary"
        values = 2 * logits[:, 1] if of_two else logits
        if not self._takes_sigmoid(values, prepared):
            return logits
        self.probabilities = True
        odds = undo_sigmoid(values / self._whole)
        return torch.stack([-odds / 2, odds / 2], 1) if of_two else odds

    def _takes_sigmoid(self, values: Tensor, prepared: Tensor) -> bool:
        """Whether outputs are sigmoids, as shares or in per cent, as the first batch shows."""
        low, high = torch.stack(values.detach().aminmax()).tolist()
        if self._sigmoid is None:
            candidates = [whole for whole in _WHOLES if low >= 0 and high <= whole]
            taken = [whole for whole in candidates if sigmoid_taken(lambda: self._logits(prepared), whole)]
            self._sigmoid, self._whole = bool(taken), (taken or [1.0])[0]
        self._extent = min(low, self._extent[0]), max(high, self._extent[1])
        return self._sigmoid

    def _logits(self, prepared: Tensor) -> Tensor:
        return logits_of(self._call(prepared), self._key)

    def _call(self, prepared: Tensor) -> Any:
        forward = self.settings.forward
        try:
            return self.model(prepared) if forward is None else forward(self.model, prepared)
        except RuntimeError as error:
            model_dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), prepared.dtype)
            if model_dtype == prepared.dtype:
                raise
            raise TypeError(
                f"image: expected {str(model_dtype).removeprefix('torch.')} as the model's parameters are, got "
                f"{describe(prepared)}; convert them in the loader or by preprocess=, or cast the model ({error})"
            ) from error

    def _embedding(self, layer_tap: LayerTap, output: Any, size: int) -> Tensor | None:
        if self.layer is None:  # given up in an earlier batch
            return None
        calls, number = layer_tap.inputs[self.layer], call_behind_output(layer_tap.outputs[self.layer], output)
        embedding = None if number is None else calls[number]
        times = len(calls)
        _clear_tap(layer_tap)
        if isinstance(embedding, Tensor) and embedding.ndim >= 2 and len(embedding) == size:
            return embedding.flatten(1)
        received = f"{times} calls in a pass" if times > 1 else "nothing" if embedding is None else describe(embedding)
        message = f"layer {self.layer!r}: expected one embedding an image as its input, got {received}"
        if self.settings.layer is not None:
            raise ValueError(message)
        self.layer, self.no_embedding = None, f"{_LEFT_OUT}: {message}"  # a wrong guess must not end a training
        return None

    def _find_layer(self) -> None:
        if self.settings.layer is not None:
            get_layer(self.model, self.settings.layer)
            self.layer = self.settings.layer
            return
        try:
            outputs = 1 if self.settings.task == "binary" else self.settings.num_classes
            if callable(self.settings.logits):  # which may make other classes of the layer's
                outputs = None
            self.layer = find_head(self.model, num_classes=outputs)[0]
        except LookupError as error:
            self.no_embedding = f"{_LEFT_OUT}: {error}"


def _taken_apart(key: LogitsKey) -> tuple[LogitsKey, Superclasses | None]:
    """A key to the logits, and what joins several to one class once a softmax or sigmoid is undone."""
    return (key.logits, replace(key, logits=None)) if isinstance(key, Superclasses) else (key, None)


def _clear_tap(layer_tap: LayerTap) -> None:
    for tensors in (*layer_tap.inputs.values(), *layer_tap.outputs.values()):
        tensors.clear()
