"""What one explained forward pass knows: its rules, its switch, and the layers that it has met."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from torch_bgdebias.lrp.convolution import Skip
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import Switch, depends_on, is_copy, sources

__all__ = ["PassState"]


class PassState:
    """The state of a pass, for the functions that give torch's functions their rules.

    Args:
        epsilon: of the ReLU rule, >= 0.
        batch_norm: "linear": a training batch's statistics are constants in the relevance pass; "exact": not.
        image: what enters the model, with a history (not a leaf), if known.
        remember: keep the linear and convolution layers that take the image in ``input_layers`` (z^B rule).
        private: nobody wants the ordinary gradient of the image.
        plain: no rules at all: the relevance pass is the plain gradient (but attention stays differentiable twice).
    """

    def __init__(
        self,
        epsilon: float = 1e-2,
        *,
        batch_norm: str = "linear",
        image: Tensor | None = None,
        remember: bool = False,
        private: bool = False,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.switch = Switch()
        self.epsilon = epsilon
        #: of the z^B rule, and in subclasses of theirs
        self.stabilizer = epsilon
        self.batch_norm = batch_norm
        self.plain = plain
        self.image = image
        self._image_node = None if image is None else image.grad_fn
        self.remember = remember
        self.private = private
        self.input_layers: list[InputLayer] = []
        self._merged: dict[Any, list[tuple[GradientEdge, Tensor]]] = {}
        #: how many explanations will be made of this pass
        self.users = 1

    def agrees_with(self, other: PassState) -> bool:
        """Whether the rules of both are the same, so that one pass serves for both."""
        mine, its = (
            (type(p), p.epsilon, p.stabilizer, p.batch_norm, p.plain, p.remember, p.image if p.remember else None)
            for p in (self, other)
        )
        return all(a is b or (not isinstance(a, Tensor) and a == b) for a, b in zip(mine, its, strict=True))

    def skip(self, x: Tensor, weight: Tensor, *, boxed: bool = False) -> Skip:
        """What a convolution of ``x`` need not compute."""
        fixed = weight.grad_fn is None or not depends_on(weight, self.image)
        return Skip(self.switch, weight=fixed, image=self.private and x is self.image, boxed=boxed)

    def takes_image(self, x: Tensor) -> bool:
        """Whether ``x`` is the image, a copy or another shape of it, entering a layer that is to be remembered."""
        return self.remember and any(node is self._image_node for node in sources(x, reshaped=True))

    def layers_on_the_image(self) -> list[InputLayer]:
        """The layers whose relevance follows the z^B rule; none if that was not asked for.

        Raises:
            RuntimeError: it was, and no layer takes the image.
        """
        if self.remember and not self.input_layers:
            raise RuntimeError("input_rule 'zbox': no linear or convolution layer of the model takes the image itself")
        return self.input_layers

    def boxed_layer(self, x: Tensor) -> InputLayer | None:
        """The layer on the image whose output ``x`` is."""
        return next((layer for layer in self.input_layers if is_copy(x, layer.node)), None)

    def box(self, layer: InputLayer, before: Tensor | None = None) -> Tensor:
        """Remember a layer on the image, or one with the operation after it; returns what the model is to get.

        Args:
            layer: the layer.
            before: what entered the operation, if it is one.
        """
        self.input_layers.append(layer)
        if before is not None:
            self.merge(before, layer.passed, layer.value)
        return layer.passed

    def merge(self, x: Tensor, out: Tensor, value: Tensor) -> None:
        """Relevance passes ``x`` by on its way from ``out``, with this value, to the layer that made ``x``."""
        for node in sources(x):
            self._merged.setdefault(node, []).append((get_gradient_edge(out), value))

    def places(self, edge: GradientEdge, value: Tensor) -> list[tuple[GradientEdge, Tensor]]:
        """Where a layer's output has its relevance: there, and behind operations that are merged with the layer."""
        behind = [place for following in self._merged.get(edge.node, ()) for place in self.places(*following)]
        return [(edge, value), *behind]
