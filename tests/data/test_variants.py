"""`make_variant` against a loop written from the paper's table, its statistics, and its answers to bad input."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import hostile
import pytest
import torch

from torch_bgdebias import BackgroundBank
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.data import VARIANTS, make_variant


def batch(labels=(0, 0, 1, 1, 2, 2), size=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    n = len(labels)
    image = torch.rand(n, 3, size, size, generator=g)
    mask = torch.zeros(n, 1, size, size)
    for i in range(n):
        mask[i, 0, 2 : 5 + i % 2, 3:6] = 1
        mask[i, 0, 2, 3] = 0  # the shape is not its box
    return image, mask, torch.tensor(labels)


def by_loop(image, mask, name, black):
    """The four variants without a partner, sample by sample and pixel by pixel, from the paper's table."""
    out = image.clone()
    height, width = image.shape[2:]
    for i in range(len(image)):
        ys, xs = torch.where(mask[i, 0] > 0)
        box = (ys.min().item(), ys.max().item(), xs.min().item(), xs.max().item())
        for y in range(height):
            for x in range(width):
                fg = bool(mask[i, 0, y, x] > 0)
                in_box = box[0] <= y <= box[1] and box[2] <= x <= box[3]
                if (name == "only_fg" and not fg) or (name == "only_bg_b" and in_box) or (name == "no_fg" and fg):
                    out[i, :, y, x] = black
    return out


@pytest.mark.parametrize("name", ["only_fg", "only_bg_b", "no_fg"])
@pytest.mark.parametrize("normalised", [False, True])
def test_black_variants_match_the_loop(name, normalised):
    image, mask, label = batch()
    mean, std = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)) if normalised else (None, None)
    black = torch.tensor([-0.5 / 0.2, -0.4 / 0.25, -0.3 / 0.3]) if normalised else torch.zeros(3)
    variant = make_variant(image, mask, label, name, mean=mean, std=std)
    torch.testing.assert_close(variant.image, by_loop(image, mask, name, black))
    assert variant.valid.all()
    assert variant.background_label.tolist() == ([-1] * 6 if name == "only_fg" else label.tolist())


def test_only_bg_t_removes_the_foreground():
    image, mask, label = batch()
    variant = make_variant(image, mask, label, "only_bg_t")
    torch.testing.assert_close(variant.image, tile_fill(image, mask))
    changed = image.clone()
    changed[:, :, 2:5, 3:6] = 0.123
    torch.testing.assert_close(make_variant(changed, mask, label, "only_bg_t").image[0], variant.image[0])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mixed_same", lambda c: {c}),
        ("mixed_rand", lambda c: {0, 1, 2}),
        ("mixed_next", lambda c: {(c + 1) % 3}),
    ],
)
def test_mixed_takes_another_image_of_the_wanted_class(name, wanted, generator):
    image, mask, label = batch()
    fills = tile_fill(image, mask)
    seen = [set() for _ in label]
    for _ in range(60):
        variant = make_variant(image, mask, label, name, generator=generator)
        assert variant.valid.all()
        for i in range(len(label)):
            outside = mask[i, 0] == 0
            torch.testing.assert_close(variant.image[i][:, ~outside], image[i][:, ~outside])
            partner = [j for j in range(6) if torch.equal(variant.image[i][:, outside], fills[j][:, outside])]
            assert len(partner) == 1, "the background is one image's tile-filled background"
            assert partner[0] != i, "never its own"
            assert int(label[partner[0]]) == int(variant.background_label[i])
            seen[i].add(int(variant.background_label[i]))
    assert seen == [wanted(int(c)) for c in label]


def test_mixed_rand_is_uniform_over_classes_whatever_their_sizes(generator):
    image, mask, label = batch(labels=(0,) * 4)
    pool_labels = torch.tensor([0] * 30 + [1] * 5 + [2] * 1)
    pool = torch.rand(36, 3, 8, 8)
    count = Counter()
    for _ in range(750):
        variant = make_variant(
            image, mask, label, "mixed_rand", backgrounds=pool, background_labels=pool_labels, generator=generator
        )
        count.update(variant.background_label.tolist())
    assert sum(count.values()) == 3000
    assert all(abs(count[c] - 1000) < 130 for c in range(3)), count  # five standard deviations


def test_excluded_image_is_never_taken_and_does_not_weigh(generator):
    image, mask, label = batch(labels=(0, 1))
    pool = torch.stack([torch.full((3, 8, 8), v) for v in (0.1, 0.2, 0.3)])
    exclude = torch.tensor([0, -1])
    for _ in range(50):
        variant = make_variant(
            image,
            mask,
            label,
            "mixed_rand",
            backgrounds=pool,
            background_labels=torch.tensor([0, 0, 1]),
            exclude=exclude,
            generator=generator,
        )
        assert float(variant.image[0, 0, 0, 0]) in (pytest.approx(0.2), pytest.approx(0.3))
    lonely = make_variant(
        image, mask, label, "mixed_rand", backgrounds=pool[:1], background_labels=torch.tensor([0]), exclude=exclude
    )
    assert lonely.valid.tolist() == [False, True]
    torch.testing.assert_close(lonely.image[0], image[0])


