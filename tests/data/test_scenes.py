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


#: of 40 pictures of 48 x 48: colours of the upper, middle and lower third, and how much neighbours and pixels differ
LOOKS = {
    "sky": (0.6509, 0.7151, 0.7566, 0.7109, 0.7432, 0.7639, 0.7969, 0.7941, 0.8012, 0.0216, 0.0234, 0.0866),
    "sea": (0.5252, 0.2954, 0.2519, 0.6526, 0.525, 0.483, 0.7763, 0.6345, 0.5883, 0.0204, 0.074, 0.1482),
    "meadow": (0.475, 0.3429, 0.3424, 0.586, 0.4649, 0.4588, 0.5219, 0.207, 0.2043, 0.0657, 0.0529, 0.1585),
    "forest": (0.2804, 0.2592, 0.275, 0.3213, 0.2973, 0.2649, 0.1831, 0.1749, 0.1644, 0.0501, 0.0325, 0.088),
    "brick_wall": (0.5861, 0.5934, 0.5994, 0.4178, 0.4216, 0.4261, 0.3641, 0.3664, 0.371, 0.0509, 0.0789, 0.1086),
    "wooden_floor": (0.5449, 0.5429, 0.543, 0.3887, 0.3873, 0.3874, 0.2508, 0.2498, 0.2496, 0.0556, 0.0359, 0.0675),
    "checker_floor": (0.5276, 0.5404, 0.5322, 0.4901, 0.488, 0.4864, 0.4683, 0.4701, 0.4707, 0.0846, 0.1107, 0.2254),
    "night_city": (0.108, 0.2357, 0.2529, 0.1074, 0.2153, 0.2392, 0.1777, 0.2676, 0.2667, 0.0845, 0.0819, 0.1512),
    "desert": (0.6177, 0.6707, 0.7223, 0.6462, 0.5099, 0.5309, 0.6775, 0.3609, 0.3514, 0.0242, 0.0315, 0.1447),
    "snow": (0.6053, 0.6654, 0.8072, 0.7134, 0.6846, 0.8188, 0.8361, 0.714, 0.8327, 0.0431, 0.0379, 0.1646),
}


def test_pictures_stay_what_they_are():
    """The figures of the demo and of experiments hang on them, so no picture may change by the way."""
    pictures = (draw_scenes(40, 48).images.double() / 255).reshape(len(LOOKS), 40, 3, 48, 48)
    thirds = torch.nn.functional.adaptive_avg_pool2d(pictures.flatten(0, 1), (3, 1)).reshape(len(LOOKS), 40, 9).mean(1)
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((1, 2, 3, 4))
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean((1, 2, 3, 4))
    looks = torch.cat([thirds, torch.stack([across, down, pictures.std((3, 4)).mean((1, 2))], 1)], 1)
    assert looks == pytest.approx(torch.tensor(list(LOOKS.values()), dtype=torch.float64), abs=3e-4)
