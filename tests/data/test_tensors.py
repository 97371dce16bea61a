"""Masked images as tensors that are there already."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.data import MaskedTensorDataset


def test_tensor_dataset_checks_its_tensors():
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2).long()
    covers = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"images: expected a uint8 tensor .*float32"):
        MaskedTensorDataset(images.float(), labels, covers)
    with pytest.raises(
        ValueError, match=r"masks: expected \(N, 1, H, W\) for images \(2, 3, 4, 4\), got \(1, 1, 4, 4\)"
    ):
        MaskedTensorDataset(images, labels, covers[:1])
    with pytest.raises(ValueError, match=r"labels: expected shape \(2,\), got \(1,\)"):
        MaskedTensorDataset(images, labels[:1], covers)
    flipped = MaskedTensorDataset(images, labels, covers, transform=lambda image, cover: (1 - image, 1 - cover))
    assert flipped[0][0].min() == 1
