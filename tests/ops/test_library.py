"""What the dispatcher, autograd and torch.compile need of the operator, and its bad input."""

from __future__ import annotations

import pytest
import torch

from tests.ops.conftest import make_inputs, same_bits
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("normalise", [True, False])
def test_opcheck(bank_dtype, normalise):
    inputs = make_inputs(bank_dtype=bank_dtype, normalise=normalise)
    torch.library.opcheck(composite, tuple(inputs.values()))
    inputs["foreground"].requires_grad_(True)
    inputs["mask"].requires_grad_(True)
    torch.library.opcheck(composite, tuple(inputs.values()))


def test_opcheck_of_an_empty_batch_and_of_channels_last():
    torch.library.opcheck(composite, tuple(make_inputs(batch=0).values()))
    inputs = make_inputs()
    inputs["foreground"] = inputs["foreground"].contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(composite, tuple(inputs.values()))


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.float64])
def test_gradients_once_and_twice(bank_dtype):
    inputs = make_inputs(size=(3, 4), cells=3, dtype=torch.float64, bank_dtype=bank_dtype)
    image, mask = inputs.pop("foreground").requires_grad_(True), inputs.pop("mask").requires_grad_(True)

    def function(image, mask):
        return voronoi_composite(image, mask, **inputs)

    assert torch.autograd.gradcheck(function, (image, mask))
    assert torch.autograd.gradgradcheck(function, (image, mask))


def test_gradients_equal_those_of_the_plain_formula():
    inputs = make_inputs()
    image, mask = inputs.pop("foreground").requires_grad_(True), inputs.pop("mask").requires_grad_(True)
    weight = torch.randn(image.shape)
    ours = torch.autograd.grad((voronoi_composite(image, mask, **inputs) * weight).sum(), (image, mask))
    plain = torch.autograd.grad((composite_plain(image, mask, **inputs) * weight).sum(), (image, mask))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_half_types(dtype):
    inputs = make_inputs(dtype=dtype)
    image, mask = inputs.pop("foreground").requires_grad_(True), inputs.pop("mask").requires_grad_(True)
    grads = torch.autograd.grad(voronoi_composite(image, mask, **inputs).float().sum(), (image, mask))
    assert [g.dtype for g in grads] == [dtype, dtype]
    assert torch.equal(grads[0], mask.expand_as(image))


def test_only_the_gradient_asked_for():
    inputs = make_inputs()
    inputs["mask"].requires_grad_(True)
    out = voronoi_composite(**inputs)
    assert torch.autograd.grad(out.sum(), inputs["mask"])[0].shape == (2, 1, 13, 17)


@pytest.mark.filterwarnings("ignore:.*Dynamo.*:UserWarning")
def test_compiles_into_one_graph():
    inputs = make_inputs()
    inputs["foreground"].requires_grad_(True)

    def step(foreground, mask, bank, sites, index, offset, mean, std):
        return voronoi_composite(foreground * 2, mask, bank, sites, index, offset, mean, std).relu()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    expected, out = step(**inputs), compiled(**inputs)
    assert same_bits(out.detach(), expected.detach())
    (grad,) = torch.autograd.grad(out.sum(), inputs["foreground"])
    assert torch.equal(grad, torch.autograd.grad(expected.sum(), inputs["foreground"])[0])


@pytest.mark.slow
def test_compiles_with_inductor():
    inputs = make_inputs()
    compiled = torch.compile(voronoi_composite, fullgraph=True)
    assert same_bits(compiled(**inputs), voronoi_composite(**inputs))
    inputs = make_inputs(batch=3, size=(20, 31))
    assert same_bits(compiled(**inputs), voronoi_composite(**inputs))


def test_meta_device_knows_the_shape():
    inputs = {k: v.to("meta") for k, v in make_inputs().items()}
    assert voronoi_composite(**inputs).shape == (2, 3, 13, 17)


def test_inference_mode_and_autocast():
    inputs = make_inputs()
    expected = voronoi_composite(**inputs)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert same_bits(voronoi_composite(**inputs), expected)


