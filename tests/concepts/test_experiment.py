from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_iou, concept_transfer


class Identity(nn.Module):
    """The image is the map: what the vectors pick up is known."""

    def __init__(self):
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x):
        return self.same(x)


def samples(n=12, seed=0):
    """Concept 0 is red, concept 1 green, both on noise; blue is the sky's."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, 1, 12, 12)
    masks[:, :, 3:9, 3:9] = 1
    concepts = torch.arange(n) % 2
    images = 0.2 * torch.rand(n, 3, 12, 12, generator=g) - 0.5
    for i, c in enumerate(concepts.tolist()):
        images[i, c] += masks[i, 0]
    return ConceptSamples(images, masks, concepts)


def red(images, masks):
    background = torch.full_like(images, -0.4)
    background[:, 0] = 0.5
    return images * masks + background * (1 - masks)


def made():
    probe = ConceptProbe(Identity(), ["same"], size=12)
    return concept_transfer(
        probe,
        samples(),
        samples(seed=1),
        conditions={"red": red, "both": [red, samples().images]},
        categories={"red": red},
        names=["apple", "leaf"],
    )


def test_a_background_of_the_concepts_colour_costs_its_iou():
    result = made()
    assert result.iou.shape == (1, 2, 3, 12, 2)
    assert result.conditions == ("original", "red", "both")
    table = result.table("same")
    assert table[0, 0] > 0.9  # apples stand out of noise
    assert table[0, 1] < 0.5  # and drown in red
    assert table[1, 1] > 0.9  # leaves do not
    drop = result.relative_drop("same")
    assert drop[0, 1] == pytest.approx(1 - table[0, 1] / table[0, 0])
    test = samples(seed=1)
    vector = torch.tensor(result.vectors["same"][0, 1, 1], dtype=torch.float32)
    expected = concept_iou(vector, red(test.images, test.masks), test.masks)[1::2]
    np.testing.assert_allclose(result.values("same", condition="red")[1::2, 1], expected, rtol=1e-5)
    cosine = result.cosine_similarity("same")
    assert cosine.shape == (2, 3, 3)
    np.testing.assert_allclose(np.einsum("gtt->gt", cosine), 1.0)
    a, b = result.vectors["same"][0, 0, 0], result.vectors["same"][0, 1, 0]
    assert cosine[0, 0, 1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_json_brings_everything_back(tmp_path):
    result = made()
    result.iou[0, 0, 0, 0, 0] = np.nan
    result.to_json(tmp_path / "x.json")
    back = ConceptTransfer.from_json(tmp_path / "x.json")
    np.testing.assert_array_equal(back.iou, result.iou)
    np.testing.assert_array_equal(back.vectors["same"], result.vectors["same"])
    assert back.to_dict() == result.to_dict()


def test_errors():
    probe, train = ConceptProbe(Identity(), ["same"], size=12), samples()
    with pytest.raises(ValueError, match="always there"):
        concept_transfer(probe, train, train, categories={"original": red})
    with pytest.raises(ValueError, match=r"conditions\['small'\].*expected images of shape"):
        concept_transfer(probe, train, train, conditions={"small": train.images[..., :6]})
    with pytest.raises(ValueError, match="at least one background"):
        concept_transfer(probe, train, train, conditions={"none": []})
    with pytest.raises(ValueError, match="layer: expected one of same"):
        made().table("other")
