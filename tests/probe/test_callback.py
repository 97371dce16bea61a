"""The probe on other people's modules: right numbers, no trace in the training, several processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from probe_modules import Cheat, Dicts, Plain, fit
from probe_toy import K, Reader, ToyImages, cheat
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe
from torch_bgdebias.probe import evaluate_background_bias

ROOT = Path(__file__).resolve().parents[2]


def test_logs_what_the_function_measures() -> None:
    probe = BackgroundBiasProbe()
    trainer = fit(Cheat(), probe, epochs=1)
    report = evaluate_background_bias(
        cheat(), DataLoader(ToyImages(40), batch_size=40), variants=["mixed_same", "mixed_rand"]
    )
    logged = {k.removeprefix("bias/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("bias/")}
    rand = report.variants["mixed_rand"]
    expected = {
        "acc_original": 1.0,
        "acc_mixed_same": 1.0,
        "acc_mixed_rand": rand.accuracy.value,
        "bg_gap": report.bg_gap.value,
        "bg_gap_low": report.bg_gap.low,
        "bg_gap_high": report.bg_gap.high,
        "abs_gap": report.bg_gap.value,
        "worst_variant": rand.accuracy.value,
        "worst_class": min(c.accuracy["mixed_rand"].value for c in report.per_class),
        "decision_consistency": rand.decision_consistency.value,
        "decision_consistency_mixed_same": 1.0,
        "decision_consistency_mixed_rand": rand.decision_consistency.value,
        "feature_consistency": rand.feature_consistency.value,
        "feature_consistency_mixed_same": report.variants["mixed_same"].feature_consistency.value,
        "feature_consistency_mixed_rand": rand.feature_consistency.value,
        "images": 40.0,
    }
    assert logged.pop("seconds") > 0
    assert logged == pytest.approx(expected, abs=1e-6)
    assert probe.report.to_dict()["images"] == report.to_dict()["images"]


class Noise(BackgroundBiasProbe):
    """What the probe must not be: it draws from the global generator."""

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        torch.rand(1)


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_training_is_the_same_bit_for_bit(kind: str, tmp_path) -> None:
    spec = BatchSpec(image="pixels", label="y", mask="seg") if kind == "dict" else BatchSpec()
    cls = Dicts if kind == "dict" else Plain

    def run(*callbacks):
        torch.manual_seed(3)
        module = cls()
        val = DataLoader(ToyImages(40, kind=kind), batch_size=7, shuffle=True)
        trainer = fit(module, *callbacks, epochs=3, kind=kind, val=val, logger=CSVLogger(tmp_path))
        return module, trainer

    without, trainer_without = run()
    probed, trainer_probed = run(BackgroundBiasProbe(spec=spec))
    assert "bias/bg_gap" in trainer_probed.callback_metrics
    assert probed.losses == without.losses
    state, other = probed.state_dict(), without.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[k], other[k]) for k in state)
    assert trainer_probed.callback_metrics["val_loss"] == trainer_without.callback_metrics["val_loss"]
    disturbed, _ = run(Noise(spec=spec))
    assert disturbed.losses != without.losses, "the comparison above would not notice a draw"


@pytest.mark.parametrize("inference", [True, False])
def test_modes_and_inference(inference: bool) -> None:
    seen = []

    class Watched(Plain):
        def forward(self, image):
            assert self.training or not torch.is_grad_enabled()
            seen.append((torch.is_inference_mode_enabled(), self.training, self.net.training, len(image)))
            return super().forward(image)

        def on_validation_batch_end(self, outputs, batch, batch_idx):  # these two run after the callbacks'
            seen.clear()

        def on_validation_epoch_end(self):
            assert all(entry[:3] == (inference, False, False) for entry in seen), seen
            self.probed = len(seen)

    module = Watched()
    fit(module, BackgroundBiasProbe(inference_mode=inference, figures=False), epochs=1)
    assert module.probed == 6 * 3  # six batches, three versions
    assert not any(m._forward_hooks for m in module.modules())


def test_sanity_check_is_skipped_and_epochs_counted() -> None:
    epochs = []

    class Counted(BackgroundBiasProbe):
        def _read(self, trainer, pl_module):
            epochs.append((trainer.current_epoch, trainer.sanity_checking))
            return super()._read(trainer, pl_module)

    fit(Plain(), Counted(every_n_epochs=2), epochs=5)
    assert epochs == [(0, False), (2, False), (4, False)]


def test_checkpoint_keeps_the_smallest_gap(tmp_path) -> None:
    class Improving(Plain):
        """Reads the background in epoch 0, the object in epoch 1, the background again after."""

        def forward(self, image):
            channel, at = (1, 5) if self.current_epoch == 1 else (0, 0)
            self.readers = Reader(channel, at, at)
            return self.readers(image) + 0 * self.head(self.net(image))

    checkpoint = ModelCheckpoint(tmp_path, monitor="bias/bg_gap", mode="min", filename="{epoch}")
    options = {"enable_checkpointing": True}
    fit(Improving(), BackgroundBiasProbe(layer="head"), checkpoint, epochs=4, **options)
    assert Path(checkpoint.best_model_path).name == "epoch=1.ckpt"
    assert checkpoint.best_model_score == 0
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert not any("probe" in key.lower() for key in saved["state_dict"])


def test_own_loader_bank_and_scores() -> None:
    own = DataLoader(ToyImages(12, seed=5), batch_size=5)
    score = {"brightness": lambda module, image, mask, label: image.mean((1, 2, 3))}
    probe = BackgroundBiasProbe(own, scores=score)
    trainer = fit(Cheat(), probe, epochs=1)
    assert trainer.callback_metrics["bias/images"] == 12
    assert trainer.callback_metrics["bias/brightness"] == pytest.approx(float(own.dataset.images.mean()))

    colours = torch.zeros(K, 3, 6, 6)
    colours[:, 0] = (torch.arange(K) / 10)[:, None, None]

    class Bank:
        images, labels = colours, torch.arange(K)

    probe = BackgroundBiasProbe(Bank(), metrics=["accuracy", "bg_gap"])
    trainer = fit(Cheat(), probe, epochs=1)
    assert trainer.callback_metrics["bias/acc_mixed_same"] == 1
    assert probe.report.counts["backgrounds"] == K
    assert "bias/feature_consistency" not in trainer.callback_metrics


def test_module_without_forward() -> None:
    class Steps(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.reader = cheat()

        def training_step(self, batch, batch_idx):
            return self.reader.head.weight.sum() * 0

        def validation_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    with pytest.raises(TypeError, match=r"Steps has no forward\(image\): pass BackgroundBiasProbe\(forward="):
        fit(Steps(), BackgroundBiasProbe(), epochs=1)
    probe = BackgroundBiasProbe(forward=lambda module, image: {"out": module.reader(image)}, logits="out")
    trainer = fit(Steps(), probe, epochs=1)
    assert trainer.callback_metrics["bias/acc_original"] == 1


def test_transfer_hooks_of_the_module_apply() -> None:
    class Bytes(Cheat):
        """Keeps images as bytes until they are on the device."""

        def on_after_batch_transfer(self, batch, dataloader_idx):
            image, label, mask = batch
            return image.float() / 255, label, mask.float() / 255

    data = ToyImages(20)
    data.images = (data.images * 255).round().to(torch.uint8)
    data.masks = (data.masks * 255).to(torch.uint8)
    torch.manual_seed(0)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[BackgroundBiasProbe()], barebones=False
    )
    module = Bytes()
    module.validation_step = lambda batch, batch_idx: module(batch[0])
    trainer.validate(module, DataLoader(data, batch_size=5), verbose=False)
    assert trainer.callback_metrics["bias/acc_mixed_same"] == 1


def test_mixed_precision() -> None:
    probe = BackgroundBiasProbe()
    trainer = fit(Plain(), probe, epochs=1, precision="bf16-mixed")
    assert not math.isnan(float(trainer.callback_metrics["bias/feature_consistency"]))


TWO_PROCESSES = """
import sys, json, torch, pytorch_lightning as pl
sys.path.insert(0, {here!r})
from probe_modules import Cheat
from probe_toy import ToyImages
from torch.utils.data import DataLoader
from torch_bgdebias.callbacks import BackgroundBiasProbe
from pytorch_lightning.callbacks import ModelCheckpoint
torch.manual_seed(0)
probe, limited = BackgroundBiasProbe(budget=None), BackgroundBiasProbe(max_images=13, max_backgrounds=8, prefix="few")
checkpoint = ModelCheckpoint({out!r}, monitor="bias/bg_gap")
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true",
                     callbacks=[probe, limited, checkpoint], logger=False, enable_progress_bar=False,
                     enable_model_summary=False)
