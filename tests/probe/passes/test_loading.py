"""Shares of a loader: every image once, subsets over all classes."""

from __future__ import annotations

import pytest
import torch
from probe_toy import ToyImages
from torch.utils.data import DataLoader, DistributedSampler, SubsetRandomSampler

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.probe.passes.loading import Share, repeated_images


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_cover_every_image_once(world: int) -> None:
    data = ToyImages(23)
    spec = BatchSpec()
    order = [7, 3, 11, 2, 20]
    loaders = {
        "plain": (DataLoader(data, batch_size=4), range(23)),
        "shuffled": (DataLoader(data, batch_size=4, shuffle=True), range(23)),
        "subset": (DataLoader(data, batch_size=2, sampler=order), range(5)),
        "random subset": (DataLoader(data, batch_size=2, sampler=SubsetRandomSampler(order)), range(5)),
        "list": ([data[0:5], data[5:6], data[6:9]], range(9)),
    }
    for name, (loader, expected) in loaders.items():
        seen = []
        for rank in range(world):
            for places, counted, batch in Share(loader, spec, rank=rank, world=world):
                assert len(places) == len(batch[0]) == len(counted)
                seen += places[counted].tolist()
        assert sorted(seen) == list(expected), name


def test_share_of_a_sampler_that_pads() -> None:
    from torch.utils.data import DistributedSampler

    class Wrapped(DistributedSampler):  # as Lightning's own: a subclass, so that its order is kept
        pass

    data, seen = ToyImages(23), []
    for rank in (0, 1, 2):
        sampler = Wrapped(data, num_replicas=3, rank=rank, shuffle=False)
        for places, counted, batch in Share(
            DataLoader(data, batch_size=4, sampler=sampler), BatchSpec(), rank=rank, world=3
        ):
            seen += places[counted].tolist()
            assert torch.equal(batch[1][counted], data.labels[places[counted]])
    assert sorted(seen) == list(range(23))


def test_a_sampler_that_repeats_images_is_told_of():
    data = list(range(37))
    padded = DataLoader(data, sampler=DistributedSampler(data, 2, 0))
    assert "repeats 1 of 37 images" in repeated_images(padded)
    assert "not_padding" in repeated_images(padded)
    for sampler in (DistributedSampler(data, 2, 0, drop_last=True), DistributedSampler(data[:36], 2, 0), None):
        assert repeated_images(DataLoader(data, sampler=sampler)) == ""
