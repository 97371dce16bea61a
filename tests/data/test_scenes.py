"""Drawn scenes: shape, determinism, and that a category can be told while its pictures differ."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.data import SCENE_CATEGORIES, draw_scenes


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(60, 32)


def test_shape_and_labels(scenes):
    assert scenes.images.shape == (600, 3, 32, 32)
    assert scenes.images.dtype == torch.uint8
    assert scenes.labels.tolist() == [c for c in range(10) for _ in range(60)]
    assert scenes.names == SCENE_CATEGORIES
    assert len(set(SCENE_CATEGORIES)) == 10


@pytest.mark.parametrize("size", [8, 33, (48, 20), 224])
def test_any_size(size):
    height, width = (size, size) if isinstance(size, int) else size
    images = draw_scenes(2, size).images
    assert images.shape == (20, 3, height, width)
    assert images.float().std((1, 2, 3)).min() > 5, "every picture shows something"


def test_same_seed_same_pictures(scenes):
    assert torch.equal(draw_scenes(60, 32).images, scenes.images)
    assert not torch.equal(draw_scenes(60, 32, seed=1).images, scenes.images)
    before = torch.get_rng_state()
    draw_scenes(1, 16)
    assert torch.equal(before, torch.get_rng_state()), "the global random state is left alone"


def test_generator_replaces_the_seed():
    first, second = (draw_scenes(2, 16, generator=torch.Generator().manual_seed(5)).images for _ in range(2))
    assert torch.equal(first, second)
    generator = torch.Generator().manual_seed(5)
    draw_scenes(2, 16, generator=generator)
    assert not torch.equal(draw_scenes(2, 16, generator=generator).images, first)


def test_categories_by_name_and_number(scenes):
    two = draw_scenes(60, 32, categories=("desert", "sea"))
    assert two.names == ("desert", "sea")
    assert torch.equal(two.images[:60], scenes.images[scenes.labels == SCENE_CATEGORIES.index("desert")])
    assert draw_scenes(1, 16, categories=3).names == SCENE_CATEGORIES[:3]


def test_every_picture_differs(scenes):
    flat = scenes.images.flatten(1).float() / 255
    distance = torch.cdist(flat, flat)
    distance.fill_diagonal_(torch.inf)
    assert distance.min() > 1


def features(images):
    """Mean and spread of colour, edges and brightness in a 4 x 4 grid: what any small network sees at once."""
    x = images.float() / 255
    edges = torch.cat([x.diff(dim=2).abs()[..., :-1], x.diff(dim=3).abs()[:, :, :-1]], 1)
    grid = [torch.nn.functional.adaptive_avg_pool2d(part, 4).flatten(1) for part in (x, edges)]
    return torch.cat(grid, 1)


def test_a_network_could_tell_the_category(scenes):
    """Nearest neighbour on coarse features is right for new pictures: the category is a usable shortcut."""
    new = draw_scenes(40, 32, seed=9)
    known, asked = features(scenes.images), features(new.images)
    spread = known.std(0)
    nearest = torch.cdist(asked / spread, known / spread).argmin(1)
    accuracy = (scenes.labels[nearest] == new.labels).float()
    assert accuracy.mean() > 0.9
    assert min(accuracy[new.labels == c].mean() for c in range(10)) > 0.7


def test_colour_alone_does_not_give_it_away(scenes):
    """Mean colours overlap between categories: a shortcut, but not a constant."""
    mean = scenes.images.float().mean((2, 3))
    centres = torch.stack([mean[scenes.labels == c].mean(0) for c in range(10)])
    right = (torch.cdist(mean, centres).argmin(1) == scenes.labels).float().mean()
    assert right < 0.85


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 4}, r"size: expected at least 8 x 8, got 4"),
        ({"size": None}, r"size: expected at least 8 x 8, got None"),
        ({"n_per_category": 0}, r"n_per_category: expected a whole number of at least 1, got 0"),
        ({"categories": 11}, r"categories: expected 1 to 10 of them, got 11"),
        ({"categories": ["moon"]}, r"categories: expected different names out of sky, .*got 'moon'"),
        ({"categories": ["sea", "sea"]}, r"categories: expected different names"),
        ({"categories": []}, r"categories: expected different names"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        draw_scenes(**({"n_per_category": 1, "size": 16} | arguments))
