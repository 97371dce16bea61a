"""The state of one explained forward pass: its rules, its switch, and the layers seen so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from torch_bgdebias.lrp.carry import STEPS, Route, Step, start
from torch_bgdebias.lrp.convolution import Skip
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import Switch, depends_on, is_copy, outputs, sources

__all__ = ["PassState"]


class PassState:
    """The state of a pass, for the functions that give torch's functions their rules.

    Args:
        epsilon: of the ReLU rule, >= 0.
        batch_norm: "linear": a training batch's statistics are constants in the relevance pass; "exact": not.
        image: what enters the model, with a history (not a leaf), if known.
        remember: keep the linear and convolution layers that take the image in ``input_layers`` (z^B rule).
        private: the ordinary gradient of the image is not used.
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
        self.remember = remember
        #: how tensors were made of the image, by the autograd node that made them and their number among its outputs
        self._routes: dict[tuple[Any, int], Route] = {}
        if remember and image is not None and image.grad_fn is not None:
            self._routes[image.grad_fn, image.output_nr] = start
        self.private = private
        self.input_layers: list[InputLayer] = []
        self._merged: dict[Any, list[tuple[GradientEdge, Tensor]]] = {}
        #: how many explanations will be made of this pass
        self.users = 1

    def agrees_with(self, other: PassState) -> bool:
        """Whether the rules of both are the same, so that one pass serves for both."""
        own_rules, other_rules = (
            (type(p), p.epsilon, p.stabilizer, p.batch_norm, p.plain, p.remember, p.image if p.remember else None)
            for p in (self, other)
        )
        return all(
            a is b or (not isinstance(a, Tensor) and a == b) for a, b in zip(own_rules, other_rules, strict=True)
        )

    def skip(self, x: Tensor, weight: Tensor, *, boxed: bool = False) -> Skip:
        """What a convolution of ``x`` need not compute."""
        fixed = weight.grad_fn is None or not depends_on(weight, self.image)
        return Skip(self.switch, weight=fixed, image=self.private and x is self.image, boxed=boxed)

    def route_of(self, x: Tensor) -> Route | None:
        """How ``x`` was made of the image, if it was, for a layer that is to be remembered."""
        if not self._routes or x.grad_fn is None:
            return None
        return next((self._routes[node] for node in outputs(x, reshaped=True) if node in self._routes), None)

    def carried(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any] | None:
        """Run a function that the image's box passes through, if it is one on something made of the image.

        Returns:
            What it returned, in a tuple; ``None`` if it has not run.
        """
        routes_through = STEPS.get(func) if self._routes else None
        if routes_through is None:
            return None
        operands = [args[0] if args else kwargs.get("input", kwargs.get("tensors")), *args[1:2], kwargs.get("other")]
        candidates = operands[0] if isinstance(operands[0], (tuple, list)) else operands
        with_routes = ((x, self.route_of(x)) for x in candidates if isinstance(x, Tensor))
        x, route = next(((x, route) for x, route in with_routes if route is not None), (None, None))
        if x is None or route is None:
            return None
        y = func(*args, **kwargs)
        results = list(y) if isinstance(y, (tuple, list)) else [y]
        step = Step(func, args, kwargs, y, x, route, self.image, self.route_of)
        routes = routes_through(step)
        step.forget()
        for result, further in zip(results, routes if isinstance(routes, list) else [routes], strict=True):
            if further is not None and isinstance(result, Tensor) and result.grad_fn is not None:
                self._routes[result.grad_fn, result.output_nr] = further
        return (y,)

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

    def merge(self, x: Tensor, output: Tensor, value: Tensor) -> None:
        """Relevance passes ``x`` by on its way from ``output``, with this value, to the layer that made ``x``."""
        for node in sources(x):
            self._merged.setdefault(node, []).append((get_gradient_edge(output), value))

    def places(self, edge: GradientEdge, value: Tensor) -> list[tuple[GradientEdge, Tensor]]:
        """Where a layer's output has its relevance: there, and behind operations that are merged with the layer."""
        behind = [
            edge_behind for following in self._merged.get(edge.node, ()) for edge_behind in self.places(*following)
        ]
        return [(edge, value), *behind]
