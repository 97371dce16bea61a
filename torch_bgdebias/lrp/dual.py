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

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from torch_bgdebias.lrp import normalization
from torch_bgdebias.lrp.arguments import bind, channel_constant, convolution_arguments, linear_arguments
from torch_bgdebias.lrp.convolution import Geometry, convolve, input_gradient
from torch_bgdebias.lrp.engine import ADDITIONS, MULTIPLICATIONS, FlexPass, Handler, takes_image
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import Switch, depends_on, needs_graph

__all__ = ["EPSILON", "ZPLUS", "DualPass"]

ZPLUS = "z+"
EPSILON = "epsilon"


class _Kind:
    """What a layer's node has to know besides tensors.

    Attributes:
        geometry: of a convolution; ``None`` for a linear layer, "diagonal" for a scale per channel.
        output: whether the layer's output is the model's.
    """

    __slots__ = ("dims", "epsilon", "geometry", "output", "switch")

    def __init__(self, switch: Switch, epsilon: float, geometry: Geometry | str | None, dims: int) -> None:
        self.switch, self.epsilon, self.geometry, self.dims = switch, epsilon, geometry, dims
        self.output = False

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.geometry, Geometry):
            return convolve(a, weight, bias, self.geometry)
        if self.geometry is None:
            return F.linear(a, weight, bias)
        out = a * self.per_channel(weight)
        return out if bias is None else out + self.per_channel(bias)

    def transposed(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        if isinstance(self.geometry, Geometry):
            return input_gradient(s, weight, like, self.geometry)
        return s @ weight if self.geometry is None else s * self.per_channel(weight)

    def per_channel(self, values: Tensor) -> Tensor:
        return values if self.geometry is None else values.reshape(1, -1, *(1,) * (self.dims - 2))

    def rule(
        self, grad: Tensor, y: Tensor, a: Tensor, weight: Tensor, bias: Tensor | None, excess: Tensor | None
    ) -> Tensor:
        """Relevance (as gradient) of the layer's input; ``bias - excess`` is the bias as a constant."""
        if self.switch.rule == EPSILON:
            z = y if excess is None else y - self.per_channel(excess)
        else:
            weight = weight.clamp(min=0)
            if bias is not None:
                bias = (bias if excess is None else bias - excess).clamp(min=0)
            z = self.apply(a, weight, bias)
        if self.output:
            y = z
        return self.transposed(y * grad / _stabilized(z, self.epsilon), weight, a)


def _stabilized(z: Tensor, epsilon: float) -> Tensor:
    return torch.where(z >= 0, z + epsilon, z - epsilon)


class _Layer(Function):
    """A layer's output as a copy, which the model may change in place; relevance goes to the layer's input."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        a: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        excess: Tensor | None,
        kind: _Kind,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y, a, weight, bias, excess)
        ctx.kind = kind
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        if not ctx.kind.switch.active:
            return (grad, *(None,) * 5)
        return None, ctx.kind.rule(grad, *ctx.saved_tensors), None, None, None, None


class _Pool(Function):
    """A pooled value with the rule of a layer without parameters: G y / (y + sign(y) epsilon)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, switch: Switch, epsilon: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y)
        ctx.switch, ctx.epsilon = switch, epsilon
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        if grad is not None and ctx.switch.active:
            (y,) = ctx.saved_tensors
            grad = grad * y / _stabilized(y, ctx.epsilon)
        return grad, None, None


class _Sum(Function):
    """x + y with relevance shared in proportion to the terms; z+: to the positive ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, switch: Switch, epsilon: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)
        ctx.switch, ctx.epsilon = switch, epsilon
        return x + y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad is None or not ctx.switch.active:
            return grad, grad, None, None
        x, y = ctx.saved_tensors
        relevance = grad * (x + y)
        if ctx.switch.rule == EPSILON:
            share = relevance / _stabilized(x + y, ctx.epsilon)
            return share, share, None, None
        share = relevance / (x.relu() + y.relu() + ctx.epsilon)
        return share * (x > 0), share * (y > 0), None, None


class _Open(NamedTuple):
    """The layer that ran last, in case a batch norm comes next; ``bias - excess`` is its bias as a constant."""

    out: Tensor
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    excess: Tensor | None
    geometry: Geometry | str | None


class DualPass(FlexPass):
    """One explained forward pass for the two heatmaps; choose one with ``relevance(ZPLUS)`` or ``relevance(EPSILON)``.

    Args:
        epsilon: stabiliser of both rules.
        image, remember, private: see :class:`FlexPass`.
    """

    handlers: ClassVar[dict[Any, Handler]] = {}

    def __init__(
        self,
        epsilon: float = 1e-2,
        *,
        image: Tensor | None = None,
        remember: bool = False,
        private: bool = False,
    ) -> None:
        super().__init__(0.0, image=image, remember=remember, private=private)
        self.stabilizer = epsilon
        self._last: tuple[Tensor, _Kind] | None = None
        self.previous: _Open | None = None
        self.excess: Tensor | None = None

    def finish(self, logits: Tensor) -> None:
        """The forward pass is over: a layer that made ``logits`` is the output layer."""
        if self._last is not None:
            y, kind = self._last
            kind.output = logits is y or logits._base is y
        self._last = self.previous = None

    def layer(
        self,
        y: Tensor,
        a: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        excess: Tensor | None,
        geometry: Geometry | str | None,
    ) -> Tensor:
        """Give the layer ``y`` = W a + b its rules."""
        kind = _Kind(self.switch, self.stabilizer, geometry, y.ndim)
        a, weight = a.to(y.dtype), weight.to(y.dtype)  # batch norm's scale is float32 under autocast
        bias = None if bias is None else bias.to(y.dtype)
        excess = None if excess is None else excess.to(y.dtype)
        out: Tensor = _Layer.apply(y, a, weight, bias, excess, kind)
        self._last = out, kind
        return out


def _constant(bias: Tensor | None) -> Tensor | None:
    """Zeros with the bias's gradient: the bias less this is a constant."""
    return None if bias is None else bias - bias.detach()


