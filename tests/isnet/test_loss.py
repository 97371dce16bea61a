"""The heatmap loss: a slow second implementation, finite differences, limits, bad input."""

from __future__ import annotations

import math

import hostile
import pytest
import torch
from torch import Tensor

from torch_bgdebias.isnet.functional import (
    background_term,
    foreground_term,
    heatmap_loss,
    pool_layers,
    resize_mask,
)
from torch_bgdebias.isnet.loss import ISNetLoss


def masks_as_they_are(**settings) -> ISNetLoss:
    """The papers' loss: what is expected here is written down for the pixels of the mask itself."""
    return ISNetLoss.paper(**{"mask_dilation": 0, **settings})


def case(seed: int = 0, shape: tuple[int, ...] = (3, 2, 3, 9, 7), dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.randn(shape, generator=generator, dtype=dtype)
    mask = torch.zeros(shape[0], 1, *shape[-2:], dtype=dtype)
    mask[:, :, 2:6, 1:4] = 1
    return relevance, mask


def slow_terms(relevance: Tensor, mask: Tensor, d=0.9, low=1.0, high=25.0, e=1.0, signed=False, hybrid=True):
    """Both terms written out from the formulas, pixel by pixel: (background (B, M), foreground (B, M))."""
    batch, maps, channels, height, width = relevance.shape
    background, foreground = torch.zeros(batch, maps).double(), torch.zeros(batch, maps).double()
    for b in range(batch):
        m = mask[b, 0]
        for k in range(maps):
            r = relevance[b, k].double()
            total = sum(
                float((r[c] if signed else r[c].abs())[y, x] * m[y, x])
                for c in range(channels)
                for y in range(height)
                for x in range(width)
            )
            mean = total / (channels * float(m.sum())) + 1e-10
            for c in range(channels):
                values = sorted(
                    (abs(float(r[c, y, x]) / mean) * (1 - float(m[y, x])) for y in range(height) for x in range(width)),
                    reverse=True,
                )
                g = sum(v * d**i for i, v in enumerate(values)) / sum(d**i for i in range(len(values)))
                background[b, k] -= math.log(1 - min(g / (g + e), 1 - 1e-7)) / channels
            f = float((r.abs() * m).sum())
            foreground[b, k] = (min(f / low, 1) - 1) ** 2
            if f > high:
                linear = hybrid and f > low + high
                foreground[b, k] += 1 + f - low - high if linear else (f / low - high / low) ** 2
    return background, foreground


@pytest.mark.parametrize("d", [0.0, 0.5, 0.9, 0.996, 1.0])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 0.6, 1.2, 4.0])
def test_equals_the_formulas(d, signed, hybrid, scale):
    relevance, mask = case(seed=1)
    relevance = (relevance + 0.3) * scale
    mask[0] *= 0.4  # soft masks weigh
    normalization, foreground = ("signed" if signed else "absolute"), ("hybrid" if hybrid else "l2")
    background = background_term(relevance, mask, rank_decay=d, saturation=2.0, normalization=normalization)
    foreground_loss = foreground_term(relevance, mask, relevance_range=(1.5, 20.0), foreground=foreground)
    slow_background, slow_kept = slow_terms(relevance, mask, d, 1.5, 20.0, 2.0, signed, hybrid)
    torch.testing.assert_close(background, slow_background, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(foreground_loss, slow_kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [0.9, 1.0])
@pytest.mark.parametrize("normalization", ["absolute", "signed"])
@pytest.mark.parametrize("foreground", ["hybrid", "l2"])
@pytest.mark.parametrize("reach", [(500.0, 600.0), (1.0, 500.0), (10.0, 12.0)])
def test_gradient_equals_finite_differences(d, normalization, foreground, reach):
    relevance, mask = case(shape=(2, 2, 2, 6, 5))
    loss = masks_as_they_are(
        relevance_range=reach, rank_decay=d, foreground=foreground, normalization=normalization, foreground_weight=0.7
    )
    assert torch.autograd.gradcheck(lambda r: loss(r, mask), (relevance.requires_grad_(),))


@pytest.mark.parametrize("normalization", ["absolute", "signed"])
def test_mask_without_foreground_leaves_the_background_term(normalization):
    relevance, mask = case()
    mask[1] = 0
    relevance.requires_grad_()
    terms = masks_as_they_are(normalization=normalization).terms(relevance, mask)
    assert terms.foreground[1] == 0
    assert terms.background[1] > 0
    assert torch.equal(terms.loss[1], terms.background[1])
    (grad,) = torch.autograd.grad(terms.loss[1], relevance)
    assert torch.isfinite(grad).all()
    assert (grad[1] * relevance[1]).sum() > 0  # less relevance is a smaller loss
    # with C1 relevance spread evenly, the strongest background is as strong as the expected mean: log(1 + 1)
    even = torch.full((1, 1, 3, 9, 7), 1 / (3 * 9 * 7), dtype=torch.float64)
    assert masks_as_they_are(normalization=normalization)(even, mask[1:2]).item() == pytest.approx(math.log(2))


def test_full_mask_leaves_the_foreground_term():
    relevance, mask = case()
    terms = masks_as_they_are(relevance_range=(1.0, 2.0)).terms(relevance, torch.ones_like(mask))
    assert torch.equal(terms.background, torch.zeros_like(terms.background))
    assert (terms.foreground > 0).all()


def test_no_relevance_at_all_is_too_little_foreground():
    _, mask = case()
    relevance = torch.zeros(3, 2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    terms = masks_as_they_are().terms(relevance, mask)
    assert torch.equal(terms.background, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(terms.foreground, torch.ones(3, dtype=torch.float64))
    (grad,) = torch.autograd.grad(terms.loss.sum(), relevance)
    assert torch.equal(grad, torch.zeros_like(grad))


def test_background_is_capped():
    relevance, mask = case()
    relevance = relevance * torch.where(mask.unsqueeze(1) > 0, 1e-12, 1e12)
    terms = masks_as_they_are().terms(relevance, mask)
    torch.testing.assert_close(terms.background, torch.full((3,), 7 * math.log(10.0), dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 6), (1, 3, 2, 9, 7), (4, 1, 3, 8, 5)])
def test_samples_do_not_see_each_other(shape):
    relevance, mask = case(shape=shape)
    each = masks_as_they_are(reduction="none")
    whole = each(relevance, mask)
    alone = torch.cat([each(relevance[i : i + 1], mask[i : i + 1]) for i in range(shape[0])])
    assert whole.shape == (shape[0],)
    torch.testing.assert_close(whole, alone)
    torch.testing.assert_close(masks_as_they_are()(relevance, mask), whole.mean())


def test_maps_are_averaged():
    relevance, mask = case()
    each = torch.stack([masks_as_they_are()(relevance[:, k : k + 1], mask) for k in range(2)])
    torch.testing.assert_close(masks_as_they_are()(relevance, mask), each.mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computed_in_float32(device, dtype):
    relevance, mask = case(dtype=torch.float32)
    relevance, mask = relevance.to(device), mask.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        low = masks_as_they_are()(relevance.to(dtype), mask)
        high = masks_as_they_are()(relevance, mask.bool())
    assert low.dtype == high.dtype == torch.float32
    torch.testing.assert_close(low, masks_as_they_are()(relevance.to(dtype).float(), mask))
    torch.testing.assert_close(high, masks_as_they_are()(relevance, mask[:, 0]))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("relevance_range", (2.0, 3.0)),
        ("background_weight", 2.0),
        ("foreground_weight", 2.0),
        ("rank_decay", 0.5),
        ("saturation", 3.0),
        ("foreground", "l2"),
        ("normalization", "signed"),
        ("mask_dilation", 1),
        ("reduction", "none"),
        ("layer_decay", 0.2),
        ("hidden_ranges", {"features": (5.0, 6.0)}),
    ],
)
def test_every_setting_matters(name, other):
    relevance, mask = case()
    hidden = {"features": case(shape=(3, 2, 4, 5, 4))[0] * 3}
    base, changed = (masks_as_they_are(**settings)(relevance, mask, hidden) for settings in ({}, {name: other}))
    assert base.shape != changed.shape or not torch.allclose(base, changed)


def test_hidden_layers_get_the_mask_resized():
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 0, 3] = 0.2
    small = resize_mask(mask, (4, 4))
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 0, 1] = 1
    assert torch.equal(small, expected)
    assert resize_mask(mask, (8, 8)) is mask
    relevance = case(shape=(1, 1, 3, 8, 8), dtype=torch.float32)[0]
    hidden = case(shape=(1, 1, 5, 4, 4), dtype=torch.float32, seed=3)[0]
    loss = masks_as_they_are()(relevance, mask, {"conv": hidden})
    torch.testing.assert_close(loss, (masks_as_they_are()(relevance, mask) + masks_as_they_are()(hidden, small)) / 2)


