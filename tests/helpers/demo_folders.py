"""Folders for the demo, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias import cli

SMALL = ["--samples", "96", "--epochs", "1", "--size", "16"]


def write_objects(root: Path, classes: int = 3, each: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        for kind in ("images", "masks"):
            (root / kind / f"class{label}").mkdir(parents=True, exist_ok=True)
        for i in range(each):
            image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            mask = np.zeros((20, 30), np.uint8)
            mask[5 : 9 + label, 10:16] = 255
            Image.fromarray(image).save(root / "images" / f"class{label}" / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / f"class{label}" / f"{i}.png")
    return root


def write_scenes(root: Path, counts: dict[str, int]) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (24, 20), (20 * number + i, 80, 200 - 20 * number)).save(root / name / f"{i}.png")
    return root


def error_of(argv: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert cli.main(["demo", *argv]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err
