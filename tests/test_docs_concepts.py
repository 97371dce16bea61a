"""The Python blocks of docs/concepts.md run, on small random data, and find what was planted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torch_bgdebias.probe.results.aggregate import summarise
from torch_bgdebias.probe.results.measurement import ImageResults

PAGE = Path(__file__).resolve().parents[1] / "docs" / "concepts.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


class Net(nn.Module):
    """Layers by the names that the page uses; they keep the colours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = nn.Identity(), nn.Identity(), nn.AvgPool2d(2)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def pictures(seed: int, n: int = 24):
    """Birds have a red square, boats a green one, on grey."""
    generator = torch.Generator().manual_seed(seed)
    concepts = torch.arange(n) % 2
    masks = torch.zeros(n, 1, 16, 16)
    for i in range(n):
        masks[i, :, 3 : 9 + i % 4, 4:12] = 1
    colours = torch.eye(3)[concepts][:, :, None, None]
    grey = 0.4 + 0.05 * torch.rand(n, 3, 16, 16, generator=generator)
    return masks * colours + (1 - masks) * grey, masks, concepts


def painted(red: float, green: float, blue: float):
    colour = torch.tensor([red, green, blue])[None, :, None, None]
    return lambda images, masks: masks * images + (1 - masks) * colour


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_blocks_run():
    pytest.importorskip("matplotlib")
    images, masks, concepts = pictures(0)
    test_images, test_masks, test_concepts = pictures(1)
    label = np.arange(4, dtype=np.int64) % 2
    results = ImageResults(
        np.arange(4, dtype=np.uint64), label, {"original": label}, {"original": np.ones(4, np.float32)}
    )
    namespace = {
        "model": Net(), "images": images, "masks": masks, "concepts": concepts,
        "test_images": test_images, "test_masks": test_masks, "test_concepts": test_concepts,
        "paste": painted(0.2, 0.2, 0.9), "patches": painted(0.6, 0.6, 0.6),
        "on_roads": painted(0.95, 0.05, 0.0), "on_snow": painted(0.45, 0.45, 0.45),
        "report": summarise(results, model="net", class_names=["bird", "boat"], n_resamples=20),
    }  # fmt: skip
    assert len(BLOCKS) == 1
    exec(compile(BLOCKS[0], str(PAGE), "exec"), namespace)
    assert float(namespace["iou"]["layer3"].mean()) > 0.7
    assert namespace["result"].conditions == ("original", "pasted", "voronoi")
    lost = {(row.concept, row.category) for row in namespace["biased_pairs"](namespace["rows"])}
    assert ("0", "road") in lost  # red squares on red roads
    assert not {category for _, category in lost} & {"snow"}
    assert "0 on road (layer3)" in namespace["report"].summary()
