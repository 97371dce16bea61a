"""The Dual ISNet's two heatmaps, LRP-z+ and LRP-epsilon, from one forward pass of an unmodified model (S-IS, S-FI).

Relevance travels as a modified gradient G, the relevance of a value y being y G. Of a layer with weights W and bias b
(a linear layer or convolution, the batch norm right after it multiplied in):

- LRP-epsilon: s = y G / (z + sign(z) epsilon), z = W a + b, and its input a gets W's;
- LRP-z+: the same with the positive parts of W and b; the output layer starts from z itself;
- pooling and sums are layers with positive weights, and s goes to the winning pixel, or to every term (z+: every
  positive one);
- ReLUs pass relevance on, smooth activations pass f(x) / x, other normalisation and attention weights are constants.

Biases (and batch norm's shift) are constants in the relevance pass only, as in the original implementation: z does not
depend on them, the activations do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.lrp import normalization
from torch_bgdebias.lrp.arguments import bind, channel_constant, convolution_arguments, linear_arguments
from torch_bgdebias.lrp.carry import Route
from torch_bgdebias.lrp.convolution import Geometry, convolve
from torch_bgdebias.lrp.dual_nodes import EPSILON, ZPLUS, Kind, Layer, Pool, Sum
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.lrp.handlers import ADDITIONS, HANDLERS, MULTIPLICATIONS, Handler
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import depends_on, needs_graph, sources

__all__ = ["EPSILON", "ZPLUS", "DualPass"]


class _OpenLayer(NamedTuple):
    """A layer, in case a batch norm comes next; ``bias - excess`` is its bias as a constant."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    excess: Tensor | None
    geometry: Geometry | str | None


class DualPass(FlexPass):
    """One explained forward pass for the two heatmaps; choose one with ``relevance(ZPLUS)`` or ``relevance(EPSILON)``.

    Args:
        epsilon: stabiliser of both rules.
        image, remember, private: see `FlexPass`.
    """

    handlers: ClassVar[dict[Any, Handler]] = {}

    def __init__(
        self, epsilon: float = 1e-2, *, image: Tensor | None = None, remember: bool = False, private: bool = False
    ) -> None:
        super().__init__(0.0, image=image, remember=remember, private=private)
        self.stabilizer = epsilon
        #: the layers that have run, by the node that made what the model got
        self._layers: dict[Any, _OpenLayer] = {}

    @contextmanager
    def relevance(self, rule: str = "", logits: Tensor | None = None) -> Iterator[None]:
        """Backward passes inside the block are relevance passes; the layer that made the logits is the output layer."""
        origins = () if logits is None else sources(logits, reshaped=True)
        kinds = [node.kind for node in origins if isinstance(getattr(node, "kind", None), Kind)]
        for kind in kinds:
            kind.output = True
        try:
            with self.switch.on(rule):
                yield
        finally:
            for kind in kinds:
                kind.output = False

    def open_layer(self, x: Tensor) -> _OpenLayer | None:
        """The layer that made ``x``."""
        return next((self._layers[node] for node in sources(x) if node in self._layers), None)

    def remember_layer(self, output: Tensor, layer: _OpenLayer) -> Tensor:
        """``output``, which the model gets from a layer."""
        self._layers[output.grad_fn] = layer
        return output

    def layer(
        self,
        y: Tensor,
        a: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        excess: Tensor | None,
        geometry: Geometry | str | None,
        *,
        boxed: bool = False,
    ) -> Tensor:
        """Give the layer ``y`` = W a + b its rules."""
        kind = Kind(self.switch, self.stabilizer, geometry, y.ndim, boxed)
        a, weight = a.to(y.dtype), weight.to(y.dtype)  # batch norm's scale is float32 under autocast
        bias = None if bias is None else bias.to(y.dtype)
        excess = None if excess is None else excess.to(y.dtype)
        output: Tensor = Layer.apply(y, a, weight, bias, excess, kind)
        return output


def _gradient_carrier(bias: Tensor | None) -> Tensor | None:
    """Zeros with the bias's gradient: the bias less this is a constant."""
    return None if bias is None else bias - bias.detach()


