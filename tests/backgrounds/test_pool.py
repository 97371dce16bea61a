"""One pool, whatever backgrounds come from, and one conversion to an image's units, size and place."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank, StreamedBackgroundBank
from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.pool import Pool, as_pool
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.data import CorrelatedBackgrounds, make_variant
from torch_bgdebias.metrics import adversarial_background_accuracy
from torch_bgdebias.probe.passes.gathering import BackgroundPool
from torch_bgdebias.swap import BackgroundSwap

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def by_hand(values: torch.Tensor) -> torch.Tensor:
    """Normalised, from values in [0, 1]."""
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.fixture
def raw(generator):
    return torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8, generator=generator)


LIKE = torch.full((1, 3, 6, 8), -1.0)  # a normalised image


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (lambda raw: BackgroundBank(raw, mean=MEAN, std=STD), {}),
        (lambda raw: BackgroundBank(raw.float() / 255, mean=MEAN, std=STD), {}),  # a float bank is normalised too
        (lambda raw: BackgroundBank(by_hand(raw / 255)), {}),
        (lambda raw: BackgroundBank(raw), {"mean": MEAN, "std": STD}),  # bytes follow the images
        (lambda raw: raw, {"mean": MEAN, "std": STD}),
        (lambda raw: by_hand(raw / 255), {"mean": MEAN, "std": STD}),  # floats are in the images' units already
        (lambda raw: BackgroundBank(raw, mean=MEAN, std=STD), {"mean": (0.0,) * 3, "std": (9.0,) * 3}),  # its own first
        (lambda raw: SimpleNamespace(images=raw, labels=None), {"mean": MEAN, "std": STD}),
        (lambda raw: SimpleNamespace(images=raw, labels=None, mean=list(MEAN), std=list(STD)), {}),
    ],
)
def test_every_source_gives_the_same_pixels(raw, source, options):
    pool = as_pool(source(raw), **options)
    index = torch.tensor([3, 0, -1])
    torch.testing.assert_close(pool.take(index, LIKE), by_hand(raw[[3, 0, 0]] / 255))
    half = pool.take(index, LIKE.half())
    assert half.dtype == torch.float16
    assert as_pool(pool) is pool


def test_the_swap_the_probe_and_the_metric_see_the_same_float_bank_with_mean_and_std(raw):
    """The probe and the adversarial metric took a float bank's pixels as they were."""
    bank = BackgroundBank(raw.float() / 255, torch.arange(4), mean=MEAN, std=STD)
    expected = by_hand(raw.float() / 255)
    image, empty = LIKE.expand(4, -1, -1, -1), torch.zeros(4, 1, 6, 8)
    swap = BackgroundSwap(bank)
    swapped = swap(image, mask=empty)
    torch.testing.assert_close(swapped, expected[swap.drawn["index"][:, 0]])
    rows = torch.tensor([2, 1]).numpy()
    torch.testing.assert_close(
        BackgroundPool.of(bank, mean=(0.0,) * 3, std=(1.0,) * 3).take(rows, LIKE), expected[[2, 1]]
    )
    dot = torch.zeros(4, 1, 6, 8)
    dot[:, :, 0, 0] = 1
    made = make_variant(image, dot, torch.arange(4), "mixed_same", backgrounds=bank)
    torch.testing.assert_close(made.image[..., 1:], expected[..., 1:])


