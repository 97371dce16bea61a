"""The lines that experiments have kept: each says how it came about, and the tables are made of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch_bgdebias.data import IMAGENET9_RANGES
from torch_bgdebias.named_models import LoadedModel

ROOT = Path(__file__).resolve().parents[1] / "experiments"
#: by folder, what a line is called in the table that is made of it
TABLES = {
    "clad": lambda run, lines: run.tables(lines),
    "concepts": lambda run, lines: run.tables(lines),
    "sav": lambda run, lines: run.show(lines),
}


def lines_of(topic: str) -> list[dict]:
    path = ROOT / topic / "results.jsonl"
    if not path.exists():
        pytest.skip(f"no line has been kept of experiments/{topic}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("topic", [*TABLES, "isnet"])
def test_lines_say_how_they_came_about(topic):
    for line in lines_of(topic):
        assert "seed" in line["settings"]
        assert line["versions"].keys() >= {"torch", "numpy", "torch_bgdebias"}
        assert line["machine"]["processor"]
        assert line["machine"]["commit"]
        assert len(line["date"]) == len("2026-11-28")


@pytest.mark.parametrize("topic", TABLES)
def test_every_line_is_in_a_table(topic):
    lines = lines_of(topic)
    text = TABLES[topic](importlib.import_module(f"experiments.{topic}.run"), lines)
    assert text.count("\n| --- |") + text.count("\n| --- ") >= 1
    for line in lines:
        assert line["machine"]["processor"] in text
    if topic == "clad":
        assert all(f"| {line['mixed_rand']:.1f} " in text for line in lines if [*map(key, lines)].count(key(line)) == 1)


def key(line: dict) -> dict:
    """What makes a row of a table: all settings but the seed."""
    return {name: value for name, value in line["settings"].items() if name != "seed"}


def test_isnets_table(capsys):
    lines = lines_of("isnet")
    run = importlib.import_module("experiments.isnet.run")
    run.table(run.arguments(["table"]))
    printed = capsys.readouterr().out
    for line in lines:
        if [*map(key, lines)].count(key(line)) == 1:
            assert all(f"| {value:.1f} " in printed for value in line["accuracy"].values())


def write_imagenet9(root: Path, pictures: int = 6) -> None:
    """The release's layout in small: nine classes told apart by the object's colour alone."""
    colours = [(r, g, b) for r in (40, 140, 240) for g in (40, 140, 240) for b in (140,)]
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:12, 4:12] = True
    for split in ("train", "val"):
        for label, name in enumerate(IMAGENET9_RANGES):
            folders = [root / kind / split / f"{label:02d}_{name}" for kind in ("original", "mixed_rand", "fg_mask")]
            for folder in folders:
                folder.mkdir(parents=True)
            for i in range(pictures):
                pixels = np.random.default_rng([label, i, len(split)]).integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[mask] = colours[label]
                Image.fromarray(pixels).save(folders[0] / f"n{label}_{i}.JPEG", quality=95)
                Image.fromarray(pixels).save(folders[1] / f"fg_n{label}_{i}_bg_n9_{i}.JPEG", quality=95)
                np.save(folders[2] / f"n{label}_{i}.npy", mask)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_new_last_layer_on_a_small_imagenet9(mixed, tmp_path, monkeypatch):
    write_imagenet9(tmp_path)
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 64, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    network = nn.Sequential(*body, nn.Linear(64, 1000))
    run = importlib.import_module("experiments.imagenet9.run")
    monkeypatch.setattr(run, "load_model", lambda *name, **options: LoadedModel(network))
    places = ["--train", str(tmp_path), "--test", str(tmp_path), "--out", str(tmp_path / "lines.jsonl")]
    line = run.run(run.arguments(["fit", *places, "--size", "16", *["--mixed"] * mixed]))
    assert line["before"].keys() == line["after"].keys() == {"original", "mixed_rand"}  # what the folder has
    assert line["images"] == 54 * (1 + mixed)
    assert line["before"]["original"] < 30
    assert line["after"]["original"] > 90
    table = run.table(run.read_lines([tmp_path / "lines.jsonl"]))
    assert f"| timm:resnet50, after | {line['after']['original']:.1f} | - |" in table
