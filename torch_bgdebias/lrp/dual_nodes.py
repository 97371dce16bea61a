"""The nodes of the dual variant: layers, pooling and sums, with what they do in a relevance pass (see ``dual``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from torch_bgdebias.lrp.convolution import Geometry, convolve, input_gradient
from torch_bgdebias.lrp.switch import Switch

__all__ = ["EPSILON", "ZPLUS", "Kind", "Layer", "Pool", "Sum"]

ZPLUS = "z+"
EPSILON = "epsilon"


class Kind:
    """What a layer's node has to know besides tensors.

    Attributes:
        geometry: of a convolution; ``None`` for a linear layer, "diagonal" for a scale per channel.
        output: whether the layer's output is the model's.
        boxed: relevance ends at the layer's output, since its input, the image, gets z^B.
    """

    __slots__ = ("boxed", "dims", "epsilon", "geometry", "output", "switch")

    def __init__(self, switch: Switch, epsilon: float, geometry: Geometry | str | None, dims: int, boxed: bool) -> None:
        self.switch, self.epsilon, self.geometry, self.dims = switch, epsilon, geometry, dims
        self.output, self.boxed = False, boxed

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W a + b."""
        if isinstance(self.geometry, Geometry):
            return convolve(a, weight, bias, self.geometry)
        if self.geometry is None:
            return F.linear(a, weight, bias)
        output = a * self.per_channel(weight)
        return output if bias is None else output + self.per_channel(bias)

    def transposed(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """What the layer sends back: W applied transposed, shaped like ``like``."""
        if isinstance(self.geometry, Geometry):
            return input_gradient(s, weight, like, self.geometry)
        return s @ weight if self.geometry is None else s * self.per_channel(weight)

    def per_channel(self, values: Tensor) -> Tensor:
        """Values of the channels, to go with the layer's output."""
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


class Layer(Function):
    """A layer's output as a copy, which the model may change in place; relevance goes to the layer's input."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, a: Tensor, weight: Tensor, bias: Tensor | None, excess: Tensor | None, kind: Kind
    ) -> Tensor:
        """A copy of ``y``."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y, a, weight, bias, excess)
        ctx.kind = kind
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """To ``y``, or in the relevance pass to ``a``."""
        if grad is None:
            return (None,) * 6
        if not ctx.kind.switch.active:
            return (grad, *(None,) * 5)
        if ctx.kind.boxed:
            return (None,) * 6
        return None, ctx.kind.rule(grad, *ctx.saved_tensors), None, None, None, None


class Pool(Function):
    """A pooled value with the rule of a layer without parameters: G y / (y + sign(y) epsilon)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, switch: Switch, epsilon: float) -> Tensor:
        """A copy of ``y``."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y)
        ctx.switch, ctx.epsilon = switch, epsilon
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        """The gradient, or in the relevance pass what the rule makes of it."""
        if grad is not None and ctx.switch.active:
            (y,) = ctx.saved_tensors
            grad = grad * y / _stabilized(y, ctx.epsilon)
        return grad, None, None


class Sum(Function):
    """x + y with relevance shared in proportion to the terms; z+: to the positive ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, switch: Switch, epsilon: float) -> Tensor:
        """x + y."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)
        ctx.switch, ctx.epsilon = switch, epsilon
        return x + y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The gradient to both, or in the relevance pass each one's share."""
        if grad is None or not ctx.switch.active:
            return grad, grad, None, None
        x, y = ctx.saved_tensors
        relevance = grad * (x + y)
        if ctx.switch.rule == EPSILON:
            share = relevance / _stabilized(x + y, ctx.epsilon)
            return share, share, None, None
        share = relevance / (x.relu() + y.relu() + ctx.epsilon)
        return share * (x > 0), share * (y > 0), None, None
