"""Images that a distributed sampler repeats at the end, so that all processes have equally many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from torch_bgdebias.subsets import length_of

__all__ = ["not_padding"]


def not_padding(sampler: Any, start: int, size: int) -> Tensor:
    """Which images of a process's batch are no padding, i.e. not repeated by the sampler at the end.

    For ``valid_same``, ``valid_rand`` and ``valid`` of the metrics, which then agree with one process exactly.

    Args:
        sampler: of this process; one that is no ``DistributedSampler`` repeats nothing.
        start: images of the sampler before this batch, such as ``batch_idx * batch_size``.
        size: images in the batch.

    Returns:
        Tensor: (size,) bool on the CPU.

    Example:
        >>> last = DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False)
        >>> list(last), not_padding(last, 0, 3).tolist()
        ([1, 3, 0], [True, True, False])
    """
    if not isinstance(sampler, DistributedSampler):
        return torch.ones(size, dtype=torch.bool)
    positions = torch.arange(start, start + size)
    # images are dealt out in turns, and what was added to come out even is at the end
    is_own: Tensor = positions * sampler.num_replicas + sampler.rank < length_of(sampler.dataset)
    return is_own
