"""The operator on every device there is gives what the plain kernel gives on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.ops.conftest import make_inputs
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain


def moved(inputs, device):
    return {name: value if value is None else value.to(device) for name, value in inputs.items()}


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [{}, {"size": (65, 130), "cells": 64}, {"grid": 1.0, "cells": 9}, {"batch": 0}])
def test_values(device, shape, dtype, bank_dtype):
    inputs = make_inputs(dtype=dtype, bank_dtype=bank_dtype, **shape)
    out = voronoi_composite(**moved(inputs, device))
    assert out.device.type == device.type
    torch.testing.assert_close(out.cpu(), composite_plain(**inputs))


def test_gradients(device):
    inputs = make_inputs()
    weight = torch.randn(inputs["foreground"].shape, generator=torch.Generator().manual_seed(1))
    grads = []
    for place, function in ((torch.device("cpu"), composite_plain), (device, voronoi_composite)):
        here = moved(inputs, place)
        leaves = [here[name].requires_grad_(True) for name in ("foreground", "mask")]
        grads.append(torch.autograd.grad((function(**here) * weight.to(place)).sum(), leaves))
    for there, expected in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(there.cpu(), expected)


def test_opcheck(device):
    inputs = moved(make_inputs(), device)
    for name in ("foreground", "mask"):
        inputs[name].requires_grad_(True)
    torch.library.opcheck(composite, tuple(inputs.values()))
