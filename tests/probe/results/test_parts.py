"""The worst of many classes and groups, and gaps that may be chance: intervals that hold although they were chosen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.metrics import mean_interval
from torch_bgdebias.probe import ImageResults, summarise
from torch_bgdebias.probe.results.issues import issues
from torch_bgdebias.probe.results.parts import classes_as_parts, groups_as_parts, results_of, worst_of

K = 6


def images_of(right: dict[str, np.ndarray], label: np.ndarray, **fields) -> ImageResults:
    said = {name: np.where(column > 0, label, (label + 1) % K) for name, column in right.items()}
    sure = {name: np.ones(len(label), np.float32) for name in said}
    return ImageResults(np.arange(len(label), dtype=np.uint64), label, said, sure, **fields)


def drawn(rng: np.random.Generator, label: np.ndarray, chances: np.ndarray) -> ImageResults:
    return images_of({"original": rng.random(len(label)) < chances[label]}, label)


def test_the_worst_class_by_hand() -> None:
    label = np.repeat(np.arange(3), 20)
    right = {"original": np.ones(60), "mixed_same": np.ones(60), "mixed_rand": np.ones(60)}
    right["mixed_rand"][22:30] = 0  # class 1: 12 of 20
    right["original"][40:44] = 0
    worst = summarise(images_of(right, label), model="m", class_names=list("abc")).worst_class
    assert (worst.name, worst.variant, worst.among) == ("b", "mixed_rand", 9)
    alone = mean_interval(right["mixed_rand"][20:40], confidence=1 - 0.05 / 9)
    assert (worst.accuracy.value, worst.accuracy.low, worst.accuracy.high) == (0.6, alone.low, alone.high)
    assert worst.floor == alone.low


@pytest.mark.parametrize("chances", [[0.8] * K, [0.95, 0.9, 0.85, 0.8, 0.8, 0.8], [0.99] * K])
def test_the_interval_of_the_worst_class_holds(chances: list[float]) -> None:
    """That of the class that came out worst, and the floor under all; the plain interval misses far more often."""
    rng, truth, label = np.random.default_rng(1), np.array(chances), np.repeat(np.arange(K), 40)
    held, below, plain, times = 0, 0, 0, 400
    for _ in range(times):
        images = drawn(rng, label, truth)
        worst = worst_of(classes_as_parts(images, list("abcdef")), 0.95)
        chosen = "abcdef".index(worst.name)
        held += worst.accuracy.low <= truth[chosen] <= worst.accuracy.high
        below += worst.floor <= truth.min()
        uncorrected = mean_interval((images.prediction["original"] == label)[label == chosen])
        plain += uncorrected.low <= truth[chosen] <= uncorrected.high
    least = stats.binom.ppf(0.001, times, 0.95) / times
    assert held / times >= least
    assert below / times >= least
    if min(chances) == max(chances) == 0.8:
        assert plain / times < 0.93


def test_groups_have_their_own_table_and_worst() -> None:
    label = np.arange(80) % 2
    site, sex = np.repeat(["north", "south"], 40), np.tile(["f", "f", "m", "m"], 20)
    right = {
        "original": np.ones(80),
        "mixed_same": np.ones(80),
        "mixed_rand": np.r_[np.ones(40), np.zeros(20), np.ones(20)],
    }
    report = summarise(images_of(right, label, groups={"site": site, "sex": sex}), model="m", class_names=["a", "b"])
    assert {name: [(g.name, g.n) for g in rows] for name, rows in report.per_group.items()} == {
        "site": [("north", 40), ("south", 40)],
        "sex": [("f", 40), ("m", 40)],
    }
    south = report.per_group["site"][1]
    assert (south.bg_gap.value, south.accuracy["mixed_rand"].value) == (0.5, 0.5)
    assert report.worst_group["site"].name == "south"
    assert report.worst_group["sex"].accuracy.value == 0.75
    text = report.summary()
    assert "by site: south 50.0 (n = 40), north 0.0 (n = 40, may be chance)" in text
    assert "worst site: south, 50.0% right on random backgrounds" in text


def test_gaps_that_may_be_chance_are_those_of_a_corrected_exact_test() -> None:
    """McNemar's exact test of each class, by scipy, corrected by hand."""
    label = np.repeat(np.arange(3), 30)
    rand = np.ones(90)
    rand[:9], rand[30:35] = 0, 0  # 9 and 5 of 30 lost
    parts = classes_as_parts(
        images_of({"original": np.ones(90), "mixed_same": np.ones(90), "mixed_rand": rand}, label), list("abc")
    )
    tests = [stats.binomtest(lost, lost).pvalue if lost else 1.0 for lost in (9, 5, 0)]
    rows = results_of(parts, 0.95)
    assert [row.gap_p for row in rows] == pytest.approx([3 * tests[0], 2 * tests[1], 1.0])
    assert [row.bg_gap.low > 0 for row in rows] == [True, True, False]  # one interval alone is no correction


