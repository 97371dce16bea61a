from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.concepts import ConceptTransfer
from torch_bgdebias.metrics import correct_p_values, paired_permutation_test
from torch_bgdebias.probe.concepts import analyse_concepts, biased_pairs, concept_heatmap


def result(n=40):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    iou = rng.uniform(0.4, 0.6, (1, 1, 1, n, 1)) + rng.normal(0, 0.01, (1, 1, 1, n, 3))
    iou[0, 0, 0, labels == 1, 2] -= 0.2  # the second concept loses in snow
    iou[0, 0, 0, 0, 1] = np.nan
    vectors = {"late": rng.normal(size=(1, 1, 2, 4))}
    return ConceptTransfer(
        ("bird", "boat"), ("late",), ("net2vec",), ("original",), ("original", "road", "snow"), labels, iou, vectors, {}
    )


def test_the_planted_pair_alone_is_found():
    made = result()
    rows = analyse_concepts(made, "late")
    assert [(r.concept, r.category) for r in rows] == [
        ("bird", "road"),
        ("bird", "snow"),
        ("boat", "road"),
        ("boat", "snow"),
    ]
    assert [(r.concept, r.category) for r in biased_pairs(rows)] == [("boat", "snow")]
    row, table = rows[3], made.table("late")
    assert row.iou.value == pytest.approx(table[1, 2])
    assert row.iou.low < row.iou.value < row.iou.high
    assert row.relative_drop == pytest.approx(made.relative_drop("late")[1, 2])
    own = made.values("late")[made.labels == 1]
    assert row.p_value == paired_permutation_test(own[:, 2], own[:, 0], n_resamples=2000).p_value
    np.testing.assert_allclose([r.corrected for r in rows], correct_p_values([r.p_value for r in rows]))
    assert rows[0].iou.n == 19


def test_heatmap():
    pytest.importorskip("matplotlib")
    figure = concept_heatmap(analyse_concepts(result(), "late"))
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["original", "road", "snow"]
    assert sum("*" in t.get_text() for t in axes.texts) == 1
    np.testing.assert_allclose(axes.images[0].get_array(), result().table("late"))
    with pytest.raises(ValueError, match="at least one concept"):
        concept_heatmap([])
