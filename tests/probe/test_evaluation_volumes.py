"""Volumes: what a cheat that reads the background and an honest network must score, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_volumes import SIZE, network
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias.data import VARIANTS, MaskedTensorDataset
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import evaluate_background_bias, mask_sensitivity

CLASSES, COUNT = 4, 24


def grey_levels() -> tuple[Tensor, Tensor, Tensor]:
    """Volumes whose cuboid and background both have the grey level of their class, in uint8."""
    label = torch.arange(COUNT) % CLASSES
    image = (label * 60 + 20).view(-1, 1, 1, 1, 1).expand(-1, 1, *SIZE).byte().clone()
    image[:, 0, 5, 7, 9] += torch.arange(COUNT).byte()  # so that no two are the same
    mask = torch.zeros(COUNT, 1, *SIZE, dtype=torch.uint8)
    mask[:, :, 2:4, 2:6, 3:7] = 255
    return image, label, mask


class Reads(nn.Module):
    """Answers the class whose grey level one voxel has."""

    def __init__(self, voxel: tuple[int, int, int]) -> None:
        super().__init__()
        self.voxel, self.fc = voxel, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        value = x[(slice(None), 0, *self.voxel)] * 255
        levels = torch.arange(CLASSES) * 60 + 20.0
        return self.fc(-(value[:, None] - levels).abs())


def batches() -> DataLoader:
    return DataLoader(MaskedTensorDataset(*grey_levels()), batch_size=7)


def test_a_cheat_scores_what_its_backgrounds_say():
    report = evaluate_background_bias(Reads((0, 0, 0)), batches(), layer="fc")
    images = report.images
    assert list(report.variants) == ["original", *VARIANTS]
    for name in ("mixed_same", "mixed_rand", "mixed_next"):
        np.testing.assert_array_equal(images.prediction[name], images.background_label[name])
    accuracy = {name: result.accuracy.value for name, result in report.variants.items()}
    agreeing = (images.background_label["mixed_rand"] == images.label).mean()
    assert accuracy["original"] == accuracy["mixed_same"] == accuracy["only_bg_t"] == accuracy["no_fg"] == 1
    assert accuracy["mixed_next"] == 0
    assert accuracy["mixed_rand"] == agreeing < 0.6
    assert report.bg_gap.value == pytest.approx(1 - agreeing)
    assert report.variants["mixed_rand"].decision_consistency.value == agreeing
    assert report.variants["mixed_rand"].feature_consistency.value < 1


def test_an_honest_network_has_no_gap():
    report = evaluate_background_bias(Reads((3, 4, 5)), batches(), variants=["mixed_same", "mixed_rand"])
    assert report.bg_gap.value == 0
    assert report.variants["mixed_rand"].decision_consistency.value == 1


def test_pictures_show_the_slice_with_most_of_the_object():
    report = evaluate_background_bias(network(CLASSES, 1).eval(), batches(), examples=3, attributions=["lrp"])
    assert len(report.examples) == 3
    for example in report.examples:
        assert example.pictures["original"].shape == (8, 10, 3)
        assert example.mask.shape == (8, 10)
        assert example.mask.max() == 255
        assert example.heatmaps["lrp"].shape == (8, 10)
    assert 0 <= report.images.scores["pixel_ratio/lrp"].mean() <= 1


def test_normalisation_is_undone_per_channel():
    image, label, mask = grey_levels()
    plain = image.float() / 255
    mean, std = (0.3,), (0.2,)
    loaders = [[(volume, label, mask.float() / 255)] for volume in (plain, (plain - mean[0]) / std[0])]
    first = evaluate_background_bias(network(CLASSES, 1).eval(), loaders[0], variants=["mixed_rand"])
    second = evaluate_background_bias(
        network(CLASSES, 1).eval(), loaders[1], variants=["mixed_rand"], mean=mean, std=std
    )
    np.testing.assert_array_equal(first.images.id, second.images.id)  # known by their bytes


def test_what_is_for_images_alone_is_refused_by_name():
    model = network(CLASSES, 1).eval()
    with pytest.raises(ValueError, match=r"preprocess: expected images \(B, C, H, W\)"):
        evaluate_background_bias(model, batches(), preprocess=Preprocessing(mean=(0.3,), std=(0.2,)))
    with pytest.raises(ValueError, match=r"volumes \(B, C, D, H, W\) are not taken here"):
        evaluate_background_bias(model, batches(), attributions=["grad_cam"])
    with pytest.raises(ValueError, match=r"volumes \(B, C, D, H, W\) are not taken here"):
        mask_sensitivity(model, batches())
