"""The Python of docs/attribution.md, docs/probe.md and of the metrics on attributions in docs/metrics.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def names():
    """What the pages take for given: a model, a batch of it, a loader, a bank."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    image, label, mask = torch.rand(6, 3, 14, 14), torch.arange(6) % 2, torch.zeros(6, 1, 14, 14)
    mask[:, :, 4:9, 3:10] = 1
    model = nn.Sequential(*layers)
    batch = {"image": image, "label": label, "mask": mask}
    return {"model": model, **batch, "loader": [(image, label, mask)], "bank": torch.rand(5, 3, 14, 14)}


def run(code: str, names: dict[str, object]) -> None:
    exec(compile(code, "docs", "exec"), names)


def test_attribution(names):
    pytest.importorskip("zennit")
    (code,) = blocks("attribution.md")
    run(code, names)
    assert names["heatmap"].shape == names["relevance"].shape == names["found"].attribution.shape == (6, 1, 14, 14)
    assert names["found"].values.shape == (6, 49)


def test_probe(names):
    (code,) = blocks("probe.md")
    run(code, names)
    assert list(names["report"].scores) == ["pixel_ratio/grad_cam"]


def test_metrics(names):
    chosen = [code for code in blocks("metrics.md") if "PixelRatio" in code or "Adversarial" in code]
    assert len(chosen) == 2
    run(chosen[0], names)
    assert names["metric"].histogram().shape == (10, 50)
    run(chosen[1], names)
    assert names["metric"].fooled_by().shape == (5,)
    assert names["found"].robust.shape == (6,)
