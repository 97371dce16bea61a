"""``fully_shard`` on the CPU: as one process, with two and three processes; what a rank's death does to the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_bgdebias import ISNet
from torch_bgdebias.models import find_head
from torch_bgdebias.sharded import check_not_flattened, local_part, parameters_whole, plain_type

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "helpers" / "sharded_ranks.py"


def ranks(world: int, *args: str, limit: float = 240) -> list[subprocess.CompletedProcess]:
    """The script in so many processes; each one's result."""
    paths = os.pathsep.join([str(HERE.parent), str(HERE / "helpers")])
    store = f"127.0.0.1:{29500 + os.getpid() % 2000}"
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-W", "ignore", str(SCRIPT), store, str(world), str(rank), *args] for rank in range(world)
    ]
    processes = [
        subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in commands
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=limit)
        results.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_trains_and_measures_as_one_process(world):
    """Every rank has the same batches, so the mean of the gradients is that of one process; the ranks compare."""
    for result in ranks(world, "same"):
        assert result.returncode == 0, result.stderr[-3000:]
        assert "11 compared" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_uneven_batches(world):
    """Each rank has a part of every batch, of another size: queues are of all of them, weights the same everywhere."""
    outputs = [result.stdout.splitlines()[-1] for result in ranks(world, "uneven")]
    assert len(set(outputs)) == 1
    rows = min(8, sum(rank + 2 for rank in range(world)))
    assert outputs[0].startswith("weights")
    assert outputs[0].endswith(f"queue {rows}")


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_that_dies_does_not_leave_the_others_waiting(world):
    start = time.monotonic()
    results = ranks(world, "dies")
    assert results.pop(1).returncode == 7
    for other in results:
        assert other.returncode not in (0, 7)
        assert "waited" in other.stdout
        assert float(other.stdout.split("waited")[1].split()[0]) < 30
    assert time.monotonic() - start < 240


class FullyShardedDataParallel(nn.Module):
    """Known by its name, as the wrapper needs a process group to be made."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_the_older_wrapper_is_refused_by_name():
    net = nn.Sequential(FullyShardedDataParallel(nn.Conv2d(3, 2, 3)), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(TypeError, match="'0' is a FullyShardedDataParallel.*: ISNet needs .*fully_shard instead"):
        ISNet(net).explain(torch.rand(2, 3, 8, 8))
    check_not_flattened(net[1], what="ISNet")


def test_other_models_are_left_alone():
    net = nn.Linear(2, 2)
    with parameters_whole(net):
        assert plain_type(net) is nn.Linear
        assert torch.equal(local_part(net.weight), net.weight)


def test_the_head_of_a_sharded_model_is_found():
    class Sharded:
        def set_reshard_after_backward(self):
            """As torch's class has it."""

    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    net[1].__class__ = type("FSDPLinear", (Sharded, nn.Linear), {})
    assert find_head(net)[0] == "1"