def test_convenient_arguments_mean_the_same():
    inputs = make_inputs()
    expected = voronoi_composite(**inputs)
    loose = {
        **inputs,
        "index": inputs["index"].int(),
        "offset": inputs["offset"].int(),
        "mean": inputs["mean"].tolist(),
        "std": tuple(inputs["std"].tolist()),
        "mask": inputs["mask"][:, 0],
    }
    assert same_bits(voronoi_composite(**loose), expected)
    hard = inputs["mask"] > 0.5
    assert same_bits(
        voronoi_composite(**{**inputs, "mask": hard}), voronoi_composite(**{**inputs, "mask": hard.float()})
    )


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "foreground",
            torch.zeros(2, 3, 13, 17, dtype=torch.uint8),
            TypeError,
            "foreground: expected a floating point",
        ),
        ("foreground", torch.zeros(3, 13, 17), ValueError, r"foreground: expected shape \(B, C, H, W\)"),
        ("foreground", [1, 2], TypeError, "foreground: expected a float tensor"),
        ("mask", torch.zeros(2, 1, 13, 16), ValueError, r"mask: expected shape \(2, 1, 13, 17\)"),
        ("mask", torch.zeros(2, 3, 13, 17), ValueError, r"mask: expected shape \(B, 1, H, W\)"),
        ("mask", torch.zeros(2, 1, 13, 17, dtype=torch.uint8), TypeError, "mask: expected bool or floating"),
        ("bank", torch.zeros(4, 1, 9, 11), ValueError, "bank: expected the foreground's 3 channels"),
        ("bank", torch.zeros(4, 3, 9, 11, dtype=torch.int32), TypeError, "bank: expected a uint8 or float tensor"),
        ("bank", torch.zeros(0, 3, 9, 11), ValueError, "bank: .*at least one pixel"),
        ("bank", torch.zeros(3, 9, 11), ValueError, r"bank: expected shape \(N, C, Hb, Wb\)"),
        ("bank", torch.zeros(4, 3, 9, 11, requires_grad=True), ValueError, "bank: expected a tensor without gradient"),
        ("bank", torch.zeros(4, 3, 9, 11, device="meta"), ValueError, "bank: expected on the foreground's device cpu"),
        ("sites", torch.zeros(2, 5, 2, dtype=torch.int64), TypeError, "sites: expected a float tensor"),
        ("sites", torch.zeros(2, 5, 3), ValueError, r"sites: expected shape \(2, K, 2\)"),
        ("sites", torch.zeros(2, 0, 2), ValueError, "sites: .*at least one cell"),
        ("sites", torch.zeros(3, 5, 2), ValueError, r"sites: expected shape \(2, K, 2\)"),
        ("index", torch.zeros(2, 5), TypeError, "index: expected an int64 tensor"),
        ("index", torch.zeros(2, 4, dtype=torch.int64), ValueError, r"index: expected shape \(2, 5\)"),
        ("index", torch.full((2, 5), 4), ValueError, r"index: expected images of the bank in \[0, 3\], got \[4, 4\]"),
        (
            "index",
            torch.full((2, 5), -1),
            ValueError,
            r"index: expected images of the bank in \[0, 3\], got \[-1, -1\]",
        ),
        ("offset", torch.zeros(2, 5, 2), TypeError, "offset: expected an int64 tensor"),
        ("offset", torch.zeros(2, 5, dtype=torch.int64), ValueError, r"offset: expected shape \(2, 5, 2\)"),
        ("mean", None, ValueError, "mean, std: expected both or none, got only std"),
        ("std", None, ValueError, "mean, std: expected both or none, got only mean"),
        ("mean", [0.5], ValueError, "mean: expected 3 numbers"),
        ("std", 0.5, TypeError, "std: expected 3 numbers, got float 0.5"),
        ("std", torch.zeros(3, 1), ValueError, "std: expected 3 numbers"),
    ],
)
def test_bad_input_is_named(name, value, error, message):
    with pytest.raises(error, match=message):
        voronoi_composite(**{**make_inputs(), name: value})


def test_plain_kernel_refuses_an_index_outside_the_bank():
    inputs = make_inputs()
    inputs["index"][0, 0] = -1
    with pytest.raises(ValueError, match=r"index: expected images of the bank in \[0, 3\]"):
        composite_plain(**inputs)


def test_mask_values_extrapolate_and_nan_stays():
    inputs = make_inputs(normalise=False)
    inputs["mask"][:] = 2
    background = voronoi_composite(**{**inputs, "mask": torch.zeros_like(inputs["mask"])})
    torch.testing.assert_close(voronoi_composite(**inputs), 2 * inputs["foreground"] - background)
    inputs["mask"][0] = torch.nan
    assert voronoi_composite(**inputs)[0].isnan().all()
