"""An image is the same one under any normalisation, and another one with another picture, mask or label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_toy import K, ToyImages, cheat, toy_loader

from torch_bgdebias.probe import compare_models, evaluate_background_bias
from torch_bgdebias.probe.passes.identity import fingerprints, ids_of_names

NORMALISATIONS = [
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5,) * 3, (0.5,) * 3),
    ((0.1, 0.2, 0.3), (1, 2, 3)),
]


def normalised(image, mean, std):
    shift, scale = (torch.tensor(x, dtype=torch.float32).reshape(3, 1, 1) for x in (mean, std))
    return (image - shift) / scale


@pytest.mark.parametrize(("mean", "std"), NORMALISATIONS)
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_normalisation_does_not_matter(mean, std, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(300, 3, 32, 32, generator=generator)
    if kind == "bytes":
        image = (image * 255).round() / 255
    label, mask = torch.arange(300) % 7, (torch.rand(300, 1, 32, 32, generator=generator) > 0.5).float()
    plain = fingerprints(image, label, mask)
    moved = fingerprints(normalised(image, mean, std), label, mask, mean=mean, std=std)
    assert len(set(plain.tolist())) == 300
    if kind == "bytes":
        assert (plain == moved).all()
    else:  # rounding errors may move a few over a step
        assert (plain == moved).mean() > 0.98


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions_are_taken(dtype) -> None:
    image = torch.rand(4, 3, 8, 8).to(dtype)
    assert len(set(fingerprints(image, torch.arange(4), torch.ones(4, 1, 8, 8)).tolist())) == 4


def test_picture_mask_and_label_all_count() -> None:
    image = (torch.rand(1, 3, 8, 8) * 255).round() / 255
    label, mask = torch.tensor([1]), torch.zeros(1, 1, 8, 8)
    first = fingerprints(image, label, mask)
    other = image.clone()
    other[0, 0, 0, 0] = (other[0, 0, 0, 0] * 255 + 1) % 256 / 255
    filled = mask.clone()
    filled[0, 0, 3, 3] = 1
    dark, nearly = torch.zeros_like(image), torch.full_like(image, 1 / 255)
    assert fingerprints(dark, label, mask) != fingerprints(nearly, label, mask)
    for changed in ((other, label, mask), (image, label + 1, mask), (image, label, filled)):
        assert fingerprints(*changed) != first
    batch = fingerprints(image.repeat(3, 1, 1, 1), label.repeat(3), mask.repeat(3, 1, 1, 1))
    assert (batch == first).all()


def test_ids_that_the_data_set_gives() -> None:
    assert (ids_of_names(["a", "b", "a"], 3) == ids_of_names(("a", "b", "a"), 3)).all()
    assert len(set(ids_of_names(torch.arange(5), 5).tolist())) == 5
    assert ids_of_names([1], 1) != ids_of_names(["1"], 1)
    with pytest.raises(TypeError, match="ids: expected names or whole numbers, one an image, got"):
        ids_of_names(torch.rand(3), 3)
    with pytest.raises(TypeError, match="one an image, got 2"):
        ids_of_names(["a", "b"], 3)


def test_models_of_other_sizes_are_compared_by_the_ids_of_the_data_set() -> None:
    data = ToyImages(40)
    names = [f"{i}.png" for i in range(40)]
    large = torch.nn.functional.interpolate(data.images, scale_factor=2)
    masks = torch.nn.functional.interpolate(data.masks, scale_factor=2)
    options = {"variants": ["mixed_same", "mixed_rand"], "ids": 3}
    small = evaluate_background_bias(cheat(), [(data.images, data.labels, data.masks, names)], **options)
    big = evaluate_background_bias(cheat(), [(large, data.labels, masks, names)], **options)
    (comparison,) = compare_models([small, big])
    assert comparison.n == 40
    assert comparison.differing == []
    assert (small.images.background_label["mixed_rand"] == big.images.background_label["mixed_rand"]).all()
    unnamed = evaluate_background_bias(cheat(), [(large, data.labels, masks)], variants=options["variants"])
    assert compare_models([small, unnamed]) == [None]


def test_the_same_network_on_normalised_images_gets_the_same_backgrounds() -> None:
    mean, std = NORMALISATIONS[0]

    def undoing(model, image):
        shift, scale = (torch.tensor(x).reshape(3, 1, 1) for x in (mean, std))
        return model(image * scale + shift)

    plain = evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_same", "mixed_rand"])
    batches = [(normalised(x, mean, std), y, m) for x, y, m in toy_loader()]
    moved = evaluate_background_bias(
        cheat(), batches, variants=["mixed_same", "mixed_rand"], mean=mean, std=std, forward=undoing
    )
    (comparison,) = compare_models([plain, moved])
    assert comparison.n == 40
    assert comparison.figures["bg_gap"].difference.value == 0
    assert comparison.summary().startswith(
        "Reader against Reader, measured at other settings (preprocessing (mean): None"
    )
    order = np.argsort(plain.images.position), np.argsort(moved.images.position)
    labels = [r.images.background_label["mixed_rand"][o] for r, o in zip((plain, moved), order, strict=True)]
    assert (labels[0] == labels[1]).all()
    assert set(labels[0].tolist()) == set(range(K))