def test_sizes_masks_and_lists_of_pictures(raw, generator):
    like = torch.rand(2, 3, 3, 4, generator=generator)
    smaller = as_pool(raw).take(torch.arange(4), like)
    expected = torch.nn.functional.interpolate(raw / 255, (3, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(smaller, expected)
    masks = torch.zeros(4, 1, 6, 8)
    masks[:, :, 2:4, 2:5] = 1
    masks[3] = 1
    pool = as_pool(raw, masks=masks)
    assert pool.usable.tolist() == [True, True, True, False]
    filled = pool.take(torch.arange(3), LIKE.abs())
    torch.testing.assert_close(filled, tile_fill(raw[:3] / 255, masks[:3]))
    pictures = Pool([raw[0] / 255, raw[1, :, :3, :4] / 255])
    torch.testing.assert_close(pictures.take(torch.tensor([1, 0]), like)[0], raw[1, :, :3, :4] / 255)


def test_bytes_beside_normalised_images_are_warned_of(raw):
    text = r"uint8 backgrounds without mean and std are in \[0, 1\], .*pass the images' mean= and std= to the bank"
    pool = as_pool(BackgroundBank(raw))
    with pytest.warns(UserWarning, match=f"backgrounds: {text}"):
        pool.take(torch.tensor([0]), LIKE)
    with pytest.warns(UserWarning, match=text):
        make_variant(LIKE, torch.eye(6, 8)[None], torch.tensor([0]), "mixed_rand", backgrounds=raw)
    with pytest.warns(UserWarning, match=f"bank: {text}"):
        BackgroundSwap(BackgroundBank(raw))(LIKE, mask=torch.zeros(1, 1, 6, 8))
    slightly_outside = torch.full((1, 3, 6, 8), -0.2)  # what resizing and noise make of [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.take(torch.tensor([0]), slightly_outside)
        make_variant(LIKE, torch.eye(6, 8)[None], torch.tensor([0]), "mixed_rand", backgrounds=raw, mean=MEAN, std=STD)
        BackgroundSwap(BackgroundBank(raw, mean=MEAN, std=STD))(LIKE, mask=torch.zeros(1, 1, 6, 8))


def test_black_of_normalised_images_needs_their_mean():
    arguments = (LIKE, torch.eye(6, 8)[None], torch.tensor([0]))
    for name in ("only_fg", "only_bg_b", "no_fg"):
        with pytest.warns(
            UserWarning, match=r"image: pixels reach far out of \[0, 1\].* 0 is not black; pass the mean="
        ):
            make_variant(*arguments, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_variant(*arguments, "only_bg_t")
        make_variant(*arguments, "only_fg", mean=MEAN, std=STD)


def test_bad_sources_are_named(raw):
    with pytest.raises(TypeError, match="bank: expected uint8 or float images .* got str 'scenes'"):
        as_pool("scenes", name="bank")
    with pytest.raises(TypeError, match="backgrounds: expected uint8 or float images .* got int64"):
        as_pool(raw.long())
    with pytest.raises(ValueError, match=r"backgrounds: expected shape \(N, C, H, W\)"):
        as_pool(raw[0])
    with pytest.raises(ValueError, match="backgrounds: expected at least one image, got none"):
        as_pool(raw[:0])
    with pytest.raises(ValueError, match="backgrounds: expected 1 channels like the images, got 3"):
        as_pool(raw).take(torch.tensor([0]), torch.rand(1, 1, 6, 8))
    with pytest.raises(ValueError, match="mean, std: expected both or none"):
        as_pool(raw, mean=MEAN)


# forbidden lists


@pytest.fixture
def restricted(raw):
    """Class 0 must not stand on images 0, 1 and 2, class 1 not on image 3."""
    bank = BackgroundBank(raw, torch.tensor([0, 1, 1, 0]))
    bank.forbid(ForbiddenPairs(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1]), torch.arange(4)))
    return bank


def test_lists_by_foreground_class_are_obeyed_everywhere(raw, restricted, generator):
    assert as_pool(restricted).allowed(torch.tensor([0, 1, 7])).tolist() == [
        [False, False, False, True],
        [True, True, True, False],
        [True, True, True, True],
    ]
    image = torch.rand(60, 3, 6, 8, generator=generator)
    mask, label = torch.zeros(60, 1, 6, 8), torch.arange(60) % 2
    mask[:, :, 2:4, 2:5] = 1
    for name in ("mixed_rand", "mixed_same", "mixed_next"):
        made = make_variant(image, mask, label, name, backgrounds=restricted, num_classes=2, generator=generator)
        for new, own, valid in zip(made.image, label.tolist(), made.valid.tolist(), strict=True):
            same = [bool(torch.equal(new[:, 0], picture[:, 0] / 255)) for picture in raw]
            assert not valid or (same.index(True) == 3) is (own == 0)
    assert not made.valid[label == 0].any()  # class 0 may stand on image 3 alone, which is of its own class
    pool = BackgroundPool.of(restricted)
    ids = torch.arange(60).numpy().astype("uint64")
    rows = pool.choose("mixed_rand", ids, label.tolist(), num_classes=2, seed=0)
    assert set(rows[0::2].tolist()) == {3}
    assert set(rows[1::2].tolist()) == {0, 1, 2}
    data = CorrelatedBackgrounds(
        [(image[i], i % 2, mask[i]) for i in range(40)], restricted, correlation=0.0, mapping=[0, 1]
    )
    with pytest.raises(
        ValueError, match="bank: expected a background of category 1 for class 0, its filters leave none"
    ):
        [data[i] for i in range(40)]


def test_a_background_that_a_filter_forbids_fools_nobody(restricted):
    class OnBlack(torch.nn.Module):
        """Says class 1 on image 0, else class 0."""

        def forward(self, image):
            on_first = (image[:, :, 0, 0] - restricted.images[0, :, 0, 0] / 255).abs().amax(1) < 1e-6
            return torch.stack([~on_first, on_first], 1).float()

    image, mask = torch.rand(2, 3, 6, 8), torch.zeros(2, 1, 6, 8)
    mask[:, :, 3, 3] = 1
    label = torch.tensor([0, 7])
    survived = adversarial_background_accuracy(OnBlack(), image[:1], mask[:1], label[:1], restricted)
    assert survived.robust.tolist() == [True]
    assert survived.tried.tolist() == [4]
    restricted.forbidden_pairs = None
    assert adversarial_background_accuracy(
        OnBlack(), image[:1], mask[:1], label[:1], restricted
    ).fooled_by.tolist() == [0]


def test_a_subset_keeps_all_that_is_known(restricted, tmp_path):
    """It dropped lists and filters: a bank made careful by `filter` forgot it."""

    def darkness(image):
        return torch.stack([image.mean((1, 2, 3)) - 2, -image.mean((1, 2, 3))], 1)

    restricted.mean, restricted.std = torch.tensor(MEAN), torch.tensor(STD)
    restricted = restricted.filter(darkness, {5: ["light"]}, 1, class_names=["light", "dark"])
    assert len(restricted.filters) == 1
    for index in (torch.tensor([3, 1]), torch.tensor([False, True, False, True])):
        part = restricted.subset(index)
        assert part.filters == restricted.filters
        assert torch.equal(part.mean, restricted.mean)
        place = 0 if part.labels.tolist() == [0, 1] else 1  # where image 3 is
        draws = part.draw(200, foreground_labels=torch.zeros(200, dtype=torch.int64))
        assert set(draws.tolist()) == {place}
        assert set(part.draw(200, foreground_labels=torch.ones(200, dtype=torch.int64)).tolist()) == {1 - place}
        part.save(tmp_path / "part.pt")
        again = BackgroundBank.load(tmp_path / "part.pt")
        assert again.filters == part.filters
        assert torch.equal(again.mean, part.mean)
        assert all(torch.equal(a, b) for a, b in zip(again.forbidden_pairs, part.forbidden_pairs, strict=True))
    whole = restricted.subset(torch.arange(4))
    assert whole.images.data_ptr() != restricted.images.data_ptr()
    assert isinstance(whole, BackgroundBank)
    assert not isinstance(whole, StreamedBackgroundBank)
