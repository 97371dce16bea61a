"""Every writer of ``writers.py`` killed at random moments: what is left, and whether a rerun goes on.

``python killing.py WORK DEATHS NAME...`` prints, as JSON, what was wrong for each writer. Each run is a fork of one
process that has all imports behind it. It dies by SIGKILL at a random moment of the undisturbed run's time, or in the
midst of a file, by the signal that the system sends when a file grows beyond a limit.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import yaml
from PIL import Image
from writers import WRITERS, Writer

from torch_bgdebias.ops.seal import flaw
from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.writing import UNFINISHED

#: a trainer's own, written line by line
LOGS = ("metrics.csv", "hparams.yaml")


def require_whole(path: Path) -> None:
    """Raise where a file is a torso."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        content = json.loads(path.read_text("utf-8"))
        if content.get("schema", "").startswith("torch_bgdebias.report"):
            BackgroundBiasReport.from_json(path)
    elif path.suffix == ".jsonl":
        for line in path.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                json.loads(line)
    elif path.suffix == ".html":
        assert path.read_text("utf-8").rstrip().endswith("</html>"), "no end of the page"
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".ckpt":
        assert torch.load(path, weights_only=False)["state_dict"], "no weights"
    elif path.suffix == ".parquet":
        BackgroundBiasReport.from_parquet(path)
    elif path.name == "config.yaml":
        assert yaml.safe_load(path.read_text("utf-8"))["trainer"], "not all settings"
    elif path.name in LOGS:
        path.read_text("utf-8")
    elif path.suffix == ".so":
        assert flaw(path.read_bytes()) is None, flaw(path.read_bytes())
    else:
        raise AssertionError("a file that nobody knows")


def files_in(out: Path) -> set[str]:
    """Names under which something is to be read; parts and marks are none."""
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {name for name in names if not name.endswith((".part", UNFINISHED))}


def run_in_child(write: Writer, out: Path, *, kill_after: float | None = None, longest_file: int | None = None) -> int:
    """The exit code, negative for a death by a signal."""
    child = os.fork()
    if child == 0:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            if longest_file is not None:
                os.dup2(quiet, 2)
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, resource.RLIM_INFINITY))
            write(out)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def problems(name: str, work: Path, deaths: int) -> list[str]:
    """What was wrong with a writer in ``deaths`` runs that were killed, and after them."""
    work.mkdir(parents=True)
    write, reference = WRITERS[name](work), work / "reference"
    reference.mkdir()
    started = time.monotonic()
    if code := run_in_child(write, reference):
        return [f"{name}: exit {code} without a kill"]
    duration, draw = time.monotonic() - started, random.Random(name)
    sizes = [(reference / file).stat().st_size for file in files_in(reference)]
    wrong, died = [], 0
    out = work / "out"
    for number in range(deaths):
        if number % 3 == 0:  # from nothing; else over what the run before has left, or over a finished one
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
        elif number % 3 == 1:
            shutil.rmtree(out)
            shutil.copytree(reference, out)
        if number % 2:
            code = run_in_child(write, out, kill_after=draw.uniform(0, 1.1 * duration))
        else:
            code = run_in_child(write, out, longest_file=draw.randrange(max(draw.choice(sizes), 2)))
        died += code < 0
        wrong += [f"{name}: death {number}: {line}" for line in torsos(out, files_in(reference), code)]
    if code := run_in_child(write, out):
        wrong.append(f"{name}: the rerun ends with {code}")
    left = {path.name for path in out.rglob("*") if path.name.endswith((".part", UNFINISHED))}
    if files_in(out) != files_in(reference) or left:
        wrong.append(f"{name}: after the rerun {sorted(files_in(out) ^ files_in(reference))}, {sorted(left)}")
    if deaths and not died:
        wrong.append(f"{name}: nothing was killed")
    return wrong


#: single files: nothing is missing that a mark could tell
_UNMARKED = {"reports", "concepts", "bank", "seen", "manifest", "figures", "link", "parquet", "head", "train"}


def torsos(out: Path, expected: set[str], code: int) -> list[str]:
    """Files that are not whole, unknown files, and a folder with files missing that has no mark."""
    wrong = []
    for name in sorted(files_in(out)):
        try:
            require_whole(out / name)
        except Exception as error:
            wrong.append(f"{name} is a torso ({(out / name).stat().st_size} bytes): {error}")
    if extra := files_in(out) - expected:
        wrong.append(f"unknown files {sorted(extra)}")
    marked = {path.parent.relative_to(out).as_posix() for path in out.rglob(UNFINISHED)}
    for folder in {name.rpartition("/")[0] for name in files_in(out)} if out.parent.name not in _UNMARKED else ():
        missing = {name for name in expected - files_in(out) if name.rpartition("/")[0] == folder}
        if missing and not any(folder == mark or mark == "." or folder.startswith(f"{mark}/") for mark in marked):
            wrong.append(f"{sorted(missing)} missing (exit {code}) and no mark")
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, count, *chosen = sys.argv[1:]
    print(json.dumps({name: problems(name, Path(folder) / name, int(count)) for name in chosen}))
