"""`CorrelatedBackgrounds`: the share of assigned backgrounds, determinism, camera levels, and bad input."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from torch_bgdebias.data import CAMERAS, Camera, CorrelatedBackgrounds, MaskedTensors
from torch_bgdebias.data.correlated import _generator

K = 4


def foregrounds(n=400, size=16, classes=K):
    """Red squares whose row of the picture says the class."""
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8)
    masks = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    masks[:, :, 4:12, 5:11] = 255
    images[:, 0] = 200
    return MaskedTensors(images, torch.arange(n) % classes, masks).dataset()


def bank(size=16, per=3):
    """Pictures of one grey level each: 10 * category + number within the category."""
    labels = torch.arange(K).repeat_interleave(per)
    levels = (10 * labels + torch.arange(per).repeat(K)).to(torch.uint8)
    return SimpleNamespace(images=levels.view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous(), labels=labels)


def categories(data):
    return torch.tensor([data[i][3] for i in range(len(data))]), torch.tensor([data[i][1] for i in range(len(data))])


def test_item_is_the_foreground_over_a_background_of_the_said_category():
    data = CorrelatedBackgrounds(foregrounds(), bank(), 0.5)
    for i in (0, 1, 57, 399):
        image, label, cover, category = data[i]
        assert (image.shape, image.dtype) == ((3, 16, 16), torch.float32)
        assert label == i % K
        torch.testing.assert_close(image[:, 4:12, 5:11], torch.tensor([200 / 255, 0, 0]).view(3, 1, 1).expand(3, 8, 6))
        ground = image[:, 0, 0] * 255
        assert int(ground[0].round()) // 10 == category
        torch.testing.assert_close(image[:, cover[0] == 0] * 255, ground[:, None].expand(-1, 256 - 48))


@pytest.mark.parametrize(("correlation", "expected"), [(1.0, 1.0), (0.5, 0.5 + 0.5 / K), (0.0, 1 / K)])
def test_share_of_the_assigned_category(correlation, expected):
    got, label = categories(CorrelatedBackgrounds(foregrounds(2000), bank(), correlation))
    share = (got == label).float().mean()
    assert abs(share - expected) <= 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_at_zero_the_background_says_nothing():
    got, label = categories(CorrelatedBackgrounds(foregrounds(4000), bank(), 0.0, seed=3))
    table = torch.zeros(K, K).index_put_((label, got), torch.ones(4000), accumulate=True)
    expected = 4000 / K**2
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert chi2 < 37.7, "15 degrees of freedom, one in a thousand"


def test_every_background_of_a_category_is_used_alike():
    data = CorrelatedBackgrounds(foregrounds(1200), bank(), 1.0)
    level = torch.stack([(data[i][0][0, 0, 0] * 255).round().int() for i in range(1200)])
    counts = level.bincount()[[10 * c + j for c in range(K) for j in range(3)]]
    assert counts.sum() == 1200
    assert counts.min() > 65
    assert counts.max() < 140


def test_higher_correlation_changes_only_what_it_must():
    """The same seed at 0.3 and 0.9: whoever had the assigned category at 0.3 has it at 0.9."""
    low, label = categories(CorrelatedBackgrounds(foregrounds(), bank(), 0.3))
    high, _ = categories(CorrelatedBackgrounds(foregrounds(), bank(), 0.9))
    assert ((low == high) | (high == label)).all()


@pytest.mark.parametrize("camera", [None, *CAMERAS])
def test_item_depends_on_seed_epoch_and_index_alone(camera):
    data = CorrelatedBackgrounds(foregrounds(), bank(), 0.5, camera, seed=7)
    again = CorrelatedBackgrounds(foregrounds(), bank(), 0.5, camera, seed=7)
    torch.manual_seed(1)
    order = [5, 300, 5, 17]
    first = [data[i] for i in order]
    torch.manual_seed(2)
    for i, item in zip(reversed(order), reversed(first), strict=True):
        other = again[i]
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(item, other, strict=True))
    assert torch.equal(data[-1][0], data[399][0])


def test_seed_and_epoch_change_the_draws():
    data = CorrelatedBackgrounds(foregrounds(), bank(), 0.0)
    first, _ = categories(data)
    data.set_epoch(1)
    second, _ = categories(data)
    assert data.epoch == 1
    data.set_epoch(0)
    third, _ = categories(data)
    other, _ = categories(CorrelatedBackgrounds(foregrounds(), bank(), 0.0, seed=1))
    assert torch.equal(first, third)
    for changed in (second, other):
        assert 0.1 < (changed == first).float().mean() < 0.4, "independent draws agree on a quarter"


def test_workers_give_the_same_items_and_follow_the_epoch():
    data = CorrelatedBackgrounds(foregrounds(64), bank(), 0.0, "medium")
    loader = DataLoader(data, batch_size=16, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        image, label, cover, category = (torch.cat(parts) for parts in zip(*loader, strict=True))
        alone = [torch.stack([torch.as_tensor(value) for value in part]) for part in zip(*data, strict=True)]
        for one, other in zip((image, label, cover, category), alone, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert category.dtype == torch.int64


def test_survives_pickling():
    data = CorrelatedBackgrounds(foregrounds(8), bank(), 0.5, "high")
    data.set_epoch(3)
    again = pickle.loads(pickle.dumps(data))
    assert again.epoch == 3
    assert torch.equal(again[2][0], data[2][0])


@pytest.mark.parametrize("mapping", [[2, 3, 0, 1], {0: 2, 1: 3, 2: 0, 3: 1}])
def test_mapping_by_class(mapping):
    got, label = categories(CorrelatedBackgrounds(foregrounds(), bank(), 1.0, mapping=mapping))
    assert torch.equal(got, (label + 2) % K)


def test_classes_wrap_around_the_known_categories():
    source = bank()
    source.labels = torch.tensor([-1] * 3 + [5] * 3 + [7] * 6)
    data = CorrelatedBackgrounds(foregrounds(400, classes=5), source, 1.0)
    assert data.categories == [5, 7]
    got, label = categories(data)
    assert torch.equal(got, torch.tensor([5, 7])[label % 2])


def test_camera_levels_move_the_foreground_more_and_more():
    plain = CorrelatedBackgrounds(foregrounds(100, 32), bank(32), 1.0)
    moved = {}
    for name in CAMERAS:
        data = CorrelatedBackgrounds(foregrounds(100, 32), bank(32), 1.0, name)
        moved[name] = float(torch.stack([(data[i][2] - plain[i][2]).abs().mean() for i in range(100)]).mean())
        for i in range(5):
            image, _, cover, category = data[i]
            assert category == plain[i][3], "the background is the same at every level"
            inside = image[:, cover[0] > 0.999]
            torch.testing.assert_close(
                inside, torch.tensor([200 / 255, 0, 0])[:, None].expand_as(inside), atol=1e-3, rtol=0
            )
            assert 0.2 * 48 < cover.sum() < 4 * 48
    assert 0 < moved["frontal"] < moved["medium"] < moved["high"]


def test_camera_of_zero_strength_changes_nothing():
    still = CorrelatedBackgrounds(foregrounds(4), bank(), 1.0, Camera(0, 0, 0, 0))
    plain = CorrelatedBackgrounds(foregrounds(4), bank(), 1.0)
    for i in range(4):
        torch.testing.assert_close(still[i][0], plain[i][0], atol=1e-4, rtol=0)


def test_camera_shift_and_turn_go_where_they_say():
    """A pure shift moves the mask's centre by at most the said share of the size; a pure turn leaves it in place."""
    shifted = CorrelatedBackgrounds(foregrounds(200, 32), bank(32), 1.0, Camera(0, 0, 0.1, 0))
    place = torch.arange(32).float() + 0.5
    away = []
    for i in range(200):
        cover = shifted[i][2][0]
        away.append(float((cover.sum(1) * place).sum() / cover.sum()) - 8.0)
    away = torch.tensor(away)
    assert away.abs().max() <= 3.2 + 0.05
    assert away.abs().max() > 2.8
    assert abs(away.mean()) < 0.5