def test_no_partner_keeps_the_original_and_says_so():
    image, mask, label = batch(labels=(0, 0, 1))
    same = make_variant(image, mask, label, "mixed_same")
    assert same.valid.tolist() == [True, True, False]
    torch.testing.assert_close(same.image[2], image[2])
    assert int(same.background_label[2]) == 1
    following = make_variant(image, mask, label, "mixed_next", num_classes=3)
    assert following.valid.tolist() == [True, True, False]


@pytest.mark.parametrize("name", VARIANTS)
def test_batch_of_one_of_one_class_and_of_none(name):
    image, mask, label = batch(labels=(0,))
    variant = make_variant(image, mask, label, name)
    assert variant.valid.tolist() == [not name.startswith("mixed")]
    empty = make_variant(image[:0], mask[:0], label[:0], name)
    assert empty.image.shape == (0, 3, 8, 8)
    assert empty.valid.shape == (0,)
    one_class = make_variant(*batch(labels=(1, 1, 1)), name, num_classes=2)
    assert one_class.valid.all() == (name != "mixed_next")


@pytest.mark.parametrize("name", VARIANTS)
def test_empty_and_full_masks_are_defined(name):
    image, mask, label = batch(labels=(0, 0, 0, 0))
    mask[0], mask[1] = 0, 1
    variant = make_variant(image, mask, label, name, num_classes=1)
    assert variant.valid.tolist() == [False, True, True, True]
    torch.testing.assert_close(variant.image[0], image[0])
    assert variant.image.isfinite().all()
    if name.startswith("mixed"):  # a full mask has no background to give: 2 and 3 get those of 0 and of each other
        torch.testing.assert_close(variant.image[1], image[1])
    if name in ("only_bg_b", "no_fg"):
        assert variant.image[1].abs().max() == 0


def test_full_mask_gives_no_background(generator):
    image, mask, label = batch(labels=(0, 0))
    mask[1] = 1
    variant = make_variant(image, mask, label, "mixed_same", generator=generator)
    assert variant.valid.tolist() == [False, True]


def test_pool_of_bytes_is_normalised_resized_and_its_foregrounds_removed(generator):
    image, mask, label = batch(labels=(0, 0))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    image = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    pool = torch.full((1, 3, 16, 12), 51, dtype=torch.uint8)
    pool_mask = torch.zeros(1, 1, 16, 12)
    pool_mask[:, :, 4:8, 4:8] = 1
    pool[:, :, 4:8, 4:8] = 255
    bank = SimpleNamespace(images=pool, labels=torch.tensor([0]))
    variant = make_variant(
        image, mask, label, "mixed_same", backgrounds=bank, background_masks=pool_mask, mean=mean, std=std
    )
    expected = (0.2 - torch.tensor(mean)) / torch.tensor(std)
    outside = (mask == 0)[:, 0]
    for i in range(2):
        torch.testing.assert_close(variant.image[i][:, outside[i]], expected[:, None].expand(-1, int(outside[i].sum())))


@pytest.mark.parametrize("raw", [True, False])
def test_a_bank_brings_its_own_normalisation(raw):
    image, mask, label = batch(labels=(0, 0))
    images = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    image = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    bank = BackgroundBank(images if raw else images / 255, torch.tensor([0, 1]), mean=mean, std=std)
    for given in ({}, {"mean": mean, "std": std}):  # the bank is not normalised twice
        variant = make_variant(image, mask, label, "mixed_same", backgrounds=bank, **given)
        expected = bank.float_images(torch.tensor([0]))[0, :, 0, 0]
        torch.testing.assert_close(variant.image[0, :, 0, 0], expected)
    with pytest.raises(ValueError, match="background_labels: mixed_next needs the class of every background"):
        make_variant(image, mask, label, "mixed_next", backgrounds=BackgroundBank(images))


def test_unlabelled_pool_serves_mixed_rand_alone():
    image, mask, label = batch()
    variant = make_variant(image, mask, label, "mixed_rand", backgrounds=torch.rand(5, 3, 8, 8))
    assert variant.background_label.tolist() == [-1] * 6
    with pytest.raises(ValueError, match=r"background_labels: mixed_same needs the class"):
        make_variant(image, mask, label, "mixed_same", backgrounds=torch.rand(5, 3, 8, 8))


def test_soft_masks_blend():
    image, mask, label = batch(labels=(0, 0))
    soft = mask * 0.25
    variant = make_variant(image, soft, label, "only_fg")
    torch.testing.assert_close(variant.image, image * soft)


