"""Changes between models: intervals, tests, corrections, over all images and per class, in JSON, text and HTML."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from torch_bgdebias.metrics import correct_p_values, mean_difference_interval, paired_permutation_test
from torch_bgdebias.probe import BackgroundBiasReport, ImageResults, compare_models, summarise
from torch_bgdebias.probe.page.render import section_html
from torch_bgdebias.probe.page.tables import classes_section
from torch_bgdebias.probe.results.spelling import p_words, points

K, N = 6, 300
LABEL = np.arange(N) % K


def make(name: str, rand_wrong: np.ndarray, *, same_wrong: np.ndarray | None = None, first: int = 0, seed: int = 0):
    """A model that is wrong on random backgrounds where told, right elsewhere."""
    same_wrong = np.zeros(N, bool) if same_wrong is None else same_wrong
    wrong = {"original": np.zeros(N, bool), "mixed_same": same_wrong, "mixed_rand": rand_wrong}
    said = {v: np.where(w, (LABEL + 1) % K, LABEL) for v, w in wrong.items()}
    sure = {v: np.ones(N, np.float32) for v in said}
    images = ImageResults(np.arange(first, first + N, dtype=np.uint64), LABEL, said, sure)
    images.scores["pixel_ratio/grad_cam"] = np.random.default_rng(seed).random(N).astype(np.float32)
    return summarise(images, model=name, class_names=[f"class {i}" for i in range(K)])


@pytest.fixture
def reports() -> list[BackgroundBiasReport]:
    """The first is wrong on half of class 2 and a tenth of all; the second mends class 2 alone, the third nothing."""
    rng = np.random.default_rng(0)
    noise = rng.random(N) < 0.1
    bad = noise | ((LABEL == 2) & (rng.random(N) < 0.6))
    return [make("first", bad), make("second", noise, seed=1), make("third", bad)]


def test_change_is_the_paired_interval_and_test_of_the_columns(reports: list[BackgroundBiasReport]) -> None:
    comparisons = compare_models(reports, seed=4)
    assert [(c.first, c.second, c.n) for c in comparisons] == [("first", "second", N), ("first", "third", N)]
    before, after = (r.images.correct("mixed_rand").astype(float) for r in reports[:2])
    change = comparisons[0].figures["accuracy/mixed_rand"]
    expected = mean_difference_interval(after, before)
    assert (change.difference.value, change.difference.low, change.difference.high) == (
        expected.value,
        expected.low,
        expected.high,
    )
    assert change.difference.low < change.difference.value < change.difference.high
    assert change.p_value == paired_permutation_test(after, before).p_value
    gap = comparisons[0].figures["bg_gap"].difference
    assert gap.value == pytest.approx(reports[1].bg_gap.value - reports[0].bg_gap.value)


def test_figures_of_all_models_are_corrected_together(reports: list[BackgroundBiasReport]) -> None:
    comparisons = compare_models(reports)
    changes = [c for comparison in comparisons for c in comparison.figures.values()]
    expected = correct_p_values([c.p_value for c in changes])
    assert [c.corrected for c in changes] == pytest.approx(expected.tolist())
    assert comparisons[0].settings["tests"]["figures"] == len(changes) == 10
    alone = compare_models(reports[:2])[0]
    assert alone.figures["bg_gap"].corrected < comparisons[0].figures["bg_gap"].corrected


def test_only_the_class_that_changed_is_found(reports: list[BackgroundBiasReport]) -> None:
    second, third = compare_models(reports)
    assert [c.name for c in second.changed_classes()] == ["class 2"]
    assert third.changed_classes() == []
    assert second.settings["tests"]["classes"]["bg_gap"] == 2 * K
    raw = [c.changes["bg_gap"].p_value for x in (second, third) for c in x.per_class]
    corrected = [c.changes["bg_gap"].corrected for x in (second, third) for c in x.per_class]
    assert corrected == pytest.approx(correct_p_values(raw).tolist())
    rows = LABEL == 2
    expected = paired_permutation_test(
        *(r.images.scores["pixel_ratio/grad_cam"][rows].astype(float) for r in (reports[1], reports[0]))
    )
    assert second.per_class[2].changes["pixel_ratio/grad_cam"].p_value == expected.p_value
    other = compare_models(reports, correction="benjamini-hochberg")[0]
    assert other.per_class[2].changes["bg_gap"].corrected <= second.per_class[2].changes["bg_gap"].corrected


def test_correction_keeps_false_discoveries_over_classes_rare() -> None:
    """Scores that differ by chance alone, in six classes: without a correction a quarter of the trials find some."""
    right, corrected, raw = np.zeros(N, bool), 0, 0
    for trial in range(40):
        one, two = (make(str(i), right, seed=2 * trial + i) for i in range(2))
        comparison = compare_models([one, two], n_permutations=199)[0]
        corrected += bool(comparison.changed_classes("pixel_ratio/grad_cam"))
        raw += any(c.changes["pixel_ratio/grad_cam"].p_value < 0.05 for c in comparison.per_class)
    assert corrected <= 5
    assert raw >= 6


def test_an_image_without_the_figure_is_left_out_of_its_change() -> None:
    one, two = make("one", np.zeros(N, bool)), make("two", np.ones(N, bool))
    two.images.prediction["mixed_rand"][:10] = -1
    one.images.prediction["mixed_same"][5:20] = -1
    comparison = compare_models([one, two])[0]
    assert comparison.figures["accuracy/mixed_rand"].difference.n == N - 10
    assert comparison.figures["bg_gap"].difference.n == N - 20
    assert comparison.figures["bg_gap"].difference.value == 1


def test_json_text_and_settings(reports: list[BackgroundBiasReport], tmp_path: Path) -> None:
    comparison = compare_models(reports, confidence=0.9)[0]
    comparison.to_json(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["schema"] == "torch_bgdebias.comparison/1"
    assert data["figures"]["bg_gap"]["corrected"] == comparison.figures["bg_gap"].corrected
    assert data["per_class"][2]["changes"]["bg_gap"]["difference"]["low"] < 0
    assert data["settings"]["confidence"] == 0.9
    text = comparison.summary()
    assert "second against first: 300 common images, 90 % paired intervals" in text
    gap = comparison.figures["bg_gap"].difference
    assert f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], p < 0.001 (n = 300)" in text
    assert "BG-Gap changed in 1 of 6 classes (p < 0.1, corrected for 12 tests):\n    class 2: " in text


def test_the_text_calls_figures_as_a_report_does_and_leaves_the_rest_to_the_page(
    reports: list[BackgroundBiasReport],
) -> None:
    comparison = compare_models(reports)[0]
    lines = comparison.summary().splitlines()
    shown = [line.split("  ")[1].strip() for line in lines[2:] if re.search(r"\(n = \d+\)$", line) and line[2] != " "]
    assert shown[:3] == ["BG-Gap", "original accuracy", "mixed_same accuracy"]
    assert "mixed_rand accuracy" in shown
    assert not [name for name in shown if "/" in name and name not in reports[0].scores]
    others = [line for line in lines if "further figure" in line]
    assert len(shown) + int(others[0].split()[0] if others else 0) == len(comparison.figures)
    head = reports[0].summary()
    assert all(name.split()[0] in head for name in shown)


def test_models_on_other_images_are_not_compared(reports: list[BackgroundBiasReport]) -> None:
    elsewhere = make("elsewhere", np.zeros(N, bool), first=10_000)
    assert compare_models([reports[0], elsewhere, reports[1]])[0] is None
    assert compare_models([reports[0], elsewhere, reports[1]])[1] == compare_models([reports[0], reports[1]])[0]
    assert compare_models(reports[:1]) == []
    with pytest.raises(ValueError, match="reports: expected at least one BackgroundBiasReport, got none"):
        compare_models([])


def test_the_page_shows_changes_with_intervals_and_classes_with_tests(
    reports: list[BackgroundBiasReport], tmp_path: Path
) -> None:
    comparisons = compare_models(reports)
    gap = comparisons[0].figures["bg_gap"].difference
    shown = [f"{100 * x:+.1f}".replace("-", "−") for x in (gap.value, gap.low, gap.high)]
    pair = (
        reports[0]
        .to_html(tmp_path / "r.html", others=reports[1:2], comparisons=comparisons[:1])
        .read_text(encoding="utf-8")
    )
    assert f"{shown[0]}<span class='about'><small>{shown[1]} to {shown[2]}</small><small>p &lt; 0.001</small>" in pair
    page = reports[0].to_html(tmp_path / "r.html", others=reports[1:]).read_text(encoding="utf-8")
    moved = "</small><small class='moved'>".join([f"change {shown[0]}", f"{shown[1]} to {shown[2]}", "p &lt; 0.001"])
    assert f"<small class='moved'>{moved}</small>" in page
    assert "Pixel ratio, grad cam" in page
    table = section_html(classes_section(reports, comparisons))
    rows = re.findall(r"<tr>(.*?)</tr>", re.findall(r"<tbody>(.*)</tbody>", table)[0])
    change = comparisons[0].per_class[2].changes["bg_gap"]
    ((place, row),) = ((place, row) for place, row in enumerate(rows) if "moved" in row)
    p = p_words(change.corrected).replace("<", "&lt;")
    assert f"<small>change {points(change.difference.value)}</small><small>{p}</small>" in row
    assert "data-value='class 2'" in row
    first = sorted(reports[0].per_class, key=lambda c: -abs(c.bg_gap.value))
    assert first[place].name == "class 2"
    assert [row.count("<small>change ") for row in rows] == [2] * K
    two = section_html(classes_section(reports[:2], comparisons[:1]))
    assert f"data-value='{change.difference.value:.6f}' class='delta sure'" in two
    assert two.count("class='delta") == K
    assert "corrected for 12 tests" in table
    assert "1 of 6 with second; 0 of 6 with third" in table


def test_classes_without_a_gap_are_compared_by_accuracy() -> None:
    def plain(name: str, wrong: int) -> BackgroundBiasReport:
        said = {"original": np.where(np.arange(N) < wrong, (LABEL + 1) % K, LABEL)}
        images = ImageResults(np.arange(N, dtype=np.uint64), LABEL, said, {"original": np.ones(N, np.float32)})
        return summarise(images, model=name, class_names=list("abcdef"))

    reports = [plain("one", 0), plain("two", 200)]
    comparisons = compare_models(reports)
    assert "change of" not in section_html(classes_section(reports))
    assert "Change is that of the accuracy against one" in section_html(classes_section(reports, comparisons))
    assert "original accuracy changed in 6 of 6 classes" in comparisons[0].summary()
    assert not math.isnan(comparisons[0].per_class[0].changes["accuracy/original"].corrected)


def test_why_an_interval_leaves_out_0_where_p_is_large_is_said(reports: list[BackgroundBiasReport]) -> None:
    """Five of 300 changed, all one way: the interval is of one figure, p of a test corrected for all of them."""
    few = make("few", reports[0].images.prediction["mixed_rand"] != LABEL, same_wrong=np.arange(N) < 5)
    (comparison,) = compare_models([reports[0], few])
    assert comparison is not None
    change = comparison.figures["accuracy/mixed_same"]
    assert change.difference.high < 0
    assert change.corrected > 0.05
    said = "an interval may leave out 0 where p is large, and p decides"
    assert said in comparison.summary()
    assert said in comparison.to_dict()["settings"]["interval_and_test"]
    (same,) = compare_models([reports[0], reports[0]])
    assert same is not None
    assert said not in same.summary()


def test_how_many_images_are_common_of_how_many(reports: list[BackgroundBiasReport]) -> None:
    """An image whose mask was drawn anew is another one: those that are left were all that was said."""
    before, after = reports[:2]
    assert f": {N} common images, 95 %" in compare_models([before, after])[0].summary()
    after.images.id[: N // 4] += np.uint64(1000 * N)
    comparison = compare_models([before, after])[0]
    assert f": {N - N // 4} common images of {N} and {N}, 95 %" in comparison.summary()
    assert comparison.to_dict()["settings"]["images"] == [N, N]
