from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from torch_bgdebias.compositing import object_share
from torch_bgdebias.data import with_coverage


def data() -> TensorDataset:
    """Ten by ten pixels, of which 0, 3, 4, 30, 64 and 65 are object."""
    counts = (0, 3, 4, 30, 64, 65)
    mask = torch.stack([(torch.arange(100) < count).float().view(1, 10, 10) for count in counts])
    return TensorDataset(torch.rand(6, 3, 10, 10), torch.arange(6), mask)


def test_objects_between_the_shares_stay():
    assert [int(item[1]) for item in with_coverage(data())] == [2, 3, 4]  # both ends included
    assert [int(item[1]) for item in with_coverage(data(), 0.0, 0.035)] == [0, 1]
    with pytest.raises(ValueError, match=r"no object covers 90 to 100 % of its picture; they cover 0.0 to 65.0 %"):
        with_coverage(data(), 0.9, 1.0)
    with pytest.raises(ValueError, match="the smaller share first"):
        with_coverage(data(), 0.5, 0.1)
    with pytest.raises(TypeError, match="dataset: expected one with a length"):
        with_coverage(Dataset())


def test_void_is_no_part_of_the_picture():
    mask, void = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    void[..., 2:, :] = 1
    assert object_share(mask).tolist() == [0.5]
    assert object_share(mask, void).tolist() == [1.0]
    assert object_share(mask.unsqueeze(2).expand(1, 1, 3, 4, 4)).tolist() == [0.5]