def test_same_generator_same_variant():
    image, mask, label = batch()
    runs = [
        make_variant(image, mask, label, "mixed_rand", generator=torch.Generator().manual_seed(3)).image
        for _ in range(2)
    ]
    torch.testing.assert_close(*runs, rtol=0, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_dtypes_devices_and_input_untouched(name, device):
    image, mask, label = (t.to(device) for t in batch())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        variant = make_variant(image.to(dtype), mask.bool(), label.int(), name)
        assert variant.image.dtype == dtype
        assert variant.background_label.dtype == torch.int64
    torch.testing.assert_close(image.cpu(), batch()[0])


def test_no_value_is_read_on_an_accelerator():
    """On the meta device any host read raises: the whole function runs without one."""
    image, mask, label = (t.to("meta") for t in batch())
    pool = torch.zeros(9, 3, 5, 5, dtype=torch.uint8, device="meta")
    for name in VARIANTS:
        assert make_variant(image, mask, label, name).image.device.type == "meta"
        variant = make_variant(image, mask, label, name, backgrounds=pool, background_labels=label.new_zeros(9))
        assert variant.image.shape == image.shape


BAD = [
    ({"name": "mixed_up"}, ValueError, r"name: expected one of 'only_fg'.*got 'mixed_up'"),
    ({"mask": torch.zeros(6, 1, 4, 4)}, ValueError, r"mask: expected shape \(6, 1, 8, 8\)"),
    ({"mask": torch.zeros(6, 1, 8, 8, dtype=torch.uint8)}, TypeError, r"mask: expected bool or floating point"),
    ({"mask": torch.zeros(6, 3, 8, 8)}, ValueError, r"mask: expected shape \(B, 1, H, W\)"),
    ({"mask": torch.full((6, 1, 8, 8), 1.5)}, ValueError, r"mask: expected values in \[0, 1\]"),
    ({"mask": torch.full((6, 1, 8, 8), float("nan"))}, ValueError, r"mask: expected values in \[0, 1\], got \[nan"),
    ({"image": torch.full((6, 3, 8, 8), float("nan"))}, ValueError, r"image: expected finite values"),
    ({"image": torch.zeros(6, 3, 8, 8, dtype=torch.uint8)}, TypeError, r"image: expected a floating point"),
    ({"label": torch.zeros(5).long()}, ValueError, r"label: expected shape \(6,\)"),
    ({"label": torch.zeros(6)}, TypeError, r"label: expected integer classes"),
    ({"num_classes": 2}, ValueError, r"label: expected classes in \[0, 1\]"),
    ({"mean": (0.5,)}, ValueError, r"mean, std: expected both or none, got only mean"),
    ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, ValueError, r"mean: expected 1 or 3 values"),
    ({"backgrounds": torch.rand(4, 1, 8, 8)}, ValueError, r"backgrounds: expected 3 channels like the images, got 1"),
    ({"backgrounds": "scenes"}, TypeError, r"backgrounds: expected uint8 or float images.*str 'scenes'"),
    ({"background_labels": torch.zeros(4).long()}, ValueError, r"backgrounds: expected with background_labels"),
    (
        {"backgrounds": torch.rand(4, 3, 8, 8), "background_labels": torch.zeros(3).long()},
        ValueError,
        r"background_labels: expected shape \(4,\)",
    ),
    (
        {"backgrounds": torch.rand(4, 3, 8, 8), "background_masks": torch.zeros(4, 1, 9, 8)},
        ValueError,
        r"background_masks: expected shape \(4, 1, 8, 8\)",
    ),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD)
def test_bad_input_is_named(change, error, text):
    image, mask, label = batch()
    arguments = {"image": image, "mask": mask, "label": label, "name": "mixed_rand"} | change
    with pytest.raises(error, match=text):
        make_variant(**arguments)


def test_unknown_keyword():
    with pytest.raises(TypeError, match="backgruonds"):
        make_variant(*batch(), "mixed_rand", backgruonds=None)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_to_the_image_is_the_true_one(name):
    image, mask, label = batch(labels=(0, 0, 1), size=7)
    image = image.double().requires_grad_()

    def made(x):
        return make_variant(x, mask.double() * 0.7, label, name, generator=torch.Generator().manual_seed(1)).image

    assert torch.autograd.gradcheck(made, (image,))


def test_autocast_keeps_the_image_dtype(device):
    image, mask, label = (t.to(device) for t in batch())
    with torch.autocast(device.type, torch.bfloat16):
        variant = make_variant(image, mask, label, "only_fg")
    torch.testing.assert_close(variant.image, image * mask)


@hostile.wrong(image=hostile.IMAGES, mask=hostile.MASKS, label=hostile.LABELS)
def test_wrong_batches_are_named(wrong, generator):
    image, mask = torch.rand(6, 3, 8, 8, generator=generator), torch.zeros(6, 1, 8, 8)
    mask[:, :, 2:5, 2:5] = 1

    def mixed(image, mask, label):
        return make_variant(image, mask, label, "mixed_same")

    wrong.refused_by(mixed, image=image, mask=mask, label=torch.arange(6) % 3)
