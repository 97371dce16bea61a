"""Whatever writes files can be killed at any moment: no torso under a final name, and a rerun goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are forked and killed")
DRIVER = Path(__file__).parent / "helpers" / "killing.py"
FAST = ("reports", "concepts", "bank", "seen", "manifest", "figures", "variants", "generated", "link", "parquet")
FAST += ("converted", "made")
SLOW = ("masks", "filtered", "probe", "demo", "head", "audit", "certify", "train")


def outcome(work: Path, deaths: int, *names: str) -> dict[str, list[str]]:
    for name, package in (
        ("masks", "cv2"), ("figures", "matplotlib"), ("demo", "sklearn"), ("audit", "sklearn"), ("parquet", "pyarrow"),
        ("train", "jsonargparse"),
    ):  # fmt: skip
        if name in names:
            pytest.importorskip(package)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, DRIVER, work, str(deaths), *names], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert not any(result.values()), done.stderr[-2000:] + json.dumps(result, indent=1)
    return result


def test_single_files_and_small_folders(tmp_path):
    assert list(outcome(tmp_path, 4, *FAST)) == list(FAST)


@pytest.mark.parametrize("name", ["masks", "probe", "head", "certify"])
def test_commands(tmp_path, name):
    outcome(tmp_path, 2, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_twenty_moments(tmp_path, name):
    outcome(tmp_path, 20, name)
