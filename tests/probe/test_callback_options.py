"""What the probe takes: limits, and options that do not fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from probe_modules import Cheat, Plain, fit
from probe_toy import ToyImages
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe


def test_budget_limits_large_sets_only() -> None:
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"])
    fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(600), batch_size=100))
    assert len(probe.report.images) == 50  # a quarter of 600 passes: gathering, original, variant
    positions = np.sort(probe.report.images.position)
    assert positions[0] == 0
    assert positions[-1] == 599
    assert np.diff(positions).max() <= 13
    probe = BackgroundBiasProbe()
    fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(100), batch_size=50))
    assert len(probe.report.images) == 40  # never fewer
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"], budget=None)
    fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(600), batch_size=100))
    assert len(probe.report.images) == 600
    probe = BackgroundBiasProbe(max_images=9)
    fit(Cheat(), probe, epochs=1)
    assert len(probe.report.images) == 9
    probe = BackgroundBiasProbe()
    fit(Cheat(), probe, epochs=1, limit_val_batches=2)
    assert len(probe.report.images) == 14
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"])
    fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(8000), batch_size=1000))
    assert len(probe.report.images) == 666  # a quarter of 8000 passes: gathering, original, variant


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="every_n_epochs: expected at least 1, got 0"):
        BackgroundBiasProbe(every_n_epochs=0)
    with pytest.raises(ValueError, match="metrics: expected one of 'accuracy', 'bg_gap'"):
        BackgroundBiasProbe(metrics=["gap"])
    with pytest.raises(
        ValueError, match=r"variants: expected mixed_same and mixed_rand for bg_gap, got \['mixed_rand'\]"
    ):
        BackgroundBiasProbe(variants=["mixed_rand"])
    with pytest.raises(ValueError, match="variants: expected one of 'only_fg'"):
        BackgroundBiasProbe(variants=["mixed_same", "mixed_rand", "mixed"])
    with pytest.raises(ValueError, match="budget: expected a positive share"):
        BackgroundBiasProbe(budget=0)
    with pytest.raises(ValueError, match="max_images: expected a whole number of at least 1, got 0"):
        BackgroundBiasProbe(max_images=0)
    with pytest.raises(ValueError, match="backgrounds: expected None because the first argument is a bank already"):
        BackgroundBiasProbe(torch.zeros(2, 3, 4, 4), backgrounds=torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="unexpected keyword argument 'every'"):
        BackgroundBiasProbe(every=2)
    with pytest.raises(KeyError, match=r"batch has no mask at 5; it holds 3 item\(s\)"):
        fit(Plain(), BackgroundBiasProbe(spec=BatchSpec(mask=5)), epochs=1)
    with pytest.raises(ValueError, match=r"dataloader_idx: expected less than 1 validation loader\(s\), got 1"):
        fit(Plain(), BackgroundBiasProbe(dataloader_idx=1), epochs=1)


def test_a_validation_loader_that_changes_its_images_is_told() -> None:
    class Shaken(ToyImages):
        def __getitem__(self, index: int):
            image, label, mask = super().__getitem__(index)
            return image + 0.01 * torch.rand(()), label, mask

    for data, expected in ((Shaken(40), 1), (ToyImages(40), 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(Cheat(), BackgroundBiasProbe(), epochs=2, val=DataLoader(data, batch_size=7))
        assert len([w for w in caught if "so it changes them at random" in str(w.message)]) == expected
