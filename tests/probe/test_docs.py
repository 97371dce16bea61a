"""The Python of docs/metrics.md on a model, a loader and a training run does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from probe_toy import ToyImages, cheat, honest
from torch.utils.data import DataLoader

from torch_bgdebias.probe import compare_models, evaluate_background_bias

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_examples_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    wanted = [b for b in blocks if "PixelRatio" not in b and "Adversarial" not in b]
    assert len(wanted) == 3
    loader = DataLoader(ToyImages(40), batch_size=40)
    image, label, mask = next(iter(loader))
    names = {"image": image, "label": label, "mask": mask, "model": cheat().eval(), "loader": loader}
    names |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    for block in wanted:
        with torch.no_grad():
            exec(compile(block, str(PAGE), "exec"), names)
    assert names["gap"].compute() > 0.3
    assert (tmp_path / "report.json").exists()
    assert "it reads part of its answer off the background" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert names["trainer"].callbacks
    found = compare_models([names["report"], evaluate_background_bias(honest(), loader, mean=[0.0] * 3, std=[1.0] * 3)])
    assert found[0].figures["bg_gap"].corrected < 0.001
    assert "bg_gap changed in" in found[0].summary()
