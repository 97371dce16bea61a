"""One process of two: python ranks.py RANK PORT FOLDER. Started by test_distributed.py, which compares the results."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

from torch_bgdebias.clad import CLADLoss

KEYS, SIZE, DIM = 4, 5, 6
#: rows on rank 0 and on rank 1, step by step; the last batches are uneven, one of them empty
COUNTS = [(6, 6), (9, 9), (3, 8), (4, 0)]


def joint_batch(step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(step)
    batch = sum(COUNTS[step])
    anchor, positive = torch.randn(2, batch, DIM, generator=generator)
    label = torch.randint(KEYS, (batch,), generator=generator)
    return anchor, positive, label, (label + torch.randint(1, KEYS, (batch,), generator=generator)) % KEYS


def part(step: int, rank: int) -> list[torch.Tensor]:
    first = COUNTS[step][0]
    return [x[:first] if rank == 0 else x[first:] for x in joint_batch(step)]


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(
        {"exchanged": train(rank), "padded": train(rank, max_batch=max(map(max, COUNTS)))}, f"{folder}/{rank}.pt"
    )
    dist.destroy_process_group()


def train(rank: int, max_batch: int | None = None) -> dict[str, object]:
    loss = CLADLoss(KEYS, num_negatives=SIZE, max_batch=max_batch)
    results = []
    for step in range(len(COUNTS)):
        anchor, positive, label, background = part(step, rank)
        anchor.requires_grad_()
        positive.requires_grad_()
        value = loss(anchor, positive, label, background, label)
        value.backward()
        results.append((value.item(), anchor.grad, positive.grad, loss.queue.in_order()[0].clone()))
    return {"results": results, "state": loss.state_dict()}


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
