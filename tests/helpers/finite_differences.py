"""Gradients by autograd against central differences of the function itself, along random directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Derivative(NamedTuple):
    """A parameter's derivative along a direction, by autograd and by the best of several central differences."""

    name: str
    exact: float
    numeric: float


def derivatives(
    function: Callable[[], Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    grads: Mapping[str, Tensor | None],
    *,
    steps: Sequence[float] = (1e-6,),
    directions: int = 1,
    seed: int = 7,
) -> list[Derivative]:
    """Every parameter's derivative along random directions; the parameters come back as they were but for rounding.

    Where the function's slope jumps (two pixels change their ranks) one step may straddle a jump: the best counts.
    """
    generator = torch.Generator().manual_seed(seed)
    results = []
    for name, parameter in parameters:
        for _ in range(directions):
            direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            grad = grads[name]
            exact, best = 0.0 if grad is None else float((grad * direction).sum()), float("inf")
            for step in steps:
                numeric = central_difference(function, parameter, direction, step)
                best = numeric if abs(numeric - exact) < abs(best - exact) else best
                if abs(best - exact) < 1e-5 * abs(exact):
                    break
            results.append(Derivative(name, exact, best))
    return results


def central_difference(function: Callable[[], Tensor], parameter: Tensor, direction: Tensor, step: float) -> float:
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(direction, alpha=sign * step)
        values.append(float(function().detach()))
        with torch.no_grad():
            parameter.add_(direction, alpha=-sign * step)
    return (values[0] - values[1]) / (2 * step)


def gradients(function: Callable[[], Tensor], model: nn.Module) -> dict[str, Tensor | None]:
    """By autograd, to every parameter; ``None`` where the function does not depend on it."""
    gradients = torch.autograd.grad(function(), list(model.parameters()), allow_unused=True)
    return dict(zip([name for name, _ in model.named_parameters()], gradients, strict=True))


def assert_agree(checks: Sequence[Derivative], *, floor: float) -> None:
    """To 1e-4 relative, or ``floor`` times the largest of them."""
    largest = max(abs(check.exact) for check in checks)
    for name, exact, numeric in checks:
        assert exact == pytest.approx(numeric, rel=1e-4, abs=floor * largest), name
