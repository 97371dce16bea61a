"""Everything in the package that writes files, small enough to be run many times: prepared first, then called.

``killing.py`` kills them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
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
from torch_bgdebias.probe import compare_models, evaluate_background_bias
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


class Small(nn.Sequential):
    """Two classes by a linear layer."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))


def masked_folder(work: Path, pictures: int = 6) -> Path:
    """Pictures of two classes with masks, and as many backgrounds."""
    root, rng = work / "data", np.random.default_rng(0)
    for number in range(pictures):
        mask = np.zeros((24, 24), np.uint8)
        mask[6:16, 7 : 15 + number // 2 % 8] = 255
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
    words = ["--model", "writers:Mean", "--top-k", 1, "--size", 8, "--class-names", work / "names.txt", "--no-cache"]
    words += ["--forbidden", "bright", "--device", "cpu"]
    return lambda out: command("backgrounds", "filter", root / "scenes", *words, "--copy", out)


def probe(work: Path) -> Writer:
    root = masked_folder(work)
    words = ["--model", "writers:Mean", "--size", 24, "--device", "cpu", "--variants", "only_fg"]
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


def parquet(work: Path) -> Writer:
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(12, 3, 16, 16, generator=generator), torch.zeros(12, 1, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    report = evaluate_background_bias(Mean(), [(images, torch.arange(12) % 2, masks)], name="a", examples=2)
    return lambda out: report.to_parquet(out / "a.parquet")


def converted(work: Path) -> Writer:
    """Masks of outlines, with masks.json."""
    root = masked_folder(work)
    for number in range(6):
        shape = {"label": "a", "points": [[5, 6], [17, 7], [12, 18]], "shape_type": "polygon"}
        content = {"imagePath": f"{number}.png", "imageHeight": 24, "imageWidth": 24, "shapes": [shape]}
        path = work / "outlines" / f"class{number % 2}" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    words = ["convert", work / "outlines", "--images", root / "images", "--to"]
    return lambda out: command("masks", *words, out)


def made(work: Path) -> Writer:
    """Masks of a maker of the user's, with masks.json; a folder that was stopped goes on."""
    root = masked_folder(work)
    return lambda out: command("masks", root / "images", out, "--with", "writers:brighter")


def brighter(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 0] > images[:, 2]).float()


def head(work: Path) -> Writer:
    root = masked_folder(work, 24)
    words = ["--model", "writers:Small", "--size", 24, "--device", "cpu", "--copies", 1, "--overwrite"]
    return lambda out: command("head", "--data", root, *words, "--out", out / "head.pt")


def audit(work: Path) -> Writer:
    root = masked_folder(work, 48)
    words = ["--permutations", 99, "--overwrite"]
    return lambda out: command("audit", root, *words, "--out", out)


def certify(work: Path) -> Writer:
    root = masked_folder(work)
    words = ["--model", "writers:Mean", "--size", 24, "--device", "cpu", "--per-object", 2, "--overwrite"]
    return lambda out: command("certify", "--data", root, "--backgrounds", root / "scenes", *words, "--out", out)


def train(work: Path) -> Writer:
    """Lightning's command line: its checkpoint and its settings."""
    root = masked_folder(work, 12)
    text = TRAINING.format(root=root)

    def write(out: Path) -> None:
        config = work / "train.yaml"
        config.write_text(text)
        words = ["--config", config, "--trainer.logger.init_args.save_dir", out]
        command("train", *words, *(["--overwrite"] if (out / "run" / "config.yaml").exists() else []))

    return write


TRAINING = """
seed_everything: 0
model:
  class_path: torch_bgdebias.train.ImageClassifier
  init_args: {{network: "writers:Small"}}
data:
  class_path: torch_bgdebias.train.MaskedFolders
  init_args: {{train: {root}, val: {root}, size: 24, batch_size: 4}}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {{class_path: CSVLogger, init_args: {{save_dir: ., name: "", version: run}}}}
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {{filename: last, enable_version_counter: false}}
"""


WRITERS: dict[str, Callable[[Path], Writer]] = {
    maker.__name__: maker
    for maker in (
        reports, concepts, bank, seen, manifest, figures, masks, variants, generated, filtered, probe, demo, link,
        parquet, converted, made, head, audit, certify, train,
    )
}  # fmt: skip
