"""From images to a report: a network that keeps colours, tested on backgrounds that hide some of its concepts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, concept_transfer
from torch_bgdebias.probe import analyse_concepts, biased_pairs, concept_heatmap, concept_tables
from torch_bgdebias.probe.report import summarise
from torch_bgdebias.probe.results.images import ImageResults


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
def test_what_was_planted_is_found():
    pytest.importorskip("matplotlib")
    fitted, tested = pictures(0), pictures(1)
    label = np.arange(4, dtype=np.int64) % 2
    results = ImageResults(
        np.arange(4, dtype=np.uint64), label, {"original": label}, {"original": np.ones(4, np.float32)}
    )
    report = summarise(results, model="net", class_names=["bird", "boat"])

    probe = ConceptProbe(Net())
    vectors = probe.fit(*fitted, names=["bird", "boat"], method="net2vec")
    assert float(probe.iou(vectors, *tested)["layer3"].mean()) > 0.7

    result = concept_transfer(
        probe,
        ConceptSamples(*fitted),
        ConceptSamples(*tested),
        conditions={"pasted": painted(0.2, 0.2, 0.9), "voronoi": painted(0.6, 0.6, 0.6)},
        categories={"road": painted(0.95, 0.05, 0.0), "snow": painted(0.45, 0.45, 0.45)},
    )
    assert result.conditions == ("original", "pasted", "voronoi")
    rows = analyse_concepts(result, "layer3")
    concept_heatmap(rows)
    lost = {(row.concept, row.category) for row in biased_pairs(rows)}
    assert ("0", "road") in lost  # red squares on red roads
    assert not {category for _, category in lost} & {"snow"}
    report.concepts = concept_tables(result)
    assert "0 on road (layer3)" in report.summary()
