from __future__ import annotations

import itertools
import math

import hostile
import pytest
import torch
from torch import nn

from torch_bgdebias.attribution import kernel_shap, sample_coalitions, superpixels
from torch_bgdebias.attribution.kernel_shap import shapley_weight


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes),
    )  # fmt: skip


def exact_shapley(score, image, segment, baseline):
    """Shapley's own definition: the mean marginal contribution, one coalition at a time."""
    features = int(segment.max()) + 1

    def value(present):
        keep = torch.tensor([i in present for i in range(features)])[segment]
        return float(score(torch.where(keep, image, baseline)[None]))

    phi = torch.zeros(features)
    for i in range(features):
        rest = [j for j in range(features) if j != i]
        for k in range(features):
            weight = math.factorial(k) * math.factorial(features - k - 1) / math.factorial(features)
            for subset in itertools.combinations(rest, k):
                phi[i] += weight * (value({*subset, i}) - value(set(subset)))
    return phi


def test_all_coalitions_give_the_exact_shapley_values():
    model, image = network().eval(), torch.rand(2, 3, 9, 12)
    segment = superpixels((9, 12), (2, 3))
    shap = kernel_shap(model, image, 1, segments=(2, 3), samples=10**6, baseline="mean", chunk=7)
    with torch.no_grad():
        for b in range(2):
            mean = image[b].mean((1, 2), keepdim=True).expand(3, 9, 12)
            expected = exact_shapley(lambda x: model(x)[0, 1], image[b], segment, mean)
            assert torch.allclose(shap.values[b], expected, atol=1e-5)
    assert torch.allclose(shap.base + shap.values.sum(1), shap.score, atol=1e-5)
    assert torch.equal(shap.attribution[0, 0], shap.values[0][segment])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("baseline", ["mean", "black", "pool"])
def test_the_model_sees_the_images_memory_format(layout, baseline):
    model, seen = network(), []
    image = torch.rand(4, 3, 9, 12)
    against = torch.rand(7, 3, 9, 12) if baseline == "pool" else baseline
    options = {"segments": (2, 3), "samples": 62, "baseline": against, "chunk": 50}
    expected = kernel_shap(model, image, 1, **options, generator=torch.Generator().manual_seed(0))
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=layout)))
    shap = kernel_shap(model, image.to(memory_format=layout), 1, **options, generator=torch.Generator().manual_seed(0))
    assert len(seen) > 4
    assert all(seen[2:])  # the first two passes: the images themselves, and their baseline
    assert torch.allclose(shap.values, expected.values, atol=1e-5)


def test_agrees_with_captum_on_the_same_coalitions():
    captum = pytest.importorskip("captum.attr", reason="captum is the oracle")
    model, image = network().eval(), torch.rand(3, 3, 16, 16)
    segment = superpixels((16, 16), (4, 4))
    coalitions = sample_coalitions(16, 200, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 2, 1])
    shap = kernel_shap(model, image, target, segments=(4, 4), coalitions=coalitions, baseline="black")
    for b in range(3):
        oracle = captum.KernelShap(model)

        def ours(*args, **kwargs):
            yield torch.zeros(1, 16)
            yield torch.ones(1, 16)
            yield from coalitions.float()[:, None]

        oracle.perturb_func = ours
        expected = oracle.attribute(
            image[b : b + 1], target=int(target[b]), feature_mask=segment[None, None], n_samples=202
        )[0, :1]
        assert torch.allclose(shap.attribution[b], expected, atol=2e-4)


def test_many_drawn_coalitions_come_near_the_exact_values():
    model, image = network().eval(), torch.rand(4, 3, 12, 12)
    exact = kernel_shap(model, image, 0, segments=(3, 3), samples=2**9)
    drawn = kernel_shap(model, image, 0, segments=(3, 3), samples=400, generator=torch.Generator().manual_seed(0))
    assert (drawn.values - exact.values).norm() < 0.1 * exact.values.norm()


def test_chunks_batches_and_generators_change_nothing():
    model, image = network(), torch.rand(5, 3, 14, 14)
    model.train()
    modes = [m.training for m in model.modules()]
    shaps = [
        kernel_shap(model, image, segments=(7, 7), samples=200, chunk=chunk, generator=torch.Generator().manual_seed(3))
        for chunk in (1000, 13)
    ]
    assert torch.allclose(shaps[0].values, shaps[1].values, atol=1e-5)
    alone = kernel_shap(model, image[2:3], segments=(7, 7), samples=200, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(alone.values[0], shaps[0].values[2], atol=1e-5)
    assert [m.training for m in model.modules()] == modes


def test_a_pool_of_baselines_averages_over_it():
    model, image, pool = network().eval(), torch.rand(1, 3, 8, 8), torch.rand(6, 3, 8, 8)
    shap = kernel_shap(model, image, 0, segments=(2, 2), baseline=pool, samples=14)
    with torch.no_grad():
        assert torch.allclose(shap.base, model(pool)[:, 0].mean())
    assert torch.allclose(shap.base + shap.values.sum(1), shap.score, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 7), (10, 13), (224, 200)])