def test_few_gaps_are_called_real_where_none_is() -> None:
    rng, label, times, wrong = np.random.default_rng(3), np.repeat(np.arange(K), 50), 200, 0
    for _ in range(times):
        right = {name: rng.random(len(label)) < 0.8 for name in ("original", "mixed_same", "mixed_rand")}
        rows = results_of(classes_as_parts(images_of(right, label), list("abcdef")), 0.95)
        wrong += any(row.gap_p < 0.05 for row in rows)
    assert wrong / times <= stats.binom.ppf(0.999, times, 0.05) / times


def test_images_of_one_unit_are_not_independent() -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(30), 10)
    right = np.repeat(rng.random(30) < 0.7, 10).astype(float)
    label, site = np.zeros(300, int), np.where(unit % 2 == 0, "a", "b")
    names = np.array([f"patient {u}" for u in unit])
    known = {"original": right, "mixed_same": right, "mixed_rand": np.zeros(300)}
    alone = summarise(images_of(known, label, groups={"site": site}), model="m", class_names=["x"])
    together = summarise(images_of(known, label, groups={"site": site}, unit=names), model="m", class_names=["x"])
    for get in (
        lambda r: r.bg_gap,
        lambda r: r.variants["original"].accuracy,
        lambda r: r.worst_group["site"].accuracy,
    ):
        assert get(together).high - get(together).low > 2 * (get(alone).high - get(alone).low)
    assert together.counts["units"] == 30
    assert together.per_class[0].gap_p > alone.per_class[0].gap_p


def test_nothing_to_be_worst() -> None:
    label = np.full(4, -1)
    images = images_of({"original": np.ones(4)}, label, groups={"site": np.array(list("aabb"))})
    assert worst_of(classes_as_parts(images, []), 0.95) is None
    assert worst_of(groups_as_parts(images, "site"), 0.95) is None
    single = images_of({"original": np.ones(2)}, np.array([0, 1]))
    assert worst_of(classes_as_parts(single, list("ab")), 0.95).floor == 0  # one image a class says nothing


def test_the_gap_is_of_images_that_stand_on_both() -> None:
    """Two accuracies of other images each, of other classes, made a gap that no image has."""
    label = np.repeat([0, 1], 20)
    right = {"original": np.ones(40), "mixed_same": np.ones(40), "mixed_rand": np.zeros(40)}
    right["mixed_rand"][:5] = 1
    images = images_of(right, label)
    images.prediction["mixed_same"][20:] = -1  # class 1 has no background of its own
    report = summarise(images, model="m", class_names=["a", "b"])
    assert (report.bg_gap.value, report.bg_gap.n) == (0.75, 20)
    assert "(of the 20 of 40 images, 1 of 2 classes, that stand on both)" in report.summary()
    (text,) = [issue.what for issue in issues([report]) if "is over" in issue.what]
    assert text.startswith("The BG-Gap is over 20 of 40 images, 1 of 2 classes")

    images.prediction["mixed_rand"][:20] = -1
    nobody = summarise(images, model="m", class_names=["a", "b"])
    assert np.isnan(nobody.bg_gap.value)
    assert "BG-Gap of m is not known" in nobody.summary()
