"""Rows of every process in rank order, also when the processes hold different numbers of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows", "processes"]


def processes() -> int:
    """How many processes train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Concatenate every process's rows, those of rank 0 first; without other processes the tensors come back as given.

    The sizes are exchanged first, then everything padded to the largest: this is the one place in a training step that
    waits for a number on the host, and only when there are several processes.

    Args:
        tensors: of the same length each on this process (another length on another process is fine), equal in dtype
            and in all other dimensions across processes. No gradient passes through.
    """
    world = processes()
    if world == 1:
        return tensors
    mine = torch.tensor([tensors[0].shape[0]], device=tensors[0].device)
    every = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(every, mine)
    sizes = torch.cat(every).tolist()
    longest = max(sizes)
    return tuple(_gather_one(t.detach(), sizes, longest) for t in tensors)


def _gather_one(tensor: Tensor, sizes: list[int], longest: int) -> Tensor:
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
