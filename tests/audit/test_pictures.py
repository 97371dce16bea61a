"""Which pictures an audit takes where there are more than it may."""

import pytest
import torch

from torch_bgdebias.audit.pictures import Items
from torch_bgdebias.batch import BatchSpec


def loader(batches, size=4):
    """Batches whose labels count the pictures."""
    for number in range(batches):
        yield torch.rand(size, 3, 8, 8), torch.arange(size) + number * size, torch.ones(size, 1, 8, 8)


@pytest.mark.parametrize(
    ("total", "limit", "positions"),
    [
        (None, 6, [0, 1, 2, 3, 4, 5]),  # nobody knows how many are to come
        (12, 6, [0, 2, 4, 6, 8, 10]),
        (12, 5, [0, 3, 6, 9]),  # every third, since every second would be six
        (12, 12, list(range(12))),
        (12, None, list(range(12))),
    ],
)
def test_of_a_stream_at_most_the_limit_is_taken_spread_where_its_length_is_known(total, limit, positions):
    source = Items(data=loader(3), spec=BatchSpec(), batched=True, total=total)
    taken = list(source.pictures(limit, seed=0))
    assert [position for position, _ in taken] == positions
    assert [picture.label for _, picture in taken] == positions


def test_a_stream_ends_where_the_limit_is_reached():
    batches = loader(3)
    assert len(list(Items(data=batches, spec=BatchSpec(), batched=True).pictures(4, seed=0))) == 4
    assert len(list(batches)) == 2  # the second batch was never asked for
