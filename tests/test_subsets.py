"""A subset stands for the whole data set: spread over its length and its classes, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_toy import ToyImages, cheat
from torch.utils.data import DataLoader, Subset

from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.subsets import batched, labels_of, spread_positions

ORDERS = {
    "sorted": np.repeat(np.arange(5), 80),
    "in turns": np.arange(400) % 5,
    "in turns of four": np.arange(400) % 4,
    "one large class": np.concatenate([np.zeros(360, int), np.repeat(np.arange(1, 5), 10)]),
    "shuffled": np.random.default_rng(0).integers(0, 5, 400),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("keep", [5, 17, 40, 100, 101, 133, 399, 400, 1000])
def test_every_class_has_its_share(name: str, keep: int) -> None:
    labels = ORDERS[name].astype(np.int64)
    positions = spread_positions(400, keep, labels)
    assert len(positions) == len(set(positions.tolist())) == min(keep, 400)
    assert (np.diff(positions) > 0).all()
    counts, totals = np.bincount(labels[positions], minlength=5), np.bincount(labels, minlength=5)
    share = len(positions) * totals / 400
    assert (counts[totals > 0] >= 1).all()
    assert (np.abs(counts - share) <= 1 + (share < 1).sum()).all()


@pytest.mark.parametrize("period", [2, 3, 4, 5, 8, 10, 20])
@pytest.mark.parametrize("keep", [40, 50, 100, 101, 200])
def test_without_labels_no_order_of_classes_is_met_in_step(period: int, keep: int) -> None:
    positions = spread_positions(401, keep)
    assert len(set(positions.tolist())) == keep
    counts = np.bincount(positions % period, minlength=period)
    assert counts.min() >= 0.5 * keep / period - 1
    assert np.diff(positions).max() <= 3 * 401 / keep
    thirds = np.bincount(positions * 3 // 401, minlength=3)
    assert (np.abs(thirds - keep / 3) <= 3).all()


def test_labels_are_found_without_opening_a_picture() -> None:
    data = ToyImages(12)
    assert labels_of(data).tolist() == data.labels.tolist()
    assert labels_of(Subset(data, [3, 5, 6])).tolist() == data.labels[[3, 5, 6]].tolist()
    data.labels = "many"
    assert labels_of(data) is None
    assert labels_of([1, 2]) is None


def test_few_batches_of_a_sorted_folder_hold_every_class() -> None:
    data = ToyImages(80)
    order = data.labels.argsort(stable=True)
    data.images, data.labels, data.masks = data.images[order], data.labels[order], data.masks[order]
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=10), max_batches=2, variants=["mixed_rand"])
    assert len(report.images) == 20
    assert [c.n for c in report.per_class] == [5, 5, 5, 5]


def test_a_loader_that_cannot_be_spread_says_which_classes_are_missing() -> None:
    data = ToyImages(80)
    order = data.labels.argsort(stable=True)
    batches = [(data.images[i], data.labels[i], data.masks[i]) for i in torch.split(order, 10)]
    with pytest.warns(UserWarning, match=r"max_batches: the loader's first 2 batches hold 1 of the model's 4 classes"):
        evaluate_background_bias(cheat(), batches, max_batches=2, variants=["only_fg"])


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_batches_of_items(count, sizes):
    batches = list(batched(iter(range(count)), 4))
    assert [len(batch) for batch in batches] == sizes
    assert [item for batch in batches for item in batch] == list(range(count))