@pytest.mark.parametrize(("size", "top", "left"), [((24, 20), 4, 2), (17, 0, 0)])
def test_foreground_keeps_its_size_in_the_middle(size, top, left):
    image, _, cover, _ = CorrelatedBackgrounds(foregrounds(1), bank(), 1.0, size=size)[0]
    height, width = (size, size) if isinstance(size, int) else size
    assert image.shape == (3, height, width)
    expected = torch.zeros(1, height, width)
    expected[:, top + 4 : top + 12, left + 5 : left + 11] = 1
    torch.testing.assert_close(cover, expected)


def test_foreground_that_does_not_fit_is_made_smaller():
    image, _, cover, _ = CorrelatedBackgrounds(foregrounds(1), bank(), 1.0, size=8)[0]
    assert image.shape == (3, 8, 8)
    assert cover.sum() == pytest.approx(48 / 4, rel=0.05)


def test_scale():
    half = CorrelatedBackgrounds(foregrounds(50), bank(), 1.0, scale=0.5)
    assert half[0][2].sum() == pytest.approx(12, rel=0.05)
    double = CorrelatedBackgrounds(foregrounds(50), bank(), 1.0, scale=2.0)
    assert double[0][0].shape == (3, 16, 16)
    assert double[0][2].sum() == pytest.approx(16 * 12, rel=0.05)
    drawn = CorrelatedBackgrounds(foregrounds(50), bank(), 1.0, scale=(0.5, 1.0))
    areas = torch.stack([drawn[i][2].sum() for i in range(50)])
    assert areas.min() >= 8
    assert areas.max() <= 49
    assert areas.std() > 5


