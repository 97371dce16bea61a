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
    for folder in ("mixed_rand", "fg_mask"):
        (tmp_path / f"bg_challenge/{folder}/val/08_fish").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "bg_challenge/mixed_rand/val/08_fish/fg_n0_1_bg_n0_2.JPEG")
    np.save(tmp_path / "bg_challenge/fg_mask/val/08_fish/n0_1.npy", np.ones((8, 8), bool))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    layers = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1000))
    names: dict[str, object] = {"model": torch.nn.Sequential(*layers)}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    image, _, mask = names["train"][3]
    assert type(image) is torch.Tensor
    assert image.shape == (3, 64, 64)
    assert mask.shape == (1, 64, 64)
    assert names["made"].valid.all()
    assert names["background_label"] in range(10)
    assert names["correct"].shape == (1,)
