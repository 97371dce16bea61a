"""Gathers rows of all processes in rank order, also when their numbers of rows differ."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gather_rows", "processes"]


def processes() -> int:
    """How many processes train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(
    embedding: Tensor, key: Tensor, foreground: Tensor, max_batch: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate every process's rows, those of rank 0 first; without other processes they come back as given.

    With ``max_batch`` each process's rows are padded to that many, padding has the key -1, and nothing waits for the
    device. Without it the numbers of rows are exchanged first and read on the host: the one place in a training step
    that waits, and only when there are several processes.

    Args:
        embedding: (B, D), equal in dtype and width on every process; B may differ. No gradient passes through.
        key: (B,) int64.
        foreground: (B,) int64.
        max_batch: the largest B of any process, the same number on each.

    Raises:
        ValueError: more rows than ``max_batch``.
    """
    world, rows = processes(), embedding.shape[0]
    if max_batch is not None and rows > max_batch:
        raise ValueError(f"max_batch: expected at most {max_batch} rows a process, got {rows}")
    if world == 1:
        return embedding, key, foreground
    sizes = [max_batch] * world if max_batch is not None else _row_counts(rows, world, embedding.device)
    padding = max(sizes) - rows
    numbers = F.pad(torch.stack([key, foreground], 1), (0, 0, 0, padding), value=-1)
    embedding = _gather(F.pad(embedding.detach(), (0, 0, 0, padding)), sizes)
    key, foreground = _gather(numbers, sizes).unbind(1)
    return embedding, key, foreground


def _row_counts(rows: int, world: int, device: torch.device) -> list[int]:
    sizes: list[int] = _gather(torch.full((1,), rows, device=device), [1] * world).tolist()
    return sizes


def _gather(tensor: Tensor, sizes: list[int]) -> Tensor:
    """The first ``sizes[rank]`` rows of every rank's tensor; the tensors are of one shape."""
    parts = [torch.empty_like(tensor) for _ in sizes]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
