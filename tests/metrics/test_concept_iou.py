from __future__ import annotations

import pickle

import pytest
import torch

from torch_bgdebias.concepts import concept_iou
from torch_bgdebias.metrics import ConceptIoU


def test_agrees_with_concept_iou_over_batches():
    g = torch.Generator().manual_seed(0)
    vectors, maps = torch.randn(7, 4, generator=g), torch.randn(7, 4, 6, 6, generator=g)
    masks, concepts = (torch.rand(7, 6, 6, generator=g) > 0.5).float(), torch.tensor([0, 1, 0, 1, 1, 0, 0])
    expected = concept_iou(vectors, maps, masks)
    scores = (vectors[:, :, None, None] * maps).sum(1)
    micro, each = ConceptIoU(), ConceptIoU(num_classes=3, average="none")
    for part in (slice(0, 4), slice(4, 7)):
        micro.update(scores[part], masks[part])
        each.update(scores[part, None], masks[part, None], concepts[part])
    torch.testing.assert_close(micro.compute(), expected.mean())
    value = pickle.loads(pickle.dumps(each)).compute()
    torch.testing.assert_close(value[:2], torch.stack([expected[concepts == c].mean() for c in (0, 1)]))
    assert value[2].isnan()


def test_images_without_iou_are_left_out():
    metric = ConceptIoU()
    metric.update_iou(torch.tensor([0.5, float("nan")]))
    metric.update(-torch.ones(1, 2, 2), torch.zeros(1, 2, 2))
    assert float(metric.compute()) == 0.5


def test_errors():
    with pytest.raises(ValueError, match="mask: expected the shape of scores"):
        ConceptIoU().update(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="concept: expected the concept"):
        ConceptIoU(num_classes=2).update_iou(torch.tensor([0.5]))
    with pytest.warns(UserWarning, match="no valid sample"):
        assert ConceptIoU().compute().isnan()
