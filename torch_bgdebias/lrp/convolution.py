"""Convolutions that are cheap to differentiate twice.

The values and derivatives are torch's own. Its formula for the second derivative convolves with kernels as large as
the feature map, and group by group; here the two gradients of the gradient to the input are one forward convolution
and one gradient to the weight, which is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["Geometry", "convolve", "input_gradient"]

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


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    out: Tensor = _aten.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)
    return out


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = geometry
    sizes = [weight.shape[0]]
    none = [0] * len(stride)
    grads: tuple[Tensor | None, Tensor | None, Tensor | None] = _aten.convolution_backward(
        grad, x, weight, sizes, stride, padding, dilation, False, none, groups, list(mask)
    )
    return grads


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _forward(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need = ctx.needs_input_grad
        if not torch.is_grad_enabled():
            return *_backward(grad, x, weight, ctx.geometry, (need[0], need[1], need[2])), None
        to_x = _InputGradient.apply(grad, weight, x.detach(), ctx.geometry) if need[0] else None
        to_weight = _WeightGradient.apply(grad, x, weight.detach(), ctx.geometry) if need[1] else None
        to_bias = grad.sum([0, *range(2, grad.ndim)]) if need[2] else None
        return to_x, to_weight, to_bias, None


class _InputGradient(Function):
    """The gradient to the input: linear in the incoming gradient and in the weight."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
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
    def forward(ctx: Any, grad: Tensor, x: Tensor, like: Tensor, geometry: Geometry) -> Tensor | None:
        ctx.save_for_backward(grad, x)
        ctx.geometry = geometry
        return _backward(grad, x, like, geometry, (False, True, False))[1]

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad, x = ctx.saved_tensors
        to_grad = convolve(x, gg, None, ctx.geometry) if ctx.needs_input_grad[0] else None
        to_x = _InputGradient.apply(grad, gg, x.detach(), ctx.geometry) if ctx.needs_input_grad[1] else None
        return to_grad, to_x, None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``torch.conv1d`` to ``conv3d`` on a batch, differentiable as often as you like."""
    out: Tensor = _Convolve.apply(x, weight, bias, geometry)
    return out


def input_gradient(grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    """The transposed convolution: the gradient to an input of the shape of ``like``; differentiable."""
    out: Tensor = _InputGradient.apply(grad, weight, like.detach(), geometry)
    return out
