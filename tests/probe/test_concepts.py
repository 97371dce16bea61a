from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from torch_bgdebias.concepts import ConceptTransfer
from torch_bgdebias.metrics import correct_p_values, paired_permutation_test
from torch_bgdebias.probe.concepts import analyse_concepts, biased_pairs, concept_heatmap, concept_tables
from torch_bgdebias.probe.report import BackgroundBiasReport, report_html, summarise
from torch_bgdebias.probe.results.images import ImageResults


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
    transfer = result()
    rows = analyse_concepts(transfer, "late")
    assert [(r.concept, r.category) for r in rows] == [
        ("bird", "road"),
        ("bird", "snow"),
        ("boat", "road"),
        ("boat", "snow"),
    ]
    assert [(r.concept, r.category) for r in biased_pairs(rows)] == [("boat", "snow")]
    row, table = rows[3], transfer.table("late")
    assert row.iou.value == pytest.approx(table[1, 2])
    assert row.iou.low < row.iou.value < row.iou.high
    assert row.relative_drop == pytest.approx(transfer.relative_drop("late")[1, 2])
    own = transfer.values("late")[transfer.labels == 1]
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


def test_a_report_keeps_tables_in_its_json(tmp_path):
    transfer = result()
    (table,) = concept_tables(transfer)
    assert table.rows == analyse_concepts(transfer, "late")
    assert table.fits[0].original.value == pytest.approx(np.nanmean(transfer.iou[0, 0, 0, :, 0]))
    assert table.fits[0].others.n == 39  # one image has no value on one background
    assert table.fits[0].cosine == pytest.approx({"bird": 1, "boat": 1})
    assert "1 of 4 (concept, background) pairs lose\n    boat on snow (late): IoU" in table.summary()
    with pytest.raises(ValueError, match="at least one background category besides the original"):
        concept_tables(dataclasses.replace(transfer, categories=("original",), iou=transfer.iou[..., :1]))

    rows = [dataclasses.replace(table.rows[0], relative_drop=float("nan")), *table.rows[1:]]
    label = np.arange(4, dtype=np.int64) % 2
    images = ImageResults(
        np.arange(4, dtype=np.uint64), label, {"original": label}, {"original": np.ones(4, np.float32)}
    )
    report = summarise(images, model="net", class_names=["bird", "boat"])
    report.concepts = [dataclasses.replace(table, rows=rows)]
    report.to_json(tmp_path / "r.json")
    (read,) = BackgroundBiasReport.from_json(tmp_path / "r.json").concepts
    assert np.isnan(read.rows[0].relative_drop)
    assert (read.rows[1:], read.fits) == (table.rows[1:], table.fits)
    assert read.summary() in report.summary()

    data = json.loads((tmp_path / "r.json").read_text())
    del data["concepts"]
    with pytest.raises(ValueError, match=r"missing fields \['concepts'\]"):
        BackgroundBiasReport.from_dict(data)
    assert BackgroundBiasReport.from_dict({**data, "schema": "torch_bgdebias.report/2"}).concepts == []


def test_several_models_in_one_page():
    (table,) = concept_tables(result())
    reports = []
    for name in ("before", "after"):
        label = np.arange(4, dtype=np.int64) % 2
        sure = {"original": np.ones(4, np.float32)}
        images = ImageResults(np.arange(4, dtype=np.uint64), label, {"original": label}, sure)
        reports.append(summarise(images, model=name, class_names=["bird", "boat"]))
    assert "Concepts on other" not in report_html(reports)
    reports[1].concepts = [table]
    page = report_html(reports)
    assert "after: late, Net2Vec: 1 of 4 pairs lose" in page
    assert "before: late" not in page
    assert f"<strong class='loss'>{table.rows[3].iou.value:.2f}</strong>" in page
    assert page.count("<strong class='loss'>") == 1
    pytest.importorskip("matplotlib")
    assert "concepts/late/net2vec" in reports[1].figures
