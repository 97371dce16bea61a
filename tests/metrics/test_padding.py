"""What a distributed sampler repeats does not count twice."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from torch_bgdebias.metrics import BackgroundGap, DecisionConsistency, not_padding


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 4, 37])
def test_several_processes_count_each_image_once(count, world, drop_last, shuffle):
    generator = torch.Generator().manual_seed(0)
    same, rand, label = (torch.randint(0, 4, (count,), generator=generator) for _ in range(3))
    gap, consistency, seen = BackgroundGap(), DecisionConsistency(), []
    for rank in range(world):
        sampler = DistributedSampler(range(count), world, rank, shuffle=shuffle, seed=1, drop_last=drop_last)
        start = 0
        for place in DataLoader(torch.arange(count), batch_size=4, sampler=sampler):
            valid = not_padding(sampler, start, len(place))
            start += len(place)
            seen += place[valid].tolist()
            gap.update(same[place], rand[place], label[place], valid_same=valid, valid_rand=valid)
            consistency.update(same[place], rand[place], label[place], valid=valid)
    assert len(seen) == len(set(seen)) == (count // world * world if drop_last else count)
    assert int(gap.count_same) == len(seen)
    if seen:
        seen = torch.tensor(seen)
        one = ((same == label).float() - (rand == label).float())[seen].mean()
        torch.testing.assert_close(gap.compute(), one)
        torch.testing.assert_close(consistency.compute(), (same == rand).float()[seen].mean())


def test_other_samplers_repeat_nothing():
    assert not_padding(DataLoader(range(3)).sampler, 8, 3).all()
