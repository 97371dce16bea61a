"""Batches as they come: variants that the batch brings along."""

from __future__ import annotations

import pytest
import torch
from probe_toy import ToyImages, cheat

from torch_bgdebias.probe import evaluate_background_bias

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_variants_that_the_batch_brings_along() -> None:
    data = ToyImages()
    swapped = data.images.roll(1, 0)  # of the next image's class
    there = torch.arange(40) > 3

    def batches():
        for i in (slice(0, 25), slice(25, 40)):
            ready = {"mixed_rand": (swapped[i], data.labels.roll(1)[i], there[i]), "mixed_same": data.images[i]}
            yield data.images[i], data.labels[i], data.masks[i], ready

    report = evaluate_background_bias(cheat(), list(batches()), variants=MIXED[:2], ready=3)
    assert report.variants["mixed_same"].accuracy.value == 1
    assert report.variants["mixed_rand"].accuracy.value == 0
    assert report.variants["mixed_rand"].n_left_out == 4
    assert report.counts["without_partner_mixed_rand"] == 4
    assert sorted(set(report.images.background_label["mixed_rand"])) == [-1, 0, 1, 2, 3]
    with pytest.raises(KeyError, match="expected a dict of variants at 3 of batch 0, got without mixed_next"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_next"], ready=3)
    with pytest.raises(KeyError, match="got float32 tensor"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_same"], ready=2)
    wrong = [(*b[:3], {"mixed_same": b[0][:, :, 1:]}) for b in batches()]
    with pytest.raises(ValueError, match=r"ready\['mixed_same'\]: expected images \(25, 3, 10, 10\), got"):
        evaluate_background_bias(cheat(), wrong, variants=["mixed_same"], ready=3)