def _convolution(dims: int) -> Handler:
    def handle(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
        (image,) = bind(args, kwargs, "input")
        if image.ndim != dims + 2 or not needs_graph(image):
            return func(*args, **kwargs)
        x, weight, bias, geometry = convolution_arguments(dims, args, kwargs)
        y = convolve(x, weight, bias, geometry, mode.skip(image, weight))
        return _layer(mode, y, x, weight, bias, geometry, mode.route_of(image))

    return handle


def _linear(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    (image,) = bind(args, kwargs, "input")
    if not needs_graph(image):
        return func(*args, **kwargs)
    x, weight, bias = linear_arguments(args, kwargs)
    y = convolve(x, weight, bias, None, mode.skip(image, weight))
    return _layer(mode, y, x, weight, bias, None, mode.route_of(image))


def _layer(
    mode: FlexPass,
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry | None,
    route: Route | None,
) -> Tensor:
    assert isinstance(mode, DualPass)
    excess = _gradient_carrier(bias)
    output = mode.layer(y, x, weight, bias, excess, geometry, boxed=route is not None)
    if route is not None:
        output = mode.box(InputLayer(x, output, weight, bias, geometry, excess=excess, route=route))
    return mode.remember_layer(output, _OpenLayer(x, weight, bias, excess, geometry))


def _batch_norm(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    assert isinstance(mode, DualPass)
    x, *parameters = bind(
        args, kwargs, "input", running_mean=None, running_var=None, weight=None, bias=None, training=False,
        momentum=0.1, eps=1e-5,
    )  # fmt: skip
    if not needs_graph(x):
        return func(*args, **kwargs)
    shift, training = parameters[3], parameters[4]
    y, scale, mean = normalization.batch_norm(mode.switch, x, *parameters, live_mean=True)
    scale, mean = scale.reshape(-1).to(y.dtype), mean.reshape(-1).to(y.dtype)
    open_layer = mode.open_layer(x)
    if open_layer is None:  # on its own: a scale per channel
        total = -mean * scale if shift is None else shift - mean * scale
        return mode.layer(y, x, scale, total, _gradient_carrier(shift), "diagonal")
    total = (-mean if open_layer.bias is None else open_layer.bias - mean) * scale
    total = total if shift is None else total + shift
    excess = _gradient_carrier(shift)
    if open_layer.excess is not None and not training:  # in training mode the bias goes with the mean
        scaled_excess = open_layer.excess * scale
        excess = scaled_excess if excess is None else excess + scaled_excess
    return _folded(mode, y, x, open_layer, scale, total, excess)


def _folded(
    mode: DualPass, y: Tensor, x: Tensor, before: _OpenLayer, scale: Tensor, total: Tensor | None, excess: Tensor | None
) -> Tensor:
    """``y``, the layer ``before`` times a scale per channel, with the bias ``total``, as one layer."""
    weight = before.weight * scale.view(-1, *(1,) * (before.weight.ndim - 1))
    boxed = mode.boxed_layer(x)
    output = mode.layer(y, before.x, weight, total, excess, before.geometry, boxed=boxed is not None)
    if boxed is not None:
        output = mode.box(InputLayer(boxed.x, output, weight, total, boxed.geometry, excess=excess, route=boxed.route))
    mode.merge(x, output, y)
    return mode.remember_layer(output, _OpenLayer(before.x, weight, total, excess, before.geometry))


def _frozen_norm(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    """Frozen batch norm, a product and then a sum with constants of the channels; they become one layer."""
    assert isinstance(mode, DualPass)
    constant = channel_constant(args, kwargs)
    if constant is None:
        return _sum(mode, func, args, kwargs) if func in ADDITIONS else func(*args, **kwargs)
    y = func(*args, **kwargs)
    x, values = constant[0], constant[1].to(y.dtype)
    open_layer = mode.open_layer(x)
    joins = open_layer is not None and open_layer.geometry is not None
    if func in MULTIPLICATIONS:
        if not joins:
            output = mode.layer(y, x, values, None, None, "diagonal")
            return mode.remember_layer(output, _OpenLayer(x, values, None, None, "diagonal"))
        assert open_layer is not None
        bias, excess = (None if part is None else part * values for part in (open_layer.bias, open_layer.excess))
        return _folded(mode, y, x, open_layer, values, bias, excess)
    if not joins:
        return y
    assert open_layer is not None
    bias = values if open_layer.bias is None else open_layer.bias + values
    return _folded(mode, y, x, open_layer, torch.ones_like(values), bias, open_layer.excess)


def _pooling(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    y = func(*args, **kwargs)
    if not isinstance(mode, DualPass) or not isinstance(y, Tensor) or not needs_graph(y):
        return y
    return Pool.apply(y, mode.switch, mode.stabilizer)


def _mean(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    """Averaging over pixels is pooling; other means are left alone."""
    (x,) = bind(args, kwargs, "input")
    return (_pooling if x.ndim in (4, 5) else _unchanged)(mode, func, args, kwargs)


def _unchanged(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _same_for_all_images(mode: FlexPass, term: Tensor) -> bool:
    """Whether a term (a position embedding) has nothing of the image in it. Such a term is told from an activation by
    its shape, save where the batch is one image or the term was expanded."""
    may_be = len(term) == 1 or term.stride(0) == 0 or term.is_leaf if term.ndim else True
    return may_be and not depends_on(term, mode.image)


def _sum(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    assert isinstance(mode, DualPass)
    x, y, alpha = bind(args, kwargs, "input", other=None, alpha=1)
    plain = not (isinstance(x, Tensor) and isinstance(y, Tensor)) or alpha != 1 or "out" in kwargs
    if plain or x.shape != y.shape or not (x.requires_grad and y.requires_grad and torch.is_grad_enabled()):
        return func(*args, **kwargs)
    if _same_for_all_images(mode, x) or _same_for_all_images(mode, y):
        return func(*args, **kwargs)
    if getattr(func, "__name__", "") not in ("add_", "__iadd__"):
        return Sum.apply(x, y, mode.switch, mode.stabilizer)
    return x.copy_(Sum.apply(x.clone(), y, mode.switch, mode.stabilizer))


DualPass.handlers = {
    **HANDLERS,
    torch.conv1d: _convolution(1),
    torch.conv2d: _convolution(2),
    torch.conv3d: _convolution(3),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    **dict.fromkeys((*MULTIPLICATIONS, *ADDITIONS), _frozen_norm),
    **dict.fromkeys((Tensor.add_, Tensor.__iadd__), _sum),
    **dict.fromkeys(
        (F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.max_pool2d,
         torch.max_pool1d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool1d,
         F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        _pooling,
    ),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
}  # fmt: skip
