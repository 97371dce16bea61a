"""Rectifiers with and without a ceiling: the relevance rule and its derivative against the formula, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torch_bgdebias.lrp.activations import rectify
from torch_bgdebias.lrp.switch import Switch

EPSILON = 0.1


def relevance_gradient(x: Tensor, grad: Tensor, ceiling: float | None, *, keep_input: bool) -> Tensor:
    """What leaves the rectifier in the relevance pass."""
    switch = Switch()
    out = rectify(x * 1, switch, EPSILON, ceiling=ceiling, keep_input=keep_input)
    with switch.on():
        (result,) = torch.autograd.grad(out, x, grad, create_graph=True)
    return result


def written_out(x: Tensor, grad: Tensor, ceiling: float | None) -> Tensor:
    """grad a / (a + epsilon) where 0 < x < ceiling, by operations that torch differentiates by itself."""
    inside = (x > 0) & (x < (torch.inf if ceiling is None else ceiling))
    a = torch.where(inside, x, 0)
    return grad * a / (a + EPSILON)


@pytest.mark.parametrize("keep_input", [False, True])
@pytest.mark.parametrize("ceiling", [None, 0.5])
def test_rule_and_its_derivatives_are_those_of_the_formula(ceiling: float | None, keep_input: bool) -> None:
    x = torch.tensor([-1.0, -0.0, 0.2, 0.4, 0.5, 0.7, 2.0], dtype=torch.float64, requires_grad=True)
    grad = torch.linspace(-1, 1, 7, dtype=torch.float64).requires_grad_()
    probe = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    relevance = relevance_gradient(x, grad, ceiling, keep_input=keep_input)
    expected = written_out(x, grad, ceiling)
    torch.testing.assert_close(relevance, expected)
    for derivative, right_derivative in zip(
        torch.autograd.grad(relevance, (x, grad), probe), torch.autograd.grad(expected, (x, grad), probe), strict=True
    ):
        torch.testing.assert_close(derivative, right_derivative)


@pytest.mark.parametrize("ceiling", [None, 0.5])
def test_the_plain_pass_is_torchs_own(ceiling: float | None) -> None:
    x = torch.tensor([-1.0, 0.0, 0.2, 0.5, 0.7], requires_grad=True)
    out = rectify(x * 1, Switch(), EPSILON, ceiling=ceiling)
    own = torch.relu(x) if ceiling is None else torch.nn.functional.hardtanh(x, 0, ceiling)
    torch.testing.assert_close(out, own)
    torch.testing.assert_close(*(torch.autograd.grad(values.sum(), x)[0] for values in (out, own)))
