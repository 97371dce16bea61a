"""Inputs of the operator by their shapes, and the two implementations to be compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torch_bgdebias.ops import extension_status
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain
from torch_bgdebias.precision import working_dtype


def make_inputs(
    batch: int = 2,
    channels: int = 3,
    size: tuple[int, int] = (13, 17),
    cells: int = 5,
    bank: tuple[int, int, int] = (4, 9, 11),
    dtype: torch.dtype = torch.float32,
    bank_dtype: torch.dtype = torch.uint8,
    normalise: bool = True,
    grid: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """``grid``: sites are rounded to its multiples, so that there are exact ties; 0 leaves them as they fall."""
    g = torch.Generator().manual_seed(seed)
    height, width = size
    shape = (bank[0], channels, *bank[1:])
    sites = (
        torch.rand(batch, cells, 2, generator=g, dtype=torch.float64) * torch.tensor([height + 8.0, width + 8.0]) - 4
    )
    pixels = torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
    compute = working_dtype(dtype)
    return {
        "foreground": torch.randn(batch, channels, height, width, generator=g, dtype=torch.float64).to(dtype),
        "mask": torch.rand(batch, 1, height, width, generator=g).to(dtype),
        "bank": pixels if bank_dtype == torch.uint8 else torch.randn(shape, generator=g).to(bank_dtype),
        "sites": (sites / grid).round() * grid if grid else sites,
        "index": torch.randint(0, bank[0], (batch, cells), generator=g),
        "offset": torch.randint(-50, 50, (batch, cells, 2), generator=g),
        "mean": torch.rand(channels, generator=g, dtype=compute) if normalise else None,
        "std": torch.rand(channels, generator=g, dtype=compute) + 0.1 if normalise else None,
    }


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal value for value, NaN included, signs of zero included."""
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(integer), b.view(integer))


def assert_paths_agree(inputs: dict[str, Any]) -> torch.Tensor:
    compiled, plain = composite(*inputs.values()), composite_plain(**inputs)
    assert compiled.is_contiguous()
    assert same_bits(compiled, plain), f"{int((compiled != plain).sum())} of {plain.numel()} values differ"
    return compiled


@pytest.fixture
def compiled_kernel() -> None:
    status = extension_status()
    if status.state != "loaded":
        pytest.skip(f"no compiled kernels ({status.state}): {status.reason}")
