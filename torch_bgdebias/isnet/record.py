"""``Record``: one recorded forward pass, and the heatmaps computed from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from torch_bgdebias.isnet.rules import PixelBox
from torch_bgdebias.lrp.blame import propagate
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import depends_on
from torch_bgdebias.models import as_map
from torch_bgdebias.precision import working_precision

__all__ = ["Explanation", "Record", "WithImage"]

#: from an image to the positional and the named arguments of a call
WithImage: TypeAlias = "Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Heatmaps of one forward pass.

    Attributes:
        logits: (B, K), or (B,) of one logit: what the model returned.
        relevance: (B, M, C, H, W), at least float32: M heatmaps an image, at the input; C is 0 where the rules leave
            the input out (``at_input=False``). Of volumes (B, M, C, D, H, W).
        hidden: the same at the outputs of the layers of ``deep_supervision``, (B, M, c, h, w) each.
    """

    logits: Tensor
    relevance: Tensor
    hidden: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def rows(self, which: slice) -> Explanation:
        """The explanation of some of the images."""
        hidden = {name: maps[which] for name, maps in self.hidden.items()}
        return Explanation(self.logits[which], self.relevance[which], hidden)


@dataclasses.dataclass(frozen=True)
class HiddenOutput:
    """A layer's output as a place to differentiate at, and a copy, since the model may change it in place."""

    edge: GradientEdge
    value: Tensor
    #: maps (B, h, w, c), as Swin's
    channels_last: bool


