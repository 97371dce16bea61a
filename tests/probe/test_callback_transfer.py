"""The probe's batches go through the module's own transfer hooks, whatever those know of masks."""

from __future__ import annotations

import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from probe_modules import Cheat
from probe_toy import ToyImages, cheat
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe
from torch_bgdebias.probe import evaluate_background_bias

DATA = ToyImages(20)
MASKED = DataLoader(DATA, batch_size=5)
PLAIN = DataLoader([DATA[i][:2] for i in range(20)], batch_size=5)


class Two(Cheat):
    """Unpacks two in every step and hook; its network reads images in [-1, 1], which the hook makes."""

    def forward(self, image):
        return self.reader((image + 1) / 2)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return self.prepared(x), y

    def prepared(self, x):
        return x * 2 - 1

    def training_step(self, batch, batch_idx):
        _, _ = batch
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean())


class DropsMasks(Two):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return self.prepared(batch[0]), batch[1]


class MovesItself(Two):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        x, y = batch
        return self.prepared(x).to(device), y.to(device)


def fit(module, probe, loader=PLAIN, **options):
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[probe], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, loader, loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def expected_gap():
    """Of the images as the hooks make them, on the network that the module is around."""
    rows = [(DATA[i][0] * 2 - 1, *DATA[i][1:]) for i in range(20)]
    report = evaluate_background_bias(
        cheat(), DataLoader(rows, batch_size=5), variants=["mixed_same", "mixed_rand"],
        preprocess=lambda image: (image + 1) / 2,
    )  # fmt: skip
    assert report.bg_gap.value > 0.5
    return report.bg_gap.value


@pytest.mark.parametrize("cls", [Two, DropsMasks, MovesItself])
def test_a_loader_of_its_own_needs_no_option(cls):
    metrics = fit(cls(), BackgroundBiasProbe(MASKED, figures=False))
    assert metrics["bias/bg_gap"] == pytest.approx(expected_gap())
    assert metrics["bias/acc_original"] == metrics["val_acc"] == 1


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("cls", [Two, DropsMasks, MovesItself])
def test_hidden_masks(cls, own):
    probe = BackgroundBiasProbe(MASKED if own else None, BatchSpec(hide_mask=True), figures=False)
    metrics = fit(cls(), probe, MASKED)
    assert metrics["bias/bg_gap"] == pytest.approx(expected_gap())
    assert metrics["bias/acc_original"] == metrics["val_acc"] == 1


class Flips(Two):
    def prepared(self, x):
        return x.flip(3) * 2 - 1


class Crops(Two):
    def prepared(self, x):
        return x[:, :, 1:, 1:] * 2 - 1


class FlipsSome(Two):
    def prepared(self, x):
        return (x.flip(3) if torch.rand(()) < 0.5 else x) * 2 - 1


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("cls", "cause"), [(Flips, "move the images"), (FlipsSome, "move the images"), (Crops, r"in different sizes, \(9")]
)
def test_hooks_that_move_pixels_and_not_the_hidden_masks_get_no_number(cls, cause, own):
    torch.manual_seed(1)
    probe = BackgroundBiasProbe(MASKED if own else None, BatchSpec(hide_mask=True), figures=False)
    with pytest.warns(UserWarning, match=f"does not measure {cls.__name__}: .*{cause}"):
        metrics = fit(cls(), probe, MASKED, num_sanity_val_steps=0)
    assert probe.report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert "bias/acc_original" not in metrics


@pytest.mark.parametrize("both", [True, False])
def test_hooks_that_know_masks_have_to_move_them_along(both):
    class Flip(Cheat):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            image, label, mask = batch
            return image.flip(3), label, mask.flip(3) if both else mask

    metrics = fit(Flip(), BackgroundBiasProbe(figures=False), MASKED)
    gap = metrics["bias/bg_gap"]
    assert gap > 0.5 if both else math.isnan(gap)


def test_a_hook_that_fails_at_any_batch_is_not_hidden():
    class Fails(Two):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            raise RuntimeError("the user's own error")

    probe = BackgroundBiasProbe(MASKED, figures=False)
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(Fails(), probe)


def test_who_unpacks_two_is_told_of_both_ways():
    module = Two()
    with pytest.raises(ValueError, match="too many values to unpack") as caught:
        fit(module, BackgroundBiasProbe(figures=False), MASKED)
    (note,) = caught.value.__notes__
    assert "spec=BatchSpec(hide_mask=True)" in note
    assert "collate_fn=torch_bgdebias.batch.collate_masked" in note
