"""Finding and loading the extension: every state, in a process of its own where it matters."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ops.conftest import make_inputs
from torch_bgdebias.ops import extension_status, voronoi_composite
from torch_bgdebias.ops.extension import MARKER, ExtensionStatus, _load
from torch_bgdebias.ops.seal import sealed

ROOT = Path(__file__).resolve().parents[2]
#: no kernel is built for an older torch or loaded into it (`test_an_older_torch_is_named`)
OLDER = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10)
needs_kernels = pytest.mark.skipif(OLDER, reason=f"compiled kernels need torch 2.10 or newer, not {torch.__version__}")

REPORT = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch, torch_bgdebias
    inputs = (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 2),
              torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 2, dtype=torch.int64))
    for _ in range(2):
        assert torch_bgdebias.voronoi_composite(*inputs).eq(1).all()
        status = torch_bgdebias.extension_status()
assert not torch.cuda.is_initialized()
ours = [str(w.message) for w in caught if "torch_bgdebias" in str(w.message)]
print(status.state, status.devices, len(ours), status.reason, *ours, sep="|")
"""


def package_copy(folder: Path) -> Path:
    """The package without its library."""
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "torch_bgdebias", folder / "torch_bgdebias", ignore=ignore)
    return folder / "torch_bgdebias"


def report(folder: Path, **environment: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if k != "TORCH_BGDEBIAS_EXTENSION"}
    env |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", REPORT], env=env, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1].split("|")


def test_status_of_this_process():
    status = extension_status()
    assert isinstance(status, ExtensionStatus)
    assert status is extension_status()
    assert (status.state == "loaded") == ("cpu" in status.devices)
    with pytest.raises(AttributeError):
        status.state = "loaded"


@needs_kernels
def test_absent_and_refused_libraries_leave_the_plain_kernel(tmp_path):
    package = package_copy(tmp_path)
    state, devices, warned, reason = report(tmp_path)
    assert (state, devices, warned) == ("absent", "()", "0")
    assert "not built" in reason
    library = package / "_C.so"
    for content, why in (
        (b"garbage", "not built from this version"),
        (b"garbage " + MARKER, "it has no checksum; build it again"),
        (sealed(b"garbage " + MARKER), "cannot be loaded"),
    ):
        library.write_bytes(content)
        state, devices, warned, reason, warning = report(tmp_path)
        assert (state, devices, warned) == ("refused", "()", "1")
        assert why in reason
        assert str(library) in warning
    assert report(tmp_path, TORCH_BGDEBIAS_EXTENSION="off")[:3] == ["absent", "()", "0"]


@needs_kernels
def test_a_foreign_library_is_not_run(tmp_path):
    """A real shared library that is not ours: refused before any of its code runs, whatever its name."""
    foreign = next(Path(p) for p in (sys.modules["_ctypes"].__file__, sys.executable) if p)
    shutil.copy(foreign, tmp_path / "_C.so")
    status = _load(tmp_path)
    assert (status.state, status.devices) == ("refused", ())
    assert "not built from this version" in status.reason


def test_the_variable_accepts_two_words(monkeypatch):
    monkeypatch.setenv("TORCH_BGDEBIAS_EXTENSION", "yes")
    with pytest.raises(ValueError, match="TORCH_BGDEBIAS_EXTENSION: expected 'auto' or 'off', got 'yes'"):
        _load(ROOT / "torch_bgdebias")
    monkeypatch.setenv("TORCH_BGDEBIAS_EXTENSION", "off")
    assert _load(ROOT / "torch_bgdebias").state == "absent"


def setup_py(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "setup.py", *arguments], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package_copy(tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "NOTICE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_build_variable_is_checked(checkout):
    done = setup_py(checkout, "--version", TORCH_BGDEBIAS_BUILD="gpu")
    assert done.returncode != 0
    assert "TORCH_BGDEBIAS_BUILD: expected one of auto, none, cpu, cuda, got 'gpu'" in done.stderr


def test_none_builds_a_pure_wheel(checkout):
    done = setup_py(checkout, "-q", "bdist_wheel", TORCH_BGDEBIAS_BUILD="none")
    assert done.returncode == 0, done.stderr
    assert [p.name.split("-", 2)[2] for p in (checkout / "dist").iterdir()] == ["py3-none-any.whl"]


@needs_kernels
def test_a_failing_compiler_stops_only_who_asked_for_it(checkout):
    compiler = checkout / "broken-compiler"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    done = setup_py(checkout, "-q", "bdist_wheel", TORCH_BGDEBIAS_BUILD="auto", CXX=str(compiler))
    assert done.returncode == 0, done.stderr
    assert "installed without its extension" in done.stderr
    assert [p.name.split("-", 2)[2] for p in (checkout / "dist").iterdir()] == ["py3-none-any.whl"]
    done = setup_py(checkout, "-q", "build_ext", "--inplace", TORCH_BGDEBIAS_BUILD="cpu", CXX=str(compiler))
    assert done.returncode != 0
    assert "TORCH_BGDEBIAS_BUILD=cpu: the extension cannot be built" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")
def test_cpu_extension_builds_from_nothing_and_loads(checkout):
    done = setup_py(checkout, "-q", "bdist_wheel", TORCH_BGDEBIAS_BUILD="cpu")
    assert done.returncode == 0, done.stderr
    (wheel,) = (checkout / "dist").iterdir()
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("any.whl")
    elsewhere = checkout / "elsewhere"
    shutil.unpack_archive(wheel, elsewhere, "zip")
    assert report(elsewhere)[:3] == ["loaded", "('cpu',)", "0"]


def test_an_older_torch_is_named(monkeypatch, tmp_path):
    """The package runs from torch 2.5 on, the compiled kernels from 2.10 on."""
    import torch

    for version, stable in (("2.9.1", False), ("2.5.0+cpu", False), ("2.10.0", True), ("3.0.0a0+git1", True)):
        monkeypatch.setattr(torch, "__version__", version)
        status = _load(tmp_path)
        assert status.state == "absent"
        assert status.reason.startswith("not built") == stable
        assert stable or status.reason == f"the compiled kernels need torch 2.10 or newer, this is {version}"


def pages_of_two_mebibytes(count: int) -> bool:
    """Whether the system gives so many when it is asked: with its memory in pieces it gives small ones."""
    size = count << 21
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return False
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for place in range(0, size, 4096):
            memory[place] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 3 * 512


def test_the_calling_thread_takes_the_pages_of_a_large_output(compiled_kernel):
    """What other threads take, the system brings anew in every call: three times the time, in some process starts."""
    if not pages_of_two_mebibytes(80):
        pytest.skip("this system has no pages of 2 MiB to give, or not so many now")
    inputs = make_inputs(batch=24, channels=1, size=(512, 1024), cells=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        voronoi_composite(**inputs)  # starts the threads, which take pages of their own
        before = [resource.getrusage(who).ru_minflt for who in (resource.RUSAGE_THREAD, resource.RUSAGE_SELF)]
        out = voronoi_composite(**inputs)
        after = [resource.getrusage(who).ru_minflt for who in (resource.RUSAGE_THREAD, resource.RUSAGE_SELF)]
    finally:
        torch.set_num_threads(threads)
    own, every = (now - then for now, then in zip(after, before, strict=True))
    huge = 1 << 21
    tail = ((out.data_ptr() + out.nbytes) % huge) // 4096
    assert every < 2 * 512 + 24 + 64, f"{every} page faults for {out.nbytes} bytes"
    assert every - own <= tail + 8, f"{every - own} page faults in other threads, {tail} small pages at the end"
