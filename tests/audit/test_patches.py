"""Patches beside a dictionary: by definition, one picture at a time, whatever else is looked at, and what they tell."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from torch_bgdebias.audit.learners import ridge_scores, standardised
from torch_bgdebias.audit.patches import PATCHES, _dead_leaves, _dictionary, patch_features
from torch_bgdebias.metrics.auc import auc_interval

SIDE = 128


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def everywhere(count: int) -> torch.Tensor:
    return torch.ones(count, 1, SIDE, SIDE, dtype=torch.bool)


def test_one_picture_by_its_definition():
    image, outside = pictures(1), everywhere(1)
    outside[:, :, 30:90, 40:100] = False
    small = F.avg_pool2d(image, 2)[0].numpy().astype(np.float64)
    seen = F.avg_pool2d(outside.float(), 2)[0, 0].numpy() > 0.99
    dictionary = _dictionary()
    mean, whitening, entries = (part.numpy().astype(np.float64) for part in dictionary)
    nearness = []
    for top in range(0, 64 - 5, 2):
        for left in range(0, 64 - 5, 2):
            if not seen[top : top + 6, left : left + 6].all():
                continue
            patch = small[:, top : top + 6, left : left + 6].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10 / 255**2)
            distance = np.linalg.norm((patch - mean) @ whitening - entries, axis=1)
            nearness.append(np.maximum(distance.mean() - distance, 0))
    assert 300 < len(nearness) < 900
    np.testing.assert_allclose(patch_features(image, outside)[0], np.sqrt(np.mean(nearness, 0)), rtol=2e-4, atol=2e-5)


def test_a_picture_s_numbers_do_not_depend_on_the_others_and_not_on_the_object():
    image, outside = pictures(3), everywhere(3)
    outside[:, :, 20:100, 20:100] = False
    alone = np.concatenate([patch_features(image[[row]], outside[[row]]) for row in range(3)])
    np.testing.assert_allclose(patch_features(image, outside), alone, rtol=1e-5, atol=1e-6)
    image[:, :, 22:98, 22:98] = 0.0
    np.testing.assert_allclose(patch_features(image, outside), alone, rtol=1e-5, atol=1e-6)


def test_nothing_shown_is_unknown():
    values = patch_features(pictures(2), everywhere(2) & torch.tensor([True, False]).view(2, 1, 1, 1))
    assert values.shape == (2, PATCHES)
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1]).all()


def test_brightness_and_contrast_say_nothing_and_structure_does():
    drawn = torch.Generator().manual_seed(1)
    stripes = torch.arange(SIDE).div(8).floor() % 2
    count = 60
    image = 0.3 + 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=drawn)
    phase = torch.randint(0, 16, (count,), generator=drawn).tolist()
    for row in range(count):
        plane = stripes.roll(phase[row]).expand(SIDE, SIDE)
        image[row] += 0.15 * (plane if row % 2 else plane.T)
    features = standardised(patch_features(image, everywhere(count)))
    darker = standardised(patch_features(0.5 * image + 0.1, everywhere(count)))
    label = (torch.arange(count) % 2).numpy()
    target = label[:, None].astype(np.float32)
    for table in (features, darker):
        scores = ridge_scores(table, target, np.arange(count) // 2 % 5, 10.0)
        assert auc_interval(scores[:, 0], label).value > 0.99, "down or across"


def test_discs_of_the_dictionary_are_pictures():
    """Half as sharp as drawn, in [0, 1], with large areas of one colour."""
    picture = _dead_leaves(torch.Generator().manual_seed(0))
    assert picture.shape == (3, 64, 64)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert 0.3 < picture.mean() < 0.7
    assert (picture.diff(dim=2).abs() < 1e-6).float().mean() > 0.1
    assert (picture[:, 1:-1] - picture[:, :-2]).abs().max() < 0.9
