"""Relevance through activations: a ReLU's gradient times a / (a + epsilon), smooth ones pass f(x) / x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from torch_bgdebias.lrp.switch import Choose, Switch, needs_graph

__all__ = ["RATIOS", "rectify", "smooth"]

Ratio: TypeAlias = Callable[..., Tensor]


class _Damp(Function):
    """g * a / (a + epsilon) for a >= 0, and its derivatives with respect to both, in few passes over memory.

    Nothing passes where a has reached a ceiling. The derivative to a is not made 0 there: the rectifier does that.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, a: Tensor, epsilon: float, ceiling: float | None) -> Tensor:
        share = a + epsilon
        torch.div(a, share, out=share)
        if ceiling is not None:
            _between(share, a, ceiling, out=share)
        ctx.save_for_backward(g, share)
        ctx.epsilon = epsilon
        return g * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        g, share = ctx.saved_tensors
        to_g = gg * share if ctx.needs_input_grad[0] else None
        to_a = None
        if ctx.needs_input_grad[1]:  # gg g (1 - share)^2 / epsilon
            to_a = gg * g
            to_a.addcmul_(to_a, share, value=-1).addcmul_(to_a, share, value=-1).div_(ctx.epsilon)
        return to_g, to_a, None, None


def _between(grad: Tensor, a: Tensor, ceiling: float, out: Tensor | None = None) -> Tensor:
    """``grad`` where 0 < a < ceiling, else 0, in one pass over memory."""
    operator = torch.ops.aten.hardtanh_backward
    result: Tensor = operator(grad, a, 0, ceiling) if out is None else operator(grad, a, 0, ceiling, grad_input=out)
    return result


class _Rectify(Function):
    """A rectifier. It saves what torch's own saves, so that the same later in-place operations are allowed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, switch: Switch, epsilon: float, ceiling: float | None, inplace: bool, keep: bool
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        if keep:
            ctx.save_for_backward(x)
        if ceiling is None:
            a = torch.relu_(x) if inplace else torch.relu(x)
        else:
            a = x.clamp_(0, ceiling) if inplace else x.clamp(0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        if not keep:
            ctx.save_for_backward(a)
        ctx.switch, ctx.epsilon, ctx.ceiling, ctx.keep = switch, epsilon, ceiling, keep
        return a

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        (a,) = ctx.saved_tensors
        if ctx.keep:
            a = torch.relu(a) if ctx.ceiling is None else F.hardtanh(a, 0, ctx.ceiling)
        if ctx.switch.active and ctx.epsilon > 0:
            grad = _Damp.apply(grad, a, ctx.epsilon, ctx.ceiling)  # a = 0 gives 0
        elif ctx.ceiling is None:
            grad = torch.ops.aten.threshold_backward(grad, a.detach(), 0)
        else:
            grad = _between(grad, a.detach(), ctx.ceiling)
        return grad, None, None, None, None, None


def rectify(
    x: Tensor,
    switch: Switch,
    epsilon: float,
    *,
    ceiling: float | None = None,
    inplace: bool = False,
    keep_input: bool = False,
) -> Tensor:
    """max(x, 0), or min(max(x, 0), ceiling), with the LRP rule: the gradient leaves it scaled by a / (a + epsilon).

    Args:
        x: any tensor.
        switch: of the pass.
        epsilon: stabiliser.
        ceiling: upper limit.
        inplace: overwrite ``x``.
        keep_input: save the input rather than the output, which may then be overwritten.
    """
    copied = inplace and keep_input
    source = x.clone() if copied else x
    output: Tensor = _Rectify.apply(source, switch, epsilon, ceiling, inplace and not keep_input, keep_input)
    return x.copy_(output) if copied else output


def smooth(y: Tensor, x: Tensor, switch: Switch, ratio: Ratio) -> Tensor:
    """``y`` = f(x), whose relevance pass multiplies by f(x) / x."""
    if not needs_graph(y):
        return y
    output: Tensor = Choose.apply(y, x, switch, lambda grad, x: grad * ratio(x))
    return output


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x.pow(3)))) / 2
    return 0.5 * (1 + torch.erf(x * 0.7071067811865476))


def _near_zero(x: Tensor, far: Ratio, series: Ratio) -> Tensor:
    """``far(x)`` where x is away from zero, its series elsewhere; neither branch sees the other's bad values."""
    bound = 1e-2 if x.dtype == torch.float64 else 0.1
    close = x.abs() < bound
    return torch.where(close, series(torch.where(close, x, 0)), far(torch.where(close, 1, x)))


def _expm1_ratio(x: Tensor) -> Tensor:
    def series(x: Tensor) -> Tensor:
        return 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))

    return _near_zero(x, lambda x: torch.expm1(x) / x, series)


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, rate: float = 1.0) -> Tensor:
    return torch.where(x > 0, scale, scale * alpha * rate * _expm1_ratio(torch.where(x > 0, 0, x) * rate))


def _tanh(x: Tensor) -> Tensor:
    def series(x: Tensor) -> Tensor:
        s = x * x
        return 1 - s / 3 * (1 - s * 2 / 5 * (1 - s * 17 / 42 * (1 - s * 62 / 153)))

    return _near_zero(x, lambda x: torch.tanh(x) / x, series)


#: f(x) / x by name of f, for functions with f(0) = 0; the limit f'(0) at zero
RATIOS: dict[str, Ratio] = {
    "gelu": _gelu,
    "silu": torch.sigmoid,
    "hardswish": F.hardsigmoid,
    "mish": lambda x: torch.tanh(F.softplus(x)),
    "elu": _elu,
    "selu": lambda x: _elu(x, alpha=1.6732632423543772, scale=1.0507009873554805),
    "celu": lambda x, alpha=1.0: _elu(x, alpha=alpha, rate=1 / alpha),
    "tanh": _tanh,
    "tanhshrink": lambda x: 1 - _tanh(x),
    "softsign": lambda x: 1 / (1 + x.abs()),
}
