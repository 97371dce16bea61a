"""A group that is looked at elsewhere comes first; a class without a gap stays below what is called suspicious."""

from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.audit.clusters import clusters_of, standing_apart
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
    assert ("embeddings", set(range(15))) in members or ("embeddings", set(range(15, 60))) in members


def test_halves_of_a_class_without_a_gap(random):
    """A normal variable cut at its mean: distance 1.6 deviations, spreads 0.6 each."""
    maps = np.full((4000, 2, 1), 1e-6)
    maps[:, 0, 0] = (5 + random.normal(0, 1, 4000)) ** 2
    inside = maps[:, 0, 0] > np.median(maps[:, 0, 0])
    suspicion, place, looked = standing_apart(inside, maps.astype(np.float32))
    assert suspicion == pytest.approx(1.6 / 1.2, abs=0.05)
    np.testing.assert_allclose(place[:, 0], [1, 0])
    assert looked.shape == (4000,)


def test_equal_pictures_are_no_groups():
    maps = np.full((40, 16, 16), 1 / 256, np.float32)
    assert clusters_of(maps, None, np.zeros(40, np.int64), seed=0) == []