def test_float_banks_and_other_sizes():
    source = bank(size=7)
    source.images = source.images.float() / 255
    image, _, cover, category = CorrelatedBackgrounds(foregrounds(), source, 1.0)[2]
    assert int((image[0, 0, 0] * 255).round()) // 10 == category == 2
    assert cover.sum() == 48


def test_empty_and_full_masks():
    data = foregrounds(2)
    data.masks[0], data.masks[1] = 0, 255
    correlated = CorrelatedBackgrounds(data, bank(), 1.0, "medium")
    assert correlated[0][0].max() < 0.2
    assert correlated[0][2].sum() == 0
    assert correlated[1][0].isfinite().all()


class Items(list):
    """A list of items as a data set."""


BANK = bank()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"correlation": 1.5}, ValueError, r"correlation: expected a number in \[0, 1\], got 1.5"),
        ({"correlation": float("nan")}, ValueError, r"correlation: expected a number in \[0, 1\], got nan"),
        ({"correlation": "all"}, ValueError, r"correlation: expected a number in \[0, 1\], got 'all'"),
        ({"camera": "low"}, ValueError, r"camera: expected one of 'frontal', 'medium', 'high', got 'low'"),
        ({"size": -3}, ValueError, r"size: expected a positive int"),
        ({"scale": 0.0}, ValueError, r"scale: expected a positive factor"),
        ({"scale": (1.0, 0.5)}, ValueError, r"scale: expected a positive factor or \(low, high\), got \(1.0, 0.5\)"),
        ({"mapping": [0, 9]}, ValueError, r"mapping: expected categories of the bank \(0, 1, 2, 3\), got \[9\]"),
        ({"bank": torch.zeros(3)}, ValueError, r"bank: expected shape \(N, C, H, W\)"),
        ({"bank": "scenes"}, TypeError, r"bank: expected uint8 or float images.*got str 'scenes'"),
        ({"bank": SimpleNamespace(images=BANK.images, labels=None)}, TypeError, r"bank: expected .labels.*got None"),
        ({"bank": SimpleNamespace(images=BANK.images, labels=BANK.labels[:2])}, ValueError, r"bank_labels: expected"),
        ({"bank": SimpleNamespace(images=BANK.images, labels=BANK.labels * 0 - 1)}, ValueError, r"of a known category"),
        (
            {"bank": SimpleNamespace(images=BANK.images[:0], labels=BANK.labels[:0])},
            ValueError,
            r"bank: expected at least one image, got none",
        ),
        ({"bank": SimpleNamespace(images=BANK.images * 1.0, labels=BANK.labels)}, ValueError, r"in \[0, 1\], not norm"),
        ({"backdrop": 1}, TypeError, "backdrop"),
    ],
)
def test_bad_arguments(change, error, text):
    with pytest.raises(error, match=text):
        CorrelatedBackgrounds(**({"foregrounds": foregrounds(4), "bank": bank()} | change))


