"""Fixtures for every room: devices, generators, the reference data beside the repository, slow tests on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerator import ACCELERATORS

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--device", default=None, help="only this device (cpu, cuda)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--runslow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: pass --runslow"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--device")
        devices = [wanted] if wanted else ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
        metafunc.parametrize("device", [torch.device(d) for d in devices], ids=devices)


@pytest.fixture(params=["simulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def accelerator(request):
    """A device of which a test can say that nothing waits for it: ``with accelerator.no_waiting():``."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with ACCELERATORS[request.param]() as device:
        yield device


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def vectors():
    """Loader of a reference array file by name; skips where the arrays are not beside the repository."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = SHARED / "vectors" / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"reference arrays absent: {path}")
        with np.load(path) as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def shared_data():
    """Folder of a real data set by name; skips where it is not beside the repository."""

    def find(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.exists():
            pytest.skip(f"real images absent: {path}")
        return path

    return find
