"""Relevance through normalisation layers: the statistics count as constants there, so relevance meets a scale alone.

The statistics stay functions of the activations everywhere else: the derivative of the relevance includes its
dependence on them, as finite differences do.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from torch_bgdebias.lrp.switch import Choose, Switch, needs_graph
from torch_bgdebias.precision import working_precision

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


class _LiveInverse(Function):
    """1 / sqrt(var(x) + eps) from its known value, differentiable: d inverse / dx = -inverse^3 (x - mean) / n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: Tensor, mean: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)  # the relevance pass comes by with nothing
        ctx.save_for_backward(x, inverse, mean)
        return inverse.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        x, inverse, mean = ctx.saved_tensors
        count = x.numel() // inverse.numel()
        factor = (grad * inverse**3).div_(-count)
        if mean is None:
            return (x * factor).to(x.dtype), None, None
        return torch.addcmul(-(mean * factor), x, factor).to(x.dtype), None, None


class _Scale(Function):
    """g * scale with a scale per channel: the second backward forms its sum without keeping a product."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(g, scale)
        return g * scale.to(g.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g, scale = ctx.saved_tensors
        to_g = gg * scale.to(gg.dtype) if ctx.needs_input_grad[0] else None
        to_scale = (gg * g).sum_to_size(scale.shape).to(scale.dtype) if ctx.needs_input_grad[1] else None
        return to_g, to_scale


def _scaled(grad: Tensor, _: Tensor, scale: Tensor) -> Tensor:
    output: Tensor = _Scale.apply(grad, scale)
    return output


def _with_scale(y: Tensor, x: Tensor, switch: Switch, scale: Tensor) -> Tensor:
    output: Tensor = Choose.apply(y, x, switch, _scaled, scale)
    return output


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (x.ndim - 2))


def batch_norm(
    switch: Switch,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    live_mean: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm whose statistics are constants in the relevance pass.

    The arguments are those of ``torch.nn.functional.batch_norm``, and ``live_mean``: whether the mean that is returned
    has to be differentiable.

    Returns:
        The output, the scale (1, C, 1, ...), differentiable, and the mean (1, C, 1, ...): y = (x - mean) scale + b.
    """
    if training:
        if x.numel() == x.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
        mean = x.mean([0, *range(2, x.ndim)], keepdim=True) if live_mean else _per_channel(mean, x)
        inverse = _per_channel(inverse, x)
        if needs_graph(x):
            inverse = _LiveInverse.apply(x, inverse, mean)
    else:
        if running_mean is None or running_var is None:
            raise ValueError("batch norm: expected running statistics in evaluation mode")
        y = torch.batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps, False)
        mean = _per_channel(running_mean.detach().clone(), x)
        inverse = _per_channel((running_var.detach() + eps).rsqrt(), x)
    scale = inverse if weight is None else inverse * _per_channel(weight, x)
    if needs_graph(x):
        y = _with_scale(y, x, switch, scale)
    return y, scale, mean


def layer_norm(
    switch: Switch,
    x: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm whose statistics are constants in the relevance pass."""
    y, mean, inverse = torch.native_layer_norm(x, list(normalized_shape), weight, bias, eps)
    if not needs_graph(x):
        return y
    inverse = _LiveInverse.apply(x, inverse.detach(), mean.detach())
    return _with_scale(y, x, switch, inverse if weight is None else inverse * weight)


def group_norm(
    switch: Switch,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Group norm whose statistics are constants in the relevance pass."""
    y = torch.group_norm(x, num_groups, weight, bias, eps)
    if not needs_graph(x):
        return y
    grouped = x.reshape(x.shape[0], num_groups, -1)
    with torch.no_grad():
        wide = working_precision(grouped)
        var, mean = torch.var_mean(wide, 2, correction=0, keepdim=True)
    inverse = _LiveInverse.apply(grouped, (var + eps).rsqrt(), mean)
    per_channel = inverse.expand(-1, -1, x.shape[1] // num_groups).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    return _with_scale(y, x, switch, per_channel if weight is None else per_channel * _per_channel(weight, x))


def instance_norm(
    switch: Switch,
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Instance norm: group norm with a group per channel, or batch norm in evaluation mode."""
    if not use_input_stats:
        return batch_norm(switch, x, running_mean, running_var, weight, bias, False, momentum, eps)[0]
    if running_mean is not None:  # only for the update of the running statistics
        torch.instance_norm(x.detach(), None, None, running_mean, running_var, use_input_stats, momentum, eps, False)
    return group_norm(switch, x, x.shape[1], weight, bias, eps)


def rms_norm(
    switch: Switch, x: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """RMS norm whose root mean square is a constant in the relevance pass."""
    y = torch.rms_norm(x, list(normalized_shape), weight, eps)
    if not needs_graph(x):
        return y
    dims = tuple(range(-len(normalized_shape), 0))
    with torch.no_grad():
        wide = working_precision(x)
        small = torch.finfo(wide.dtype).eps if eps is None else eps
        inverse = (wide.square().mean(dims, keepdim=True) + small).rsqrt()
    inverse = _LiveInverse.apply(x, inverse, None)
    return _with_scale(y, x, switch, inverse if weight is None else inverse * weight)


def local_response_norm(
    switch: Switch, x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Local response norm whose denominators are constants in the relevance pass."""
    before, after = size // 2, (size - 1) // 2  # neighbouring channels; those that are not there count as zeros
    squares = F.pad(x.square().movedim(1, -1), (before, after)).unfold(-1, size, 1).mean(-1).movedim(-1, 1)
    scale = (k + alpha * squares) ** -beta
    return _with_scale(x * scale, x, switch, scale) if needs_graph(x) else x * scale