def test_layers_are_pooled_by_rank():
    relevance, mask = case(shape=(2, 1, 3, 8, 8))
    strong = relevance * (1 + 5 * (1 - mask.unsqueeze(1)))
    loss = masks_as_they_are(layer_decay=0.25, reduction="none")
    weak_loss, strong_loss = loss(relevance, mask), loss(strong, mask)
    assert (strong_loss > weak_loss).all()
    expected = (strong_loss + 0.25 * weak_loss) / 1.25
    for first, second in ((relevance, strong), (strong, relevance)):
        torch.testing.assert_close(loss(first, mask, {"layer": second}), expected)
    terms = loss.terms(relevance, mask, {"layer": strong})
    torch.testing.assert_close(terms.loss, terms.background + terms.foreground)
    assert pool_layers([terms], 0.3) is terms


def test_module_has_no_state_and_equals_the_function():
    relevance, mask = case()
    loss = masks_as_they_are(relevance_range=(2.0, 9.0), rank_decay=0.8)
    assert not loss.state_dict()
    torch.testing.assert_close(
        loss(relevance, mask), heatmap_loss(relevance, mask, relevance_range=(2.0, 9.0), rank_decay=0.8)
    )
    assert "relevance_range=(2, 9)" in repr(loss)
    assert heatmap_loss(relevance, mask, reduction="none").shape == (3,)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"relevance_range": (0.0, 1.0)}, "relevance_range: expected 0 < C1 <= C2"),
        ({"relevance_range": (5.0, 1.0)}, "relevance_range: expected 0 < C1 <= C2"),
        ({"rank_decay": 1.1}, "rank_decay: expected in"),
        ({"saturation": 0.0}, "saturation: expected above 0"),
        ({"foreground": "l1"}, "foreground: expected one of 'hybrid', 'l2'"),
        ({"normalization": "none"}, "normalization: expected one of"),
        ({"mask_dilation": -1}, "mask_dilation: expected a whole number"),
        ({"mask_dilation": 1.5}, "mask_dilation: expected a whole number"),
        ({"background_weight": -1.0}, "background_weight: expected 0 or more"),
        ({"layer_decay": 2.0}, "layer_decay: expected in"),
        ({"hidden_ranges": {"a": (3.0, 2.0)}}, r"hidden_ranges\['a'\]"),
        ({"reduction": "sum"}, "reduction: expected one of"),
    ],
)
def test_bad_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        masks_as_they_are(**settings)