@dataclasses.dataclass
class Record:
    """One forward pass: its input as a place to differentiate at, its output, and what was caught on the way."""

    #: the image as it was, and the place in the graph where it entered
    value: Tensor
    place: Tensor | GradientEdge
    #: only the relevance pass uses the gradient of the image
    private: bool
    flex: FlexPass
    #: the model's arguments, with another image in the place of its own
    rest: WithImage
    #: the pass was opened for this record
    opened: bool = True
    #: calls of the module within its call
    depth: int = 0
    output: Any = None
    hidden: dict[str, HiddenOutput] = dataclasses.field(default_factory=dict)
    finished: bool = False

    def leave(self) -> None:
        """The forward pass is over."""
        if self.opened:
            self.flex.close()
        self.opened = False

    def catch(self, name: str, layer: nn.Module, output: Any) -> None:
        """Note what a layer of ``deep_supervision`` returned.

        Raises:
            ValueError: no maps or tokens, a second call, or no gradient leads through it.
        """
        label = f"deep_supervision: layer {name!r}"
        volumes = self.value.ndim == 5
        if not isinstance(output, Tensor) or output.ndim not in ((5,) if volumes else (3, 4)):
            received = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            shapes = "maps (B, c, d, h, w) of volumes" if volumes else "maps (B, c, h, w) or tokens (B, N, c)"
            raise ValueError(f"{label} must return {shapes}, got {received}")
        if name in self.hidden:
            raise ValueError(f"{label} is called twice in a forward pass; name one that is called once")
        if not output.requires_grad:
            raise ValueError(f"{label} returned something that no gradient leads through (no_grad, or detached)")
        channels_last = output.ndim >= 4 and _has_channels_last(layer, output, self.value)
        self.hidden[name] = HiddenOutput(get_gradient_edge(output), output.clone(), channels_last)

    def heatmap(
        self,
        scalar: Tensor,
        logits: Tensor,
        rule: str,
        box: PixelBox,
        *,
        at_input: bool = True,
        create_graph: bool,
        retain_graph: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One heatmap (B, C, H, W) and its counterparts in the hidden layers.

        Args:
            scalar: what is explained, summed over the batch.
            logits: of this pass.
            rule: of several, by which it is explained.
            box: where the image's pixels lie, for z^B.
            at_input: down to the image, or to the hidden layers only.
            create_graph: the heatmaps can be trained through.
            retain_graph: there is more to come from this pass.

        Raises:
            RuntimeError: no gradient path leads to the image.
        """
        layers = self.flex.input_layers if at_input else []
        hidden = [self.flex.places(output.edge, output.value) for output in self.hidden.values()]
        edges = [edge for targets in hidden for edge, _ in targets]
        targets = [*([self.place] if at_input else []), *(layer.output for layer in layers), *edges]
        if not scalar.requires_grad:
            raise RuntimeError(CUT_OFF)
        with self.flex.relevance(rule, logits):
            propagated = propagate(scalar, targets, create_graph=create_graph, retain_graph=retain_graph)
        gradients = iter(propagated)
        at_image, at_layers = next(gradients) if at_input else None, list(islice(gradients, len(layers)))
        if all(gradient is None for gradient in (propagated[: 1 + len(layers)] if at_input else propagated)):
            raise self._no_path(scalar)
        with torch.set_grad_enabled(create_graph):
            if at_input:
                relevance = self._at_image(at_image, list(zip(layers, at_layers, strict=True)), box)
            else:
                relevance = working_precision(self.value.detach()[:, :0])
            maps = {
                name: self._hidden_map(name, [value for _, value in targets], list(islice(gradients, len(targets))))
                for name, targets in zip(self.hidden, hidden, strict=True)
            }
        return relevance, maps

    def _at_image(
        self, at_image: Tensor | None, layers: list[tuple[InputLayer, Tensor | None]], box: PixelBox
    ) -> Tensor:
        """Input x gradient, and of the layers that are treated so the z^B rule."""
        image = self.value.detach() if self.private else self.value
        contributions = [] if at_image is None else [_value_times_gradient(image, at_image)]
        low, high = box.bounds(image)
        for layer, gradient in layers:
            if gradient is not None:
                at_layer = layer.relevance(gradient, low, high, self.flex.stabilizer).to(layer.x.dtype)
                (contribution,) = torch.autograd.grad(
                    layer.x, self.place, at_layer, create_graph=torch.is_grad_enabled(), retain_graph=True
                )
                contributions.append(working_precision(contribution))
        return torch.stack(contributions).sum(0) if len(contributions) > 1 else contributions[0]

    def _hidden_map(self, name: str, values: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
        """Relevance at a hidden layer: its output times the gradient, as maps (B, c, h, w)."""
        contributions = [_value_times_gradient(v, g) for v, g in zip(values, gradients, strict=True) if g is not None]
        relevance = (
            torch.stack(contributions).sum(0) if contributions else torch.zeros_like(working_precision(values[0]))
        )
        if relevance.ndim >= 4:
            return relevance.movedim(-1, 1) if self.hidden[name].channels_last else relevance
        try:
            return as_map(relevance, (self.value.shape[2], self.value.shape[3]))
        except ValueError as error:
            raise ValueError(f"deep_supervision: layer {name!r}: {error}") from error

    def _no_path(self, scalar: Tensor) -> RuntimeError:
        if not depends_on(scalar, self.flex.image):
            return RuntimeError(CUT_OFF)
        return RuntimeError(
            f"{NO_PATH} in the relevance pass, in which attention weights and all other softmaxes count as constants: "
            "pass logits, not probabilities; where a gate's softmax weighs answers that are detached, those of one "
            "expert (logits=...)"
        )


NO_PATH = "no gradient path from the model's output to the image"
CUT_OFF = (
    f"{NO_PATH}: a part of the model runs under torch.no_grad or on detached values; freeze weights with "
    "requires_grad_(False) instead, through which heatmaps pass"
)


def _has_channels_last(layer: nn.Module, output: Tensor, image: Tensor) -> bool:
    """Whether maps are (B, h, w, c): the layer's own linear layers or norms work on the last dimension."""
    features: set[int] = set()
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            features |= {module.in_features, module.out_features}
        elif isinstance(module, nn.LayerNorm):
            features.add(module.normalized_shape[-1])
    _, height, *sides, channels = output.shape
    pairs = zip(sides, image.shape[3:], strict=True)
    # as the image's, but for rounding
    same_shape = all(abs(height * side / image.shape[2] - side_here) < 1 for side_here, side in pairs)
    return channels in features and height not in features and same_shape


def _value_times_gradient(value: Tensor, gradient: Tensor) -> Tensor:
    """Value times gradient, at least in float32."""
    return working_precision(value) * working_precision(gradient)
