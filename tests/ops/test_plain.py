"""The compiled CPU kernel returns the plain kernel's bits, on any shape, layout and dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.ops.conftest import assert_paths_agree, make_inputs, same_bits
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain

pytestmark = pytest.mark.usefixtures("compiled_kernel")

IMAGE_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    cells=st.sampled_from([1, 2, 3, 4, 5, 8, 13, 64]),
    bank=st.tuples(st.integers(1, 4), st.integers(1, 50), st.integers(1, 90)),
    dtype=st.sampled_from(IMAGE_DTYPES),
    bank_dtype=st.sampled_from([torch.uint8, *IMAGE_DTYPES]),
    normalise=st.booleans(),
    grid=st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0]),
    seed=st.integers(0, 2**31),
)
def test_same_bits(**case):
    assert_paths_agree(make_inputs(**case))


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e8, 1e160])
@pytest.mark.parametrize("seed", range(4))
def test_sites_far_outside_and_all_in_one_pixel(scale, seed):
    inputs = make_inputs(size=(21, 33), cells=8, seed=seed)
    inputs["sites"] = (inputs["sites"] - 10) * scale
    assert_paths_agree(inputs)


@pytest.mark.parametrize("distance", [0.0, 1e-15, 1e-12, 1e-9, 1e-6])
def test_sites_side_by_side(distance):
    """Two sites a rounding error apart: their border is decided by the formula, not by the walk."""
    inputs = make_inputs(size=(40, 64), cells=6)
    inputs["sites"][:, 3:] = inputs["sites"][:, :3] + torch.tensor([distance, -distance])
    assert_paths_agree(inputs)
    inputs["sites"][:, 3:] = inputs["sites"][:, :3] + torch.tensor([distance, 0.0])
    assert_paths_agree(inputs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_site_that_is_not_finite_owns_no_pixel(value):
    inputs = make_inputs(cells=4)
    others = {**inputs, **{k: inputs[k][:, 1:] for k in ("sites", "index", "offset")}}
    inputs["sites"][:, 0, 0] = value
    assert torch.equal(assert_paths_agree(inputs), composite_plain(**others))
    inputs["sites"][:] = value
    first = {**inputs, **{k: inputs[k][:, :1] for k in ("index", "offset")}, "sites": torch.zeros(2, 1, 2).double()}
    assert torch.equal(assert_paths_agree(inputs), composite_plain(**first))


@pytest.mark.parametrize("normalise", [True, False])
def test_layouts(normalise):
    inputs = make_inputs(size=(14, 18), bank=(4, 10, 12), normalise=normalise)
    expected = composite_plain(**inputs)
    for name in ("foreground", "bank"):
        last = {**inputs, name: inputs[name].contiguous(memory_format=torch.channels_last)}
        assert same_bits(assert_paths_agree(last), expected)
    every_other = {
        name: torch.stack([inputs[name], torch.zeros_like(inputs[name])], -1).flatten(-2)[..., ::2]
        for name in ("foreground", "mask", "bank")
    }
    assert same_bits(assert_paths_agree({**inputs, **every_other}), expected)
    turned = {name: inputs[name].mT.contiguous().mT for name in ("foreground", "mask", "bank")}
    assert same_bits(assert_paths_agree({**inputs, **turned}), expected)
    larger = {
        name: torch.nn.functional.pad(inputs[name], (3, 2, 1, 1))[..., 1:-1, 3:-2] for name in ("foreground", "bank")
    }
    assert same_bits(assert_paths_agree({**inputs, **larger}), expected)
    small = {name: inputs[name].transpose(0, 1).contiguous().transpose(0, 1) for name in ("sites", "index", "offset")}
    assert same_bits(assert_paths_agree({**inputs, **small}), expected)


def test_expanded_mask_and_foreground():
    inputs = make_inputs()
    inputs["foreground"] = inputs["foreground"][:1].expand(2, -1, -1, -1)
    inputs["mask"] = inputs["mask"][:1, :, :1].expand(2, 1, 13, 17)
    assert_paths_agree(inputs)


@pytest.mark.parametrize("offset", [2**63 - 1, -(2**63), 2**40])
def test_extreme_offsets_wrap(offset):
    inputs = make_inputs(size=(20, 30))
    inputs["offset"][:] = offset
    small = {**inputs, "offset": inputs["offset"].remainder(torch.tensor([9, 11]))}
    assert same_bits(assert_paths_agree(inputs), composite_plain(**small))


def test_special_values_pass_through():
    inputs = make_inputs(bank_dtype=torch.float32)
    inputs["foreground"][0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e38])
    inputs["bank"][0, 0, :3] = float("inf")
    inputs["mask"][0, 0, 0, :2] = 1
    assert_paths_agree(inputs)


def test_empty_batch():
    inputs = make_inputs(batch=0)
    assert voronoi_composite(**inputs).shape == (0, 3, 13, 17)
    assert_paths_agree(inputs)


def test_image_of_real_size_on_all_threads():
    inputs = make_inputs(batch=5, size=(224, 223), cells=8, bank=(7, 256, 256))
    assert_paths_agree(inputs)
    assert_paths_agree(make_inputs(batch=2, size=(201, 224), cells=64, bank=(7, 100, 60), grid=1.0))


def test_the_kernel_itself_refuses_an_index_outside_the_bank():
    for value in (-1, 4):
        inputs = make_inputs()
        inputs["index"][1, 2] = value
        with pytest.raises(RuntimeError, match=rf"index: expected images of the bank in \[0, 3\], got {value}"):
            composite(*inputs.values())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", torch.zeros(2, 1, 13, 16), "mask: its shape does not agree"),
        ("mask", torch.zeros(2, 13, 17), "mask: expected four dimensions"),
        ("mask", torch.zeros(2, 1, 13, 17).double(), "mask: expected the foreground's dtype"),
        ("bank", torch.zeros(4, 2, 9, 11), "bank: its shape does not agree"),
        ("bank", torch.zeros(0, 3, 9, 11), "bank: expected four dimensions and at least one pixel"),
        ("sites", torch.zeros(2, 5, 2), "expected scalar type .*but found Float"),
        ("offset", torch.zeros(2, 5, 3, dtype=torch.int64), "offset: its shape does not agree"),
        ("mean", torch.zeros(3).double(), "mean, std: expected float64 with"),
        ("std", None, "mean, std: expected both or neither"),
    ],
)
def test_the_kernel_itself_is_safe(name, value, message):
    with pytest.raises(RuntimeError, match=message):
        composite(*{**make_inputs(), name: value}.values())
