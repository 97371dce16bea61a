"""The temperature against a search, figures against a count by hand, heads that never saw what they are judged on."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from torch_bgdebias.heads.calibration import cooled, fit_temperature, held_out_logits, view_figures
from torch_bgdebias.heads.logistic import LinearHead, Views, dealt_folds, fit_logistic


def drawn(scale: float, images: int = 4000, classes: int = 3) -> tuple[torch.Tensor, Views]:
    """Logits that are ``scale`` times those by which the labels were drawn."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(images, classes, generator=generator, dtype=torch.float64) * 2
    label = torch.multinomial(true.softmax(1), 1, generator=generator).flatten()
    both = torch.stack([true, true]) * scale
    return both, Views(torch.zeros(2, images, 1), label, torch.arange(images))


def loss(logits: torch.Tensor, views: Views, temperature: float, original_weight: float) -> float:
    """By the definition: the mean over classes, views weighed 'original_weight' and 1."""
    value = 0.0
    for view, weight in zip(logits, (original_weight, 1.0), strict=True):
        each = F.cross_entropy(view / temperature, views.label, reduction="none")
        value += weight * sum(float(each[views.label == k].mean()) for k in range(logits.shape[2]))
    return value


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
def test_the_temperature_that_labels_were_drawn_by_comes_back(scale):
    logits, views = drawn(scale)
    temperature = fit_temperature(logits, views, original_weight=0.5)
    assert temperature == pytest.approx(scale, rel=0.1)
    least = loss(logits, views, temperature, 0.5)
    assert all(least < loss(logits, views, temperature * factor, 0.5) for factor in (0.97, 1.03))
    assert view_figures(logits / temperature, views).original.calibration_error < 0.02


def test_no_temperature_is_better_than_the_furthest_where_all_is_right():
    views = Views(torch.zeros(2, 4, 1), torch.tensor([0, 1, 0, 1]), torch.arange(4))
    logits = F.one_hot(views.label, 2).double().expand(2, -1, -1)
    assert fit_temperature(logits, views, original_weight=0.5) == pytest.approx(math.exp(-4))
    assert fit_temperature(-logits, views, original_weight=0.5) == pytest.approx(math.exp(4))


def test_figures_counted_by_hand():
    label = torch.tensor([0, 1, 1, 0])
    sure, half = math.log(9), 0.0  # 9 to 1, 1 to 1
    original = torch.tensor([[sure, 0], [0, sure], [sure, 0], [sure, 0]])
    swapped = torch.tensor([[half, 0], [half, 0], [half, 0], [half, 0]])
    views = Views(torch.zeros(2, 4, 1), label, torch.arange(4))
    figures = view_figures(torch.stack([original, swapped]), views)
    assert figures.original == pytest.approx((0.75, 0.9, 0.15))
    assert figures.swapped == pytest.approx((0.5, 0.5, 0.0))
    one = view_figures(torch.stack([original, swapped]).diff(dim=2), views)
    assert one.original == pytest.approx(figures.original)


def test_no_image_is_judged_by_a_head_that_saw_its_group():
    """Labels that have nothing to do with features: whoever saw an image knows it, nobody else can."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, 60, generator=generator).repeat_interleave(2, 0)
    views = Views(features.expand(2, -1, -1), torch.arange(80) % 4 // 2, torch.arange(40).repeat_interleave(2))
    fold = dealt_folds(views, 4, torch.Generator().manual_seed(0))
    logits, judged = held_out_logits(views, 2, 0.01, fold, original_weight=0.5)
    assert torch.equal(judged.label, views.label)
    assert view_figures(logits, judged).original.accuracy < 0.75
    seen = fit_logistic(views, 2, 0.01).logits(views.embedding)
    assert view_figures(seen, views).original.accuracy == 1.0
    for number in range(4):
        rest = views.at((fold != number).nonzero().flatten())
        expected = fit_logistic(rest, 2, 0.01, original_weight=0.5).logits(views.embedding)[:, fold == number]
        assert torch.allclose(logits[:, fold == number], expected)


def test_a_cooled_head_divides_its_logits():
    head = LinearHead(torch.rand(2, 3, dtype=torch.float64), torch.rand(2, dtype=torch.float64))
    x = torch.rand(4, 3, dtype=torch.float64)
    assert torch.allclose(cooled(head, 2.5).logits(x), head.logits(x) / 2.5)
