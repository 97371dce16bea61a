"""Parses the arguments of torch functions for their handlers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias.lrp.convolution import Geometry
from torch_bgdebias.lrp.switch import needs_graph
from torch_bgdebias.precision import autocast_dtype

__all__ = ["bind", "channel_constant", "convolution_arguments", "linear_arguments"]


def bind(args: tuple[Any, ...], kwargs: dict[str, Any], first: str, **defaults: Any) -> list[Any]:
    """The arguments by position or name; methods call their first argument ``self``."""
    names = (first, *defaults)
    values = {**defaults, **dict(zip(names, args, strict=False)), **{k: v for k, v in kwargs.items() if k in names}}
    return [values[name] for name in names]


def convolution_arguments(
    dims: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None, Geometry]:
    """Input, weight, bias and geometry of a call of ``torch.conv*``; named padding written out, autocast applied."""
    x, weight, bias, stride, padding, dilation, groups = bind(
        args, kwargs, "input", weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    if padding == "valid":
        padding = 0
    geometry = Geometry.of(dims, stride, 0 if padding == "same" else padding, dilation, groups)
    low = autocast_dtype(x)
    if low is not None:
        x, weight = x.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(geometry.dilation, weight.shape[2:], strict=True)]
        geometry = geometry._replace(padding=[t // 2 for t in total])
        if any(t % 2 for t in total):  # the extra pixel comes last
            x = F.pad(x, [p for t in reversed(total) for p in (0, t % 2)])
    return x, weight, bias, geometry


def linear_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias of a call of ``linear``; autocast applied."""
    x, weight, bias = bind(args, kwargs, "input", weight=None, bias=None)
    low = autocast_dtype(x)
    if low is not None:
        x, weight = x.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    return x, weight, bias


def channel_constant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The map (B, C, H, W) and the values (C,) of a product or sum of the two, if it is one.

    The values are a tensor (1, C, 1, 1) that nothing is differentiated by: frozen batch norm's buffers, and neither the
    gate of a squeeze-excitation block nor a parameter, whose meaning does not change when it is frozen (layer scale).
    """
    x, operand, alpha = bind(args, kwargs, "input", other=None, alpha=1)
    if not (isinstance(x, Tensor) and isinstance(operand, Tensor)) or alpha != 1 or "out" in kwargs:
        return None
    if not x.requires_grad:
        x, operand = operand, x
    if x.ndim != 4 or operand.shape != (1, x.shape[1], 1, 1) or operand.requires_grad or not needs_graph(x):
        return None
    if isinstance(operand, nn.Parameter) or isinstance(operand._base, nn.Parameter):
        return None
    return x, operand.reshape(-1)
