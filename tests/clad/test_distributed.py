"""Two processes on the CPU (gloo) against one process with the joint batch."""

from __future__ import annotations

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from torch_bgdebias.clad import CLADLoss, NegativeQueue

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
    loss = CLADLoss(KEYS, num_negatives=SIZE)
    results = []
    for step in range(len(COUNTS)):
        anchor, positive, label, background = part(step, rank)
        anchor.requires_grad_()
        positive.requires_grad_()
        value = loss(anchor, positive, label, background, label)
        value.backward()
        results.append((value.item(), anchor.grad, positive.grad, loss.queue.in_order()[0].clone()))
    torch.save({"results": results, "state": loss.state_dict()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_queues_are_identical(ranks):
    for name, value in ranks[0]["state"].items():
        assert torch.equal(value, ranks[1]["state"][name])


def test_equal_to_one_process_with_the_joint_batch(ranks):
    loss = CLADLoss(KEYS, num_negatives=SIZE)
    for step, counts in enumerate(COUNTS):
        anchor, positive, label, background = joint_batch(step)
        anchor.requires_grad_()
        positive.requires_grad_()
        value = loss(anchor, positive, label, background, label)
        value.backward()
        results = [rank["results"][step] for rank in ranks]
        for result in results:
            assert torch.equal(result[3], loss.queue.in_order()[0])
        total = sum(counts)
        shares = [count / total for count in counts]
        assert sum(s * r[0] for s, r in zip(shares, results, strict=True)) == pytest.approx(value.item(), rel=1e-6)
        for place, whole in ((1, anchor.grad), (2, positive.grad)):
            joined = torch.cat([s * r[place] for s, r in zip(shares, results, strict=True)])
            torch.testing.assert_close(joined, whole)


def test_one_process_in_a_group_gathers_from_itself(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        queue = NegativeQueue(2, 2)
        queue.enqueue(torch.ones(3, 1), torch.tensor([0, 1, 1]))
        assert queue.fill.tolist() == [1, 2]
    finally:
        dist.destroy_process_group()
