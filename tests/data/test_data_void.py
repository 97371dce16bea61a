"""Void, neither object nor background: carried by data sets and batches, and without weight in every figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec, MaskedBatch, collate_masked
from torch_bgdebias.compositing import without_void
from torch_bgdebias.concepts import ConceptProbe
from torch_bgdebias.data import MaskedImageFolder, MaskedVoidItem, make_variant
from torch_bgdebias.isnet import ISNetLoss
from torch_bgdebias.metrics import ConceptIoU, PixelRatio, adversarial_background_accuracy, pixel_ratio
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.swap import BackgroundSwap

SIDE = 16
OBJECT, BAND = (slice(4, 10), slice(5, 11)), (slice(3, 11), slice(4, 12))


def planes(count=4):
    """Object and the band of void around it, (B, 1, H, W)."""
    mask, void = torch.zeros(count, 1, SIDE, SIDE), torch.zeros(count, 1, SIDE, SIDE)
    mask[:, :, *OBJECT] = 1
    void[:, :, *BAND] = 1
    void[:, :, *OBJECT] = 0
    return mask, void


def with_noise_in_void(image, void, seed):
    noise = (1 + seed) * torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(void > 0, noise, image)


@pytest.fixture
def folder(tmp_path):
    """VOC-like masks: 1 object, 255 void."""
    mask, void = planes(1)
    values = (mask[0, 0] + 255 * void[0, 0]).numpy().astype(np.uint8)
    for k, name in enumerate(("cat", "dog")):
        for i in range(4):
            for kind, pixels in (
                ("images", np.random.default_rng(10 * k + i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)),
                ("masks", values),
            ):
                path = tmp_path / kind / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path


def test_items_and_batches_carry_it(folder):
    mask, void = planes(1)
    plain, data = MaskedImageFolder(folder), MaskedImageFolder(folder, with_void=True)
    assert plain.has_void
    assert len(plain[0]) == 3
    item = data[5]
    assert isinstance(item, MaskedVoidItem)
    torch.testing.assert_close(item.void, void[0])
    torch.testing.assert_close(item.mask, mask[0])
    assert item.label == 1
    batch = next(iter(DataLoader(data, batch_size=3)))
    assert isinstance(batch, MaskedVoidItem)
    assert BatchSpec().void_of(batch).sum() == 3 * void.sum()
    assert BatchSpec().void_of(next(iter(DataLoader(plain, batch_size=3)))) is None
    packed = collate_masked([data[0], data[1]])
    image, _ = packed
    assert image.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(BatchSpec().void_of(packed.to("cpu")), void.expand(2, -1, -1, -1))


def test_a_transform_moves_it_along(folder):
    def mirrored(image, mask):
        return image.flip(-1), mask.flip(-1)

    data = MaskedImageFolder(folder, transform=mirrored, with_void=True)
    torch.testing.assert_close(data[0].void, planes(1)[1][0].flip(-1))
    small = MaskedImageFolder(folder, transform=Preprocessing(8), with_void=True)[0]
    assert small.void.shape == small.mask.shape == (1, 8, 8)
    assert float((small.void + small.mask).max()) <= 1 + 1e-6
    with pytest.raises(ValueError, match=r"transform: expected the mask's two channels back"):
        MaskedImageFolder(folder, transform=lambda i, m: (i, m[:1]), with_void=True)[0]


def test_where_a_batch_has_it():
    image, label = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    mask, void = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    assert BatchSpec(void=3).void_of((image, label, mask, void)) is void
    assert BatchSpec(void=None).void_of({"void": void}) is None
    assert BatchSpec().void_of({"void": void}) is void
    assert BatchSpec().void_of(MaskedBatch(image, label, mask)) is None
    with pytest.raises(KeyError, match=r"no void at 'ignore'"):
        BatchSpec(void="ignore").void_of({"void": void})


def test_hidden_masks_come_back_with_void():
    spec = BatchSpec(hide_mask=True)
    batch = MaskedVoidItem(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), *planes(2))
    shorter, taken = spec.without_mask(batch)
    assert len(shorter) == 2
    again = spec.with_mask(list(shorter), taken)
    assert isinstance(again, MaskedVoidItem)
    assert spec.void_of(again) is batch.void
    assert spec.mask_of(again) is batch.mask


@pytest.mark.parametrize("name", ["only_fg", "only_bg_b", "only_bg_t", "no_fg", "mixed_same", "mixed_rand"])
def test_no_variant_shows_a_void_pixel(name):
    """Whatever stands in void, of object or background, the variant is the same."""
    mask, void = planes()
    image, label = torch.rand(4, 3, SIDE, SIDE), torch.tensor([0, 0, 1, 1])
    variant = [
        make_variant(
            with_noise_in_void(image, void, seed),
            mask,
            label,
            name,
            void=void,
            generator=torch.Generator().manual_seed(0),
        ).image
        for seed in (0, 1)
    ]
    torch.testing.assert_close(variant[0], variant[1], atol=1e-6, rtol=0)
    without = make_variant(image, mask, label, name, generator=torch.Generator().manual_seed(0)).image
    zero = make_variant(
        image, mask, label, name, void=torch.zeros_like(void), generator=torch.Generator().manual_seed(0)
    ).image
    assert torch.equal(without, zero)


def test_a_mask_that_covers_void_loses_it():
    mask, void = planes(1)
    everything = torch.maximum(mask, void)
    image, label = torch.rand(1, 3, SIDE, SIDE), torch.tensor([0])
    one = make_variant(image, everything, label, "only_fg", void=void).image
    torch.testing.assert_close(one, image * mask)


def test_the_mean_of_the_known_background_covers_void():
    mask, void = planes(1)
    image = torch.rand(1, 3, SIDE, SIDE)
    known = (mask + void == 0)[0, 0]
    painted = without_void(image, mask, void)
    torch.testing.assert_close(painted[0][:, void[0, 0] > 0][:, 0], image[0][:, known].mean(1))
    assert torch.equal(painted[0][:, void[0, 0] == 0], image[0][:, void[0, 0] == 0])
    assert without_void(image, mask, None) is image


def test_pixel_ratio_counts_it_in_neither_sum():
    mask, void = planes(2)
    attribution = torch.rand(2, 1, SIDE, SIDE) - 0.3
    positive = attribution.clamp(min=0).double()
    expected = (positive * mask).sum((1, 2, 3)) / (positive * (1 - void)).sum((1, 2, 3))
    torch.testing.assert_close(pixel_ratio(attribution, mask, void).double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        pixel_ratio(with_noise_in_void(attribution, void, 3), mask, void), pixel_ratio(attribution, mask, void)
    )
    half, soft = mask * 0.5, void * 0.5 + mask * 0.25
    expected = (positive * half).sum((1, 2, 3)) / (positive * (1 - soft)).sum((1, 2, 3))
    torch.testing.assert_close(pixel_ratio(attribution, half, soft).double(), expected, atol=1e-6, rtol=1e-5)
    metric = PixelRatio()
    metric.update(attribution, mask, void=void)
    torch.testing.assert_close(metric.compute(), pixel_ratio(attribution, mask, void).mean())
    assert torch.isnan(pixel_ratio(attribution, mask, torch.ones_like(void))).all()


def test_concepts_are_segmented_outside_of_it():
    mask, void = planes(1)
    scores = torch.where(mask > 0, 1.0, -1.0)
    scores[:, :, *BAND] = 1.0  # right on the object, and on all of the void
    metric, strict = ConceptIoU(), ConceptIoU()
    metric.update(scores, mask, void=void)
    strict.update(scores, mask)
    assert float(metric.compute()) == 1.0
    assert float(strict.compute()) == pytest.approx(36 / 64)
    with pytest.raises(ValueError, match="void: expected the shape of scores"):
        metric.update(scores, mask, void=void[0])


def test_a_concept_probe_leaves_it_out(folder):
    """What the vector says in void changes nothing, from tensors and from a loader's batches."""
    torch.manual_seed(0)
    mask, void = planes(4)
    probe = ConceptProbe(nn.Sequential(nn.Conv2d(3, 2, 1)), ["0"], size=SIDE)
    vectors = probe.fit(torch.rand(4, 3, SIDE, SIDE), mask, torch.zeros(4, dtype=torch.long))
    labels = torch.zeros(4, dtype=torch.long)
    image = torch.rand(4, 3, SIDE, SIDE)
    other = torch.where(void > 0, 9 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1)), image)
    one, two = (probe.iou(vectors, x, mask, labels, void=void)["0"] for x in (image, other))
    torch.testing.assert_close(one, two)
    assert not torch.equal(*(probe.iou(vectors, x, mask, labels)["0"] for x in (image, other)))
    batches = [MaskedVoidItem(image, labels, mask, void)]
    torch.testing.assert_close(probe.iou(vectors, batches)["0"], one)


