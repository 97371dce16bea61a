"""Convolutions and linear layers that are cheap to differentiate twice.

The values and derivatives are torch's own. Its formula for the second derivative convolves with kernels as large as
the feature map, and group by group; here the two gradients of the gradient to the input are one forward convolution
and one gradient to the weight, which is what they are. Linear layers (a geometry of ``None``) come along
because the two gradients of a weight are then added in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from torch_bgdebias.lrp.switch import Switch

__all__ = ["Geometry", "Skip", "convolve", "input_gradient"]

_aten = torch.ops.aten


class Geometry(NamedTuple):
    """How a convolution walks over its input."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(
        cls,
        dims: int,
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
    ) -> Geometry:
        """From the arguments of ``torch.conv*``, which may be single numbers."""
        return cls(_tuple(stride, dims), _tuple(padding, dims), _tuple(dilation, dims), groups)


def _tuple(value: int | Sequence[int], dims: int) -> list[int]:
    if isinstance(value, int):
        return [value] * dims
    values = [int(v) for v in value]
    return values * dims if len(values) == 1 else values


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None) -> Tensor:
    if geometry is None:
        return F.linear(x, weight, bias).detach()  # it may be a view, which could not be changed in place afterwards
    stride, padding, dilation, groups = geometry
    output: Tensor = _aten.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)
    return output


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry | None, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if geometry is None:
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ weight if mask[0] else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if mask[1] else None,
            rows.sum(0) if mask[2] else None,
        )
    stride, padding, dilation, groups = geometry
    sizes = [weight.shape[0]]
    none = [0] * len(stride)
    grads: tuple[Tensor | None, Tensor | None, Tensor | None] = _aten.convolution_backward(
        grad, x, weight, sizes, stride, padding, dilation, False, none, groups, list(mask)
    )
    return grads


class Skip:
    """Which gradients of a convolution are not needed and need not be computed.

    Args:
        switch: says which backward pass is running.
        weight: the weight does not depend on the image: the relevance pass passes it by.
        image: the input is the image, of which only the relevance pass wants the gradient.
        boxed: the relevance pass ends here, since the layer's input gets its relevance by the z^B rule.
    """

    __slots__ = ("boxed", "image", "switch", "weight")

    def __init__(self, switch: Switch, *, weight: bool, image: bool, boxed: bool = False) -> None:
        self.switch, self.weight, self.image, self.boxed = switch, weight, image, boxed


class _Convolve(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None, skip: Skip | None
    ) -> Tensor:
        ctx.set_materialize_grads(False)  # where nothing comes, nothing is to be computed
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.skip = geometry, skip
        return _forward(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        if ctx.skip is not None and ctx.skip.switch.active:  # the relevance pass
            to_x = to_x and not ctx.skip.boxed
            if ctx.skip.weight:
                to_weight = to_bias = False
        elif ctx.skip is not None and ctx.skip.image:
            to_x = False
        if not torch.is_grad_enabled():
            return *_backward(grad, x, weight, ctx.geometry, (to_x, to_weight, to_bias)), None, None
        return (
            _InputGradient.apply(grad, weight, x.detach(), ctx.geometry) if to_x else None,
            _WeightGradient.apply(grad, x, weight.detach(), ctx.geometry) if to_weight else None,
            _bias_gradient(grad, ctx.geometry) if to_bias else None,
            None,
            None,
        )


def _bias_gradient(grad: Tensor, geometry: Geometry | None) -> Tensor:
    axes = [0, *range(2, grad.ndim)] if geometry is not None else list(range(grad.ndim - 1))
    return grad.sum(axes) if axes else grad


def _folded(grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    """The gradient to an input of few channels, an image: a matrix product, two to three times as fast on the CPU."""
    kernels = weight.reshape(len(weight), -1).t()
    columns = torch.bmm(kernels.expand(len(grad), -1, -1), grad.flatten(2))
    stride, padding, dilation = (tuple(v) for v in geometry[:3])
    return F.fold(columns, like.shape[2:], weight.shape[2:], dilation, padding, stride)


class _InputGradient(Function):
    """The gradient to the input: linear in the incoming gradient and in the weight."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry | None) -> Tensor | None:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        few_channels = like.device.type == "cpu" and like.ndim == 4 and like.shape[1] <= 8
        if few_channels and geometry is not None and geometry.groups == 1:
            return _folded(grad, weight, like, geometry)
        return _backward(grad, like, weight, geometry, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad, weight = ctx.saved_tensors
        to_grad = convolve(gg, weight, None, ctx.geometry) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = _WeightGradient.apply(grad, gg, weight.detach(), ctx.geometry)
        return to_grad, to_weight, None, None


class _WeightGradient(Function):
    """The gradient to the weight: linear in the incoming gradient and in the input."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, like: Tensor, geometry: Geometry | None) -> Tensor | None:
        ctx.save_for_backward(grad, x)
        ctx.geometry = geometry
        return _backward(grad, x, like, geometry, (False, True, False))[1]

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad, x = ctx.saved_tensors
        to_grad = convolve(x, gg, None, ctx.geometry) if ctx.needs_input_grad[0] else None
        to_x = _InputGradient.apply(grad, gg, x.detach(), ctx.geometry) if ctx.needs_input_grad[1] else None
        return to_grad, to_x, None, None


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None, skip: Skip | None = None
) -> Tensor:
    """``torch.conv1d`` to ``conv3d`` on a batch, or ``linear``, differentiable as often as you like."""
    output: Tensor = _Convolve.apply(x, weight, bias, geometry, skip)
    return output


def input_gradient(grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry | None) -> Tensor:
    """The transposed convolution: the gradient to an input of the shape of ``like``; differentiable."""
    output: Tensor = _InputGradient.apply(grad, weight, like.detach(), geometry)
    return output