trainer.fit(Cheat(), DataLoader(ToyImages(16, seed=1), batch_size=4), DataLoader(ToyImages(41), batch_size=7))
rank = trainer.global_rank
probe.report.to_json({out!r} + f"/report{{rank}}.json")
limited.report.to_json({out!r} + f"/few{{rank}}.json")
json.dump({{k: float(v) for k, v in trainer.callback_metrics.items()}}, open({out!r} + f"/metrics{{rank}}.json", "w"))
"""


@pytest.mark.slow
def test_two_processes_measure_exactly_what_one_does(tmp_path) -> None:
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES.format(here=str(ROOT / "tests" / "helpers"), out=str(tmp_path)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    data = ToyImages(41)
    options = {"variants": ["mixed_same", "mixed_rand"]}
    single = evaluate_background_bias(cheat(), DataLoader(data, batch_size=41), **options).to_dict()
    for rank in (0, 1):
        report = json.loads((tmp_path / f"report{rank}.json").read_text())
        for part in ("images", "variants", "bg_gap", "per_class", "counts"):
            assert report[part] == single[part], part
        metrics = json.loads((tmp_path / f"metrics{rank}.json").read_text())
        assert metrics["bias/bg_gap"] == pytest.approx(single["bg_gap"]["value"])
        few = json.loads((tmp_path / f"few{rank}.json").read_text())
        assert len(few["images"]["id"]) == len(set(few["images"]["position"])) == 13
        assert few["counts"]["backgrounds"] == 8
    assert (tmp_path / "epoch=0-step=2.ckpt").exists()
