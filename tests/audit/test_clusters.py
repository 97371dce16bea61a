"""A group that is looked at elsewhere comes first; a class without a gap stays below what is called suspicious."""

from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.audit.clusters import clusters_of, place_of, separation
from torch_bgdebias.audit.discovery import SUSPICIOUS

pytest.importorskip("sklearn")


def heatmaps(count: int, random: np.random.Generator) -> np.ndarray:
    """Blobs around the middle, each somewhere else, adding up to 1."""
    y, x = np.mgrid[:16, :16]
    at = random.normal(8, 1.5, (count, 2, 1, 1))
    maps = np.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / 8) + 0.01 * random.random((count, 16, 16))
    return (maps / maps.sum((1, 2), keepdims=True)).astype(np.float32)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_a_marked_group_is_first_and_its_pictures_lead(random):
    maps = heatmaps(120, random)
    marked = random.choice(60, 20, replace=False)
    maps[marked] *= 0.4
    maps[marked, 1, 14] += 0.6
    groups = clusters_of(maps, None, np.repeat([0, 1], 60), seed=0)
    first = groups[0]
    assert first.label == 0
    assert set(first.rows[:20].tolist()) == set(marked.tolist())
    assert np.unravel_index(first.place.argmax(), (16, 16)) == (1, 14)
    assert first.suspicion > SUSPICIOUS > max(group.suspicion for group in groups if group.label == 1)
    assert sorted(first.rows.tolist()) == list(range(60))


def test_embeddings_are_clustered_as_well(random):
    maps = heatmaps(60, random)
    embeddings = random.normal(0, 0.05, (60, 8)).astype(np.float32)
    embeddings[:, 0] += 1
    embeddings[:15, 1] += 1
    groups = clusters_of(maps, embeddings, np.zeros(60, np.int64), seed=0)
    members = [(group.space, set(group.rows[: group.size].tolist())) for group in groups]
    assert members[0] == ("embeddings", set(range(15)))


def test_halves_of_a_class_without_a_gap(random):
    """A normal variable cut at its mean: distance 1.6 deviations, spreads 0.6 each."""
    points = random.normal(5, 1, (4000, 1))
    suspicion, typical = separation(points, points[:, 0] > 5)
    assert suspicion == pytest.approx(1.6 / 1.2, abs=0.05)
    assert (np.argsort(typical) == np.argsort(points[:, 0])).all()


def test_a_few_of_many_dimensions_do_not_stand_apart_by_chance(random):
    points = random.normal(0, 1, (200, 50))
    few = np.arange(200) < 10
    along = points @ (points[few].mean(0) - points[~few].mean(0))
    in_sample = (along[few].mean() - along[~few].mean()) / (along[few].std() + along[~few].std())
    assert in_sample > 1
    assert abs(separation(points, few)[0]) < 0.5


def test_place(random):
    maps = heatmaps(30, random)
    inside = np.arange(30) < 10
    maps[inside, 2, 3] += 1
    place = place_of(maps, inside)
    assert place.sum() == pytest.approx(1)
    assert place[2, 3] == pytest.approx(1)


def test_equal_pictures_are_no_groups():
    maps = np.full((40, 16, 16), 1 / 256, np.float32)
    assert clusters_of(maps, None, np.zeros(40, np.int64), seed=0) == []


def test_pictures_of_two_kinds_are_two_groups():
    """As many different pictures as groups are enough."""
    maps = np.full((40, 16, 16), 1e-3, np.float32)
    maps[:20, 2, 2] = maps[20:, 13, 13] = 1.0
    maps /= maps.sum((1, 2), keepdims=True)
    groups = clusters_of(maps, None, np.zeros(40, np.int64), seed=0)
    assert {frozenset(group.rows[: group.size].tolist()) for group in groups} <= {
        frozenset(range(20)),
        frozenset(range(20, 40)),
    }
    assert groups
