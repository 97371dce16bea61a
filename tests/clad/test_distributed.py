"""Two processes on the CPU (gloo) against one process with the joint batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerator import HostWaitError

from torch_bgdebias.clad import CLADLoss, NegativeQueue

from .ranks import COUNTS, KEYS, SIZE, joint_batch

HERE = Path(__file__).parent


def start(script: str, *arguments: str) -> None:
    """Run two processes of a script to their end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), str(rank), port, *arguments],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start("ranks.py", str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(params=["exchanged", "padded"])
def ranks(both_ways, request):
    """What the ranks ended with, their batch sizes told to each other or padded to ``max_batch``."""
    return [rank[request.param] for rank in both_ways]


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


def test_with_max_batch_no_process_waits(accelerator, monkeypatch):
    """Two processes with equal rows, played by one: what is gathered is what was sent, twice."""
    sent = []

    def all_gather(parts, tensor):
        sent.append(tuple(tensor.shape))
        for part in parts:
            part.copy_(tensor)

    monkeypatch.setattr("torch_bgdebias.clad.distributed.processes", lambda: 2)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    rows, key = accelerator.put((torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0])))
    for max_batch in (3, 5):
        queue = accelerator.put(NegativeQueue(2, 4, 1, max_batch=max_batch))
        with accelerator.no_waiting():
            queue.enqueue(rows, key)
        assert accelerator.get(queue.in_order()[0])[:, :, 0].tolist() == [[1, 3, 1, 3], [2, 2, 0, 0]]
    assert sent == [(3, 1), (3, 2), (5, 1), (5, 2)]
    queue = accelerator.put(NegativeQueue(2, 4, 1))
    with accelerator.no_waiting(), pytest.raises((HostWaitError, RuntimeError)):
        queue.enqueue(rows, key)
    with pytest.raises(ValueError, match="max_batch: expected at most 2 rows a process, got 3"):
        NegativeQueue(2, 4, 1, max_batch=2).enqueue(torch.ones(3, 1), torch.tensor([0, 1, 0]))


def test_one_process_in_a_group_gathers_from_itself(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        queue = NegativeQueue(2, 2)
        queue.enqueue(torch.ones(3, 1), torch.tensor([0, 1, 1]))
        assert queue.fill.tolist() == [1, 2]
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_a_fit_in_two_processes(tmp_path):
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent / "helpers")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "ddp_fit.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    whole, half, resumed = (
        [torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2)] for name in ("whole", "half", "resumed")
    )
    for name, value in whole[0]["queue"].items():
        assert torch.equal(value, whole[1]["queue"][name])
        assert torch.equal(value, resumed[0]["queue"][name])
    for name in ("net.0.weight", "net.5.weight"):
        assert torch.equal(whole[0]["weights"][name], whole[1]["weights"][name])
    assert whole[0]["losses"] != whole[1]["losses"]  # each rank has images of its own
    for rank in range(2):
        assert half[rank]["losses"] + resumed[rank]["losses"] == whole[rank]["losses"]
