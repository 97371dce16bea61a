"""One pool, whatever backgrounds come from, and one conversion to an image's units, size and place."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.pool import Cells, Pool, as_pool
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.data import make_variant
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
        (lambda raw: BackgroundBank(raw, mean=MEAN, std=STD), {"mean": MEAN, "std": STD}),  # and not twice
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
    torch.testing.assert_close(BackgroundPool.of(bank, mean=MEAN, std=STD).take(rows, LIKE), expected[[2, 1]])
    dot = torch.zeros(4, 1, 6, 8)
    dot[:, :, 0, 0] = 1
    variant = make_variant(image, dot, torch.arange(4), "mixed_same", backgrounds=bank)
    torch.testing.assert_close(variant.image[..., 1:], expected[..., 1:])


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_what_the_operator_reads_is_what_take_gives(raw, kind):
    """One formula scales and normalises, whether pixels are taken or read while tiling and cropping: equal bits."""
    pool = as_pool(BackgroundBank(raw if kind == "bytes" else raw.float() / 255, mean=MEAN, std=STD))
    image, nothing = torch.full((3, 3, 6, 8), -1.0), torch.zeros(3, 1, 6, 8)
    index = torch.tensor([2, 0, 3])
    here = Cells(torch.full((3, 1, 2), 3.0), index[:, None], torch.zeros(3, 1, 2, dtype=torch.int64))
    assert torch.equal(pool.composite(image, nothing, here), pool.take(index, image))
    moved = Cells(here.sites, here.index, torch.tensor([[[1, 5]]]).expand(3, 1, 2))
    assert torch.equal(pool.composite(image, nothing, moved), pool.take(index, image).roll((-1, -5), (2, 3)))
    assert torch.equal(pool.composite(image, 1 - nothing, here), image)
    with pytest.raises(ValueError, match="backgrounds: expected images of one size without foregrounds for cells"):
        as_pool(raw, masks=nothing[:1].expand(4, 1, 6, 8)).composite(image, nothing, here)


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


def test_bytes_beside_normalised_images_are_refused(raw):
    text = (
        r"uint8 without mean and std stands for \[0, 1\], but the images' pixels reach from .* pass the images' mean="
    )
    pool = as_pool(BackgroundBank(raw))
    with pytest.raises(ValueError, match=f"backgrounds: {text}"):
        pool.take(torch.tensor([0]), LIKE)
    with pytest.raises(ValueError, match=text):
        make_variant(LIKE, torch.eye(6, 8)[None], torch.tensor([0]), "mixed_rand", backgrounds=raw)
    with pytest.warns(UserWarning, match=f"bank: {text}"):  # a training goes on
        BackgroundSwap(BackgroundBank(raw))(LIKE, mask=torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match=text):
        BackgroundPool(pool).take(np.array([0]), LIKE)
    slightly_outside = torch.full((1, 3, 6, 8), -0.2)  # what resizing and noise make of [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.take(torch.tensor([0]), slightly_outside)
        make_variant(LIKE, torch.eye(6, 8)[None], torch.tensor([0]), "mixed_rand", backgrounds=raw, mean=MEAN, std=STD)
        BackgroundSwap(BackgroundBank(raw, mean=MEAN, std=STD))(LIKE, mask=torch.zeros(1, 1, 6, 8))


def test_floats_in_01_beside_normalised_images_are_noticed(raw):
    pictures = raw / 255
    text = r"backgrounds: float pixels from .* look like pictures in \[0, 1\], but the images' .* or normalise them"
    with pytest.warns(UserWarning, match=text):
        as_pool(pictures).take(torch.tensor([0]), LIKE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_pool(pictures).take(torch.tensor([0]), LIKE.sigmoid())
        as_pool(torch.full_like(pictures, 0.3)).take(torch.tensor([0]), LIKE)  # one colour may be any, normalised
        as_pool((pictures - 0.5) / 0.25).take(torch.tensor([0]), LIKE)
        as_pool(BackgroundBank(pictures, mean=[0.5] * 3, std=[0.25] * 3)).take(torch.tensor([0]), LIKE)
        Pool([pictures[0]], own=True).take(torch.tensor([0]), LIKE)


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


def test_labels_take_the_numbers_of_classes_of_the_same_name(raw):
    bank = BackgroundBank(raw, torch.tensor([0, 1, 2, 1]), classes=["Sea-side", "alley", "car"])
    moved = as_pool(bank).in_classes(["car", "dog", "sea side"])
    assert moved.labels.tolist() == [2, 4, 0, 4]
    assert as_pool(bank, labels=bank.labels).in_classes(["car", "dog", "sea side"]).labels.tolist() == [0, 1, 2, 1]
    assert as_pool(BackgroundBank(raw, bank.labels)).in_classes(["car"]).labels.tolist() == [0, 1, 2, 1]
