"""What an activation passes on is f(x) / x, near zero as well, where the quotient itself would lose its digits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from torch_bgdebias.lrp.activations import RATIOS

FUNCTIONS = {
    "gelu": F.gelu, "silu": F.silu, "hardswish": F.hardswish, "mish": F.mish, "elu": F.elu, "selu": F.selu,
    "celu": F.celu, "tanh": torch.tanh, "tanhshrink": F.tanhshrink, "softsign": F.softsign,
}  # fmt: skip
SIZES = (1e-6, 1e-3, 5e-3, 0.0099, 0.0101, 0.05, 0.0999, 0.1001, 0.5, 3.0)


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_is_the_function_over_its_argument(name):
    assert set(RATIOS) == set(FUNCTIONS)
    x = torch.tensor([sign * size for size in SIZES for sign in (1, -1)], dtype=torch.float64)
    expected = FUNCTIONS[name](x) / x
    torch.testing.assert_close(RATIOS[name](x), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(RATIOS[name](x.float()).double(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", RATIOS)
def test_at_zero_it_is_the_slope_and_can_be_differentiated(name):
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(FUNCTIONS[name](zero), zero)
    ratio = RATIOS[name](zero)
    torch.testing.assert_close(ratio, slope)
    (bend,) = torch.autograd.grad(ratio, zero, allow_unused=True)
    assert bend is None or bend.isfinite()
