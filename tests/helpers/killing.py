"""Everything in the package that writes files, killed at random moments: what is left, and whether a rerun goes on.

``python killing.py WORK DEATHS NAME...`` prints, as JSON, what was wrong for each writer. Each run is a fork of one
process that has all imports behind it. It dies by SIGKILL at a random moment of the undisturbed run's time, or in the
midst of a file, by the signal that the system sends when a file grows beyond a limit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import setuptools
import torch
from PIL import Image
from torch import nn

from torch_bgdebias import cli
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.generation.manifest import Manifest
from torch_bgdebias.backgrounds.screening.seen import SeenCache
from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, concept_transfer
from torch_bgdebias.ops.seal import flaw
from torch_bgdebias.probe import BackgroundBiasReport, compare_models, evaluate_background_bias
from torch_bgdebias.probe.loggers import log_figures
from torch_bgdebias.writing import UNFINISHED

ROOT = Path(__file__).resolve().parents[2]
Writer = Callable[[Path], None]


class Mean(nn.Module):
    """Two classes by the mean of a channel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))[:, :2]


def command(*words: object) -> None:
    if code := cli.main([str(word) for word in words]):
        raise SystemExit(code)


def masked_folder(work: Path) -> Path:
    """Six pictures of two classes with masks, and six backgrounds."""
    root, rng = work / "data", np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((24, 24), np.uint8)
        mask[6:16, 7 : 15 + number // 2] = 255
        picture = np.where(mask[..., None] > 0, [200, 40, 30], [30, 60, 180]) + rng.integers(-12, 13, (24, 24, 3))
        for kind, pixels in (("images", picture.astype(np.uint8)), ("masks", mask), ("scenes", 255 - picture)):
            path = root / kind / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def reports(work: Path) -> Writer:
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(12, 3, 16, 16, generator=generator), torch.zeros(12, 1, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    batches = [(images, torch.arange(12) % 2, masks)]
    measured = [evaluate_background_bias(Mean(), batches, name=name, examples=2) for name in ("a", "b")]

    def write(out: Path) -> None:
        for report in measured:
            report.to_json(out / f"{report.model}.json")
        measured[0].to_html(out / "page.html")
        for comparison in filter(None, compare_models(measured)):
            comparison.to_json(out / "comparison.json")
        command("report", out / "a.json", out / "b.json", "--overwrite", "--out", out / "both.html")

    return write


def concepts(work: Path) -> Writer:
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(8, 3, 16, 16, generator=generator), torch.zeros(8, 1, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    samples = ConceptSamples(images, masks, torch.zeros(8, dtype=torch.int64))
    result = concept_transfer(ConceptProbe(net, ["1"]), samples, samples, methods=["net2vec"])
    return lambda out: result.to_json(out / "concepts.json")


def bank(work: Path) -> Writer:
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    whole = BackgroundBank(pixels, torch.arange(64) % 2)
    return lambda out: whole.save(out / "scenes.bank.pt")


def seen(work: Path) -> Writer:
    def write(out: Path) -> None:
        cache = SeenCache(out, "classifier")
        for number in range(4000):
            cache.put(number.to_bytes(16, "little"), torch.arange(5) + number % 7)
        cache.num_classes = 20
        cache.write()

    return write


def manifest(work: Path) -> Writer:
    def write(out: Path) -> None:
        records = Manifest(out)
        for number in range(40):
            if f"{number}.png" not in records.records:
                records.add({"file": f"{number}.png", "prompt": "x" * 500, "sha256": "0"})

    return write


def figures(work: Path) -> Writer:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])

    class Folder:
        def __init__(self, out: Path) -> None:
            self.log_dir = str(out)

    return lambda out: log_figures([Folder(out)], {"lines": figure}, step=1, prefix="bias")


def masks(work: Path) -> Writer:
    root = masked_folder(work)
    return lambda out: command("masks", root / "images", out)


def variants(work: Path) -> Writer:
    root = masked_folder(work)
    words = ["--names", "only_fg,mixed_rand", "--size", 24]
    finished = out_is_finished("only_fg", "mixed_rand")
    return lambda out: command("variants", root, out, *words, *(["--overwrite"] if finished(out) else []))


def out_is_finished(*folders: str) -> Callable[[Path], bool]:
    """A finished folder asks for --overwrite; one that was stopped goes on without it."""
    return lambda out: any((out / f).is_dir() and not (out / f / UNFINISHED).exists() for f in folders)


def generated(work: Path) -> Writer:
    return lambda out: command("backgrounds", "generate", out, "--source", "scenes", "-n", 3, "--size", 32)


def filtered(work: Path) -> Writer:
    root = masked_folder(work)
    (work / "names.txt").write_text("dark\nbright\n")
    words = ["--model", "killing:Mean", "--top-k", 1, "--size", 8, "--class-names", work / "names.txt", "--no-cache"]
    words += ["--forbidden", "bright", "--device", "cpu"]
    return lambda out: command("backgrounds", "filter", root / "scenes", *words, "--copy", out)


def probe(work: Path) -> Writer:
    root = masked_folder(work)
    words = ["--model", "killing:Mean", "--size", 24, "--device", "cpu", "--variants", "only_fg"]
    words += ["--attributions", ""]
    return lambda out: command("probe", "--data", root, *words, "--overwrite", "--out", out)


def demo(work: Path) -> Writer:
    words = ["--samples", 96, "--epochs", 1, "--size", 16, "--methods", "baseline"]
    return lambda out: command("demo", *words, "--overwrite", "--out", out)


def link(work: Path) -> Writer:
    """The last steps of building the library: sealed, renamed, copied into the sources."""
    setuptools.setup = lambda **keywords: None
    spec = importlib.util.spec_from_file_location("setup_of_the_project", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    linked = Path(sys.modules["_ctypes"].__file__ or "").read_bytes()
    os.chdir(ROOT)

    def write(out: Path) -> None:
        (out / "_C.so.part").write_bytes(linked)
        module.put_in_place(out / "_C.so.part", out / "_C.so")
        builder = module.BuildKernels(setuptools.Distribution())
        builder.copy_file(str(out / "_C.so"), str(out / "_C.inplace.so"))

    return write


WRITERS: dict[str, Callable[[Path], Writer]] = {
    maker.__name__: maker
    for maker in (
        reports, concepts, bank, seen, manifest, figures, masks, variants, generated, filtered, probe, demo, link
    )
}  # fmt: skip


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
_UNMARKED = {"reports", "concepts", "bank", "seen", "manifest", "figures", "link"}


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
    sys.modules["killing"] = sys.modules["__main__"]  # for --model killing:Mean
    torch.set_num_threads(1)
    folder, count, *chosen = sys.argv[1:]
    print(json.dumps({name: problems(name, Path(folder) / name, int(count)) for name in chosen}))