def _convolution(dims: int) -> Handler:
    def handle(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
        (image,) = bind(args, kwargs, "input")
        if image.ndim != dims + 2 or not needs_graph(image):
            return func(*args, **kwargs)
        x, weight, bias, geometry = convolution_arguments(dims, args, kwargs)
        y = convolve(x, weight, bias, geometry, mode.skip(image, weight))
        return _layer(mode, y, x, weight, bias, geometry, takes_image(mode, image))

    return handle


def _linear(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    (image,) = bind(args, kwargs, "input")
    if not needs_graph(image):
        return func(*args, **kwargs)
    x, weight, bias = linear_arguments(args, kwargs)
    y = convolve(x, weight, bias, None, mode.skip(image, weight))
    return _layer(mode, y, x, weight, bias, None, takes_image(mode, image))


def _layer(
    mode: FlexPass, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None, first: bool
) -> Tensor:
    assert isinstance(mode, DualPass)
    excess = _constant(bias)
    out = mode.layer(y, x, weight, bias, excess, geometry)
    if first:
        mode.input_layer = InputLayer(x, out, weight, bias, geometry)
        mode.excess = excess
        out = mode.input_layer.passed
    mode.previous = _Open(out, x, weight, bias, excess, geometry)
    return out


def _batch_norm(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    assert isinstance(mode, DualPass)
    x, *rest = bind(
        args, kwargs, "input", running_mean=None, running_var=None, weight=None, bias=None, training=False,
        momentum=0.1, eps=1e-5,
    )  # fmt: skip
    if not needs_graph(x):
        return func(*args, **kwargs)
    shift, training = rest[3], rest[4]
    y, scale, mean = normalization.batch_norm(mode.switch, x, *rest, live_mean=True)
    scale, mean = scale.reshape(-1).to(y.dtype), mean.reshape(-1).to(y.dtype)
    before = mode.previous
    if before is None or before.out is not x:  # on its own: a scale per channel
        total = -mean * scale if shift is None else shift - mean * scale
        return mode.layer(y, x, scale, total, _constant(shift), "diagonal")
    total = (-mean if before.bias is None else before.bias - mean) * scale
    total = total if shift is None else total + shift
    excess = _constant(shift)
    if before.excess is not None and not training:  # in training mode the bias goes with the mean
        part = before.excess * scale
        excess = part if excess is None else excess + part
    return _fold(mode, y, x, before, scale, total, excess)


def _fold(
    mode: DualPass, y: Tensor, x: Tensor, before: _Open, scale: Tensor, total: Tensor | None, excess: Tensor | None
) -> Tensor:
    """``y``, the layer ``before`` times a scale per channel, with the bias ``total``, as one layer."""
    weight = before.weight * scale.view(-1, *(1,) * (before.weight.ndim - 1))
    out = mode.layer(y, before.x, weight, total, excess, before.geometry)
    first = mode.input_layer
    if first is not None and first.passed is x:
        first.weight, first.bias, first.output, first.passed = weight, total, out, out.clone()
        mode.excess = excess
        out = first.passed
    mode.previous = _Open(out, before.x, weight, total, excess, before.geometry)
    return out


def _frozen_norm(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    """Frozen batch norm, a product and then a sum with constants of the channels; they become one layer."""
    assert isinstance(mode, DualPass)
    found = channel_constant(args, kwargs)
    if found is None:
        return _sum(mode, func, args, kwargs) if func in ADDITIONS else func(*args, **kwargs)
    y = func(*args, **kwargs)
    x, values = found[0], found[1].to(y.dtype)
    before = mode.previous
    joins = before is not None and before.out is x and before.geometry is not None
    if func in MULTIPLICATIONS:
        if not joins:
            out = mode.layer(y, x, values, None, None, "diagonal")
            mode.previous = _Open(out, x, values, None, None, "diagonal")
            return out
        assert before is not None
        bias, excess = (None if part is None else part * values for part in (before.bias, before.excess))
        return _fold(mode, y, x, before, values, bias, excess)
    if not joins:
        return y
    assert before is not None
    bias = values if before.bias is None else before.bias + values
    return _fold(mode, y, x, before, torch.ones_like(values), bias, before.excess)


def _pooling(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    y = func(*args, **kwargs)
    if not isinstance(mode, DualPass) or not isinstance(y, Tensor) or not needs_graph(y):
        return y
    return _Pool.apply(y, mode.switch, mode.stabilizer)


def _mean(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
    """Averaging over pixels is pooling; other means are left alone."""
    (x,) = bind(args, kwargs, "input")
    return (_pooling if x.ndim == 4 else _as_it_is)(mode, func, args, kwargs)


def _as_it_is(mode: FlexPass, func: Any, args: Any, kwargs: Any) -> Any:
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
        return _Sum.apply(x, y, mode.switch, mode.stabilizer)
    return x.copy_(_Sum.apply(x.clone(), y, mode.switch, mode.stabilizer))


DualPass.handlers = {
    **FlexPass.handlers,
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
         F.adaptive_max_pool2d),
        _pooling,
    ),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
}  # fmt: skip