def test_bad_input_is_named():
    relevance, mask = case()
    loss = masks_as_they_are()
    with pytest.raises(ValueError, match=r"mask: expected shape \(B, 1, H, W\)"):
        loss(relevance, mask.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 1, 9, 7\)"):
        loss(relevance, mask[:, :, :-1])
    with pytest.raises(ValueError, match="relevance: expected shape"):
        loss(relevance[:, 0], mask)
    with pytest.raises(TypeError, match="relevance: expected a float tensor"):
        loss(relevance.long(), mask)
    with pytest.raises(ValueError, match=r"hidden\['conv'\]: expected shape"):
        loss(relevance, mask, {"conv": relevance[:, 0]})
    with pytest.raises(ValueError, match=r"mask: expected values in \[0, 1\]"):
        loss(relevance, mask * 255)
    for bad in (float("nan"), float("inf")):
        broken = relevance.clone()
        broken[2, 1, 0, 3, 3] = bad
        with pytest.raises(
            ValueError, match=r"relevance: expected finite values, got NaN or infinity in sample\(s\) \[2\]"
        ):
            loss(broken, mask)
        with pytest.raises(ValueError, match=r"hidden\['conv'\]: expected finite values"):
            loss(relevance, mask, {"conv": broken})


def test_compiles_without_a_graph_break():
    relevance, mask = case(dtype=torch.float32)
    explained = torch._dynamo.explain(masks_as_they_are())(relevance, mask)
    assert explained.graph_break_count == 0, explained.break_reasons


@hostile.wrong(mask=hostile.MASKS)
def test_wrong_masks_are_named(wrong):
    relevance, mask = case()
    loss = masks_as_they_are()
    wrong.refused_by(lambda mask: loss(relevance, mask), mask=mask)