@pytest.mark.parametrize(
    ("item", "error", "text"),
    [
        ((torch.zeros(3, 8, 8), 0), TypeError, r"foregrounds\[0\]: expected \(image, label, mask\), got tuple"),
        ((torch.zeros(3, 8, 8), 0, torch.zeros(8, 8)), TypeError, r"foregrounds\[0\]: expected mask as a float tensor"),
        ((torch.zeros(3, 8, 8, dtype=torch.uint8), 0, torch.zeros(1, 8, 8)), TypeError, r"expected image as a float"),
        ((torch.zeros(3, 8, 8), 0, torch.zeros(1, 8, 9)), ValueError, r"expected mask \(1, 8, 8\), got \(1, 8, 9\)"),
        (
            (torch.zeros(3, 8, 8), 0, torch.full((1, 8, 8), 2.0)),
            ValueError,
            r"foregrounds\[0\] mask: expected values in \[0, 1\]",
        ),
        (
            (torch.zeros(3, 8, 8) - 1, 0, torch.zeros(1, 8, 8)),
            ValueError,
            r"foregrounds\[0\] image: expected values in",
        ),
        (
            (torch.zeros(1, 8, 8), 0, torch.zeros(1, 8, 8)),
            ValueError,
            r"bank: expected 1 channels like the images, got 3",
        ),
    ],
)
def test_bad_items_are_named(item, error, text):
    with pytest.raises(error, match=text):
        CorrelatedBackgrounds(Items([item]), bank())[0]


def test_class_without_a_category_and_index_out_of_range():
    data = CorrelatedBackgrounds(foregrounds(8), bank(), mapping={0: 1})
    with pytest.raises(ValueError, match=r"mapping: expected a category for class 1, has 0"):
        data[1]
    with pytest.raises(IndexError, match=r"index: expected one of 8 items, got 8"):
        data[8]


def test_foregrounds_that_are_no_squares_keep_their_shape():
    """Twice as high as wide, made smaller until it fits, in the middle of a canvas of yet another shape."""
    images = torch.full((4, 3, 12, 6), 200, dtype=torch.uint8)
    masks = torch.full((4, 1, 12, 6), 255, dtype=torch.uint8)
    dataset = MaskedTensors(images, torch.arange(4), masks).dataset()
    image, _, cover, _ = CorrelatedBackgrounds(dataset, bank(), 0.5, size=(10, 9))[0]
    assert image.shape == (3, 10, 9)
    expected = torch.zeros(1, 10, 9)
    expected[:, :, 2:7] = 1
    assert torch.equal(cover.round(), expected)


def test_draws_stay_what_they_are():
    """The figures of experiments hang on them, so no draw may change by the way."""
    places = ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 5, 123456789, 3))
    assert [_generator(*place).initial_seed() for place in places] == [
        5132403644689456515, 6856515666493968477, 4040113189439442431, 4254417183290699473, 169049242422689715,
        2853961025160728912,
    ]  # fmt: skip


def test_sizes_and_cameras_stay_what_they_are():
    """As above: the share of each picture that its object covers."""
    data = CorrelatedBackgrounds(foregrounds(4), bank(), camera="medium", seed=3, size=24, scale=(0.5, 1.5))
    shares = [float(data[i][2].mean()) for i in range(4)]
    assert shares == pytest.approx([0.06165, 0.09953, 0.02525, 0.05261], abs=2e-5)
