"""The Python of docs/data.md runs, top to bottom, on a small folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_examples_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("cow", "ship"):
        for i in range(6):
            cover = np.zeros((40, 50), np.uint8)
            cover[10:30, 12:36] = 255
            for kind, pixels in (("images", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)), ("masks", cover)):
                path = tmp_path / "data" / kind / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    image, _, mask = names["train"][3]
    assert type(image) is torch.Tensor
    assert image.shape == (3, 64, 64)
    assert mask.shape == (1, 64, 64)
    assert names["made"].valid.all()
    assert names["background_label"] in range(10)
