from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_training as small
import torch

HERE = Path(__file__).parent


@pytest.mark.slow
def test_every_callback_in_two_processes(tmp_path):
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent / "helpers")])
    result = subprocess.run(
        [sys.executable, HERE / "two_processes.py", tmp_path],
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    for name in small.CALLBACKS:
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1))
        assert not first["left"]
        assert first["logged"].keys() == second["logged"].keys()
        for key, value in first["logged"].items():
            assert torch.equal(value.isnan(), second["logged"][key].isnan()), key
            assert value.isnan() or value == second["logged"][key], key
        for key, value in first["weights"].items():
            assert value.isfinite().all()
            if "running" not in key:  # batch norm's statistics are each process's own
                assert torch.equal(value, second["weights"][key]), f"{name}: {key}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sharded_parameters_train_as_replicated_ones(tmp_path):
    """``fully_shard`` in Lightning's ModelParallelStrategy against DDP, and what is refused under it, by name."""
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent / "helpers")])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "sharded_fit.py", tmp_path],
        capture_output=True, text=True, check=False, timeout=900, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    for name in small.TRAINING:
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1))
        torch.testing.assert_close(first["sharded"], first["replicated"])
        torch.testing.assert_close(second["sharded"], first["replicated"])
    for name in small.READING:
        error = (tmp_path / f"{name}.txt").read_text(encoding="utf-8")
        assert "cannot work under ModelParallelStrategy, which spreads the module's parameters" in error