class Border(nn.Module):
    """Class 1 where the band of void is bright: what is not object nor background must not decide."""

    def forward(self, image):
        bright = (image * planes(1)[1]).sum((1, 2, 3)) / planes(1)[1].sum() / image.shape[1] - 0.5
        return torch.stack([-bright, bright], 1)


def test_adversarial_backgrounds_replace_it():
    mask, void = planes(1)
    image = torch.ones(1, 3, SIDE, SIDE)
    bank = torch.zeros(1, 3, SIDE, SIDE)
    label = torch.tensor([1])
    covering = torch.maximum(mask, void)
    assert float(adversarial_background_accuracy(Border(), image, covering, label, bank).accuracy) == 1.0
    assert float(adversarial_background_accuracy(Border(), image, covering, label, bank, void=void).accuracy) == 0.0


def test_the_heatmap_loss_gives_it_no_weight():
    mask, void = planes(2)
    relevance = torch.randn(2, 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    other = torch.where(void[:, None] > 0, 50.0, relevance)
    loss = ISNetLoss(mask_dilation=0)
    assert torch.equal(loss(relevance, mask, void=void), loss(other, mask, void=void))
    assert not torch.equal(loss(relevance, mask), loss(other, mask))
    assert torch.equal(loss(relevance, mask, void=torch.zeros_like(void)), loss(relevance, mask))


def test_a_swap_neither_keeps_nor_lends_it():
    mask, void = planes()
    image, label = torch.rand(4, 3, SIDE, SIDE), torch.tensor([0, 0, 1, 1])
    swap = BackgroundSwap("batch", p=1.0, different_class=True)
    params = swap.generate_parameters(image.shape, label, generator=torch.Generator().manual_seed(0))
    one, two = (
        swap(with_noise_in_void(image, void, seed), mask, label, params=params, void=void)[0] for seed in (0, 1)
    )
    torch.testing.assert_close(one, two)
    assert not torch.equal(one, swap(image, torch.maximum(mask, void), label, params=params)[0])


@pytest.mark.filterwarnings("ignore:.*feature consistency")
def test_a_measurement_asks_nothing_about_it(folder):
    """The variants and the heatmap's ratio do not change with what stands in void, and a note says where it counts."""
    data = MaskedImageFolder(folder, with_void=True)

    def report(seed, **options):
        images = torch.stack([with_noise_in_void(item.image, item.void, seed) for item in data])
        batches = [
            {"image": images, "label": torch.tensor(data.labels), "id": list(range(8))}
            | {name: torch.stack([getattr(item, name) for item in data]) for name in ("mask", "void")}
        ]
        spec = BatchSpec("image", "label", "mask", **options)
        attribution = {"pixels": lambda model, image, target: image.sum(1, keepdim=True)}
        variants = ["only_fg", "only_bg_t", "no_fg", "mixed_same", "mixed_rand"]
        return evaluate_background_bias(
            Border(), batches, spec=spec, ids="id", attributions=attribution, variants=variants
        )

    one, two = report(0), report(1)
    for name in one.variants:
        if name != "original":
            np.testing.assert_array_equal(one.images.prediction[name], two.images.prediction[name])
            np.testing.assert_allclose(one.images.confidence[name], two.images.confidence[name], atol=1e-5)
    scores = [r.images.scores["pixel_ratio/pixels"] for r in (one, two)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    as_background = [r.images.scores["pixel_ratio/pixels"] for r in (report(0, void=None), report(1, void=None))]
    assert np.abs(as_background[0] - as_background[1]).max() > 1e-3


def test_a_loader_that_leaves_it_out_is_named(folder):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    with pytest.warns(UserWarning, match=r"void, neither object nor background.*MaskedImageFolder\(..., with_void"):
        evaluate_background_bias(model, DataLoader(MaskedImageFolder(folder)), variants=["no_fg"])