def test_superpixels_tile_the_image(size):
    segment = superpixels(size, (7, 7))
    counts = segment.flatten().bincount()
    assert len(counts) == 49
    assert counts.min() >= (size[0] // 7) * (size[1] // 7)
    assert counts.sum() == size[0] * size[1]


def test_coalitions():
    every = sample_coalitions(4, 100)
    assert len(every.unique(dim=0)) == 14
    assert shapley_weight(every).sum() == pytest.approx(sum(3 / (k * (4 - k)) for k in (1, 2, 3)))
    drawn = sample_coalitions(49, 1000, generator=torch.Generator().manual_seed(0))
    sizes = drawn.sum(1)
    assert drawn.shape == (1000, 49)
    assert sizes.min() >= 1
    assert sizes.max() <= 48
    assert (sizes.float().mean() - 24.5).abs() < 1e-4  # a coalition and its complement
    assert (sizes == 1).float().mean() > (sizes == 20).float().mean()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"segments": (40, 2)}, "grid: expected between"),
        ({"segments": torch.zeros(4, 4, dtype=torch.long)}, r"segments: expected int64 \(H, W\)"),
        ({"samples": 6, "segments": (4, 4)}, "6 coalitions do not determine 16 superpixels"),
        ({"baseline": "noise"}, "baseline: expected one of 'mean', 'blur', 'black', got 'noise'"),
        ({"baseline": torch.zeros(3, 5, 5)}, r"baseline: expected 'mean'.*\(N, 3, 8, 8\).*\(3, 5, 5\)"),
        ({"target": 7}, r"target: expected classes in \[0, 2\], got \[7, 7\]"),
        ({"samples": 1}, "samples: expected a whole number of at least 2, got 1"),
    ],
)
def test_bad_input(change, text):
    with pytest.raises(ValueError, match=text):
        kernel_shap(network(), torch.rand(1, 3, 8, 8), **{"segments": (2, 2), **change})


@pytest.mark.parametrize("baseline", ["mean", "blur", "black"])
def test_constant_image_has_no_attribution_where_nothing_changes(baseline):
    image = torch.zeros(1, 3, 8, 8)
    shap = kernel_shap(network(), image, 0, segments=(2, 2), baseline=baseline)
    assert shap.values.abs().max() < 1e-6


@pytest.mark.parametrize("numbers", [(0, 1, 2), (1, 2, 3), (-4, 7, 90)])
def test_superpixels_may_have_any_numbers(numbers):
    """A linear model's values are the sums of its weights times pixels over each superpixel."""
    torch.manual_seed(0)
    linear, image = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 9, 2)), torch.rand(2, 3, 6, 9)
    segment = torch.full((6, 9), numbers[0])
    segment[:, 4:], segment[4:, 4:] = numbers[1], numbers[2]
    parts = (linear[1].weight[1].reshape(3, 6, 9) * image).sum(1)
    expected = torch.stack([parts[:, segment == number].sum(1) for number in numbers], 1)
    result = kernel_shap(linear, image, 1, segments=segment, samples=20, baseline="black")
    torch.testing.assert_close(result.values, expected.detach(), atol=1e-4, rtol=0)


@hostile.wrong(image=hostile.IMAGES)
def test_wrong_images_are_named(wrong):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    wrong.refused_by(
        lambda image: kernel_shap(model, image, 0, segments=(2, 2), samples=14), image=torch.rand(2, 3, 8, 8)
    )


def test_logits_that_are_not_finite_are_named():
    """They are no business of the solver's, whose own error would say nothing."""

    def dark_is_unknown(image):
        return torch.where(image.mean((1, 2, 3), keepdim=True)[..., 0, 0] < 0.36, torch.nan, torch.ones(len(image), 2))

    image = torch.full((2, 3, 8, 8), 0.5)
    with pytest.raises(ValueError, match="logits of images with superpixels taken away: expected finite values"):
        kernel_shap(dark_is_unknown, image, 0, segments=(2, 2), samples=14, baseline=torch.full((3, 8, 8), 0.31))
    with pytest.raises(ValueError, match=r"logits: expected finite values, got NaN or infinity in sample"):
        kernel_shap(lambda image: torch.full((len(image), 2), torch.nan), image, 0, segments=(2, 2), samples=14)


def test_probabilities_of_a_network_that_ends_in_a_softmax_are_explained_once():
    image, options = torch.rand(2, 3, 9, 12), {"segments": (2, 3), "samples": 10**6, "probability": True}
    expected = kernel_shap(network().eval(), image, 1, **options)
    explained = kernel_shap(nn.Sequential(network(), nn.Softmax(1)).eval(), image, 1, **options)
    torch.testing.assert_close(explained.values, expected.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coalitions", [sample_coalitions(6, 62), sample_coalitions(3, 6), torch.eye(4)])
def test_coalitions_are_of_the_superpixels(coalitions):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    with pytest.raises(ValueError, match=r"coalitions: expected bool \(S, 4\), got (bool|float32) tensor of shape"):
        kernel_shap(model, torch.rand(1, 3, 4, 4), segments=(2, 2), coalitions=coalitions)
