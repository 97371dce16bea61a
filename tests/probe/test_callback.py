"""The probe on other people's modules: right numbers, no trace in the training, every logger, several processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from probe_toy import K, Reader, ToyImages, cheat
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, SubsetRandomSampler

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe
from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.probe.passes.loading import Share

HERE = Path(__file__).parent


class Plain(pl.LightningModule):
    """Somebody's classifier: batch norm, dropout, tuple batches; it has never heard of the probe."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))
        self.head = nn.Linear(8 * 8 * 8, K)
        self.losses: list[float] = []

    def forward(self, image):
        return self.head(self.net(image))

    def unpack(self, batch):
        return batch[0], batch[1]

    def training_step(self, batch, batch_idx):
        image, label = self.unpack(batch)
        loss = F.cross_entropy(self(image), label)
        self.losses.append(float(loss))
        return loss

    def validation_step(self, batch, batch_idx):
        image, label = self.unpack(batch)
        self.log("val_loss", F.cross_entropy(self(image), label))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Dicts(Plain):
    def unpack(self, batch):
        return batch["pixels"], batch["y"]


class Cheat(Plain):
    """Validates as a model that reads the background; training changes nothing that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = cheat()
        self.head = None
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.reader(image)

    def training_step(self, batch, batch_idx):
        return self.weight.square()


def _fit(module, *callbacks, epochs: int = 2, kind: str = "tuple", val=None, **options):
    torch.manual_seed(0)
    options = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 2} | options
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    train = DataLoader(ToyImages(32, seed=1, kind=kind), batch_size=8, shuffle=True)
    val = DataLoader(ToyImages(40, kind=kind), batch_size=7) if val is None else val
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        trainer.fit(module, train, val)
    return trainer


def test_logs_what_the_function_measures() -> None:
    probe = BackgroundBiasProbe()
    trainer = _fit(Cheat(), probe, epochs=1)
    report = evaluate_background_bias(
        cheat(), DataLoader(ToyImages(40), batch_size=40), variants=["mixed_same", "mixed_rand"], n_resamples=1000
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
        trainer = _fit(module, *callbacks, epochs=3, kind=kind, val=val, logger=CSVLogger(tmp_path))
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

        def validation_step(self, batch, batch_idx):
            seen.clear()

        def on_validation_epoch_end(self):  # runs after the callbacks'
            assert all(entry[:3] == (inference, False, False) for entry in seen), seen
            self.probed = len(seen)

    module = Watched()
    _fit(module, BackgroundBiasProbe(inference_mode=inference, figures=False), epochs=1)
    assert module.probed == 6 * 3  # six batches, three versions
    assert not any(m._forward_hooks for m in module.modules())


def test_sanity_check_is_skipped_and_epochs_counted() -> None:
    epochs = []

    class Counted(BackgroundBiasProbe):
        def _measure(self, trainer, pl_module):
            epochs.append((trainer.current_epoch, trainer.sanity_checking))
            return super()._measure(trainer, pl_module)

    _fit(Plain(), Counted(every_n_epochs=2), epochs=5)
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
    _fit(Improving(), BackgroundBiasProbe(layer="head"), checkpoint, epochs=4, **options)
    assert Path(checkpoint.best_model_path).name == "epoch=1.ckpt"
    assert checkpoint.best_model_score == 0
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert not any("probe" in key.lower() for key in saved["state_dict"])


def test_own_loader_bank_and_scores() -> None:
    own = DataLoader(ToyImages(12, seed=5), batch_size=5)
    score = {"brightness": lambda module, image, mask, label: image.mean((1, 2, 3))}
    probe = BackgroundBiasProbe(own, scores=score)
    trainer = _fit(Cheat(), probe, epochs=1)
    assert trainer.callback_metrics["bias/images"] == 12
    assert trainer.callback_metrics["bias/brightness"] == pytest.approx(float(own.dataset.images.mean()))

    colours = torch.zeros(K, 3, 6, 6)
    colours[:, 0] = (torch.arange(K) / 10)[:, None, None]

    class Bank:
        images, labels = colours, torch.arange(K)

    probe = BackgroundBiasProbe(Bank(), metrics=["accuracy", "bg_gap"])
    trainer = _fit(Cheat(), probe, epochs=1)
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
        _fit(Steps(), BackgroundBiasProbe(), epochs=1)
    probe = BackgroundBiasProbe(forward=lambda module, image: {"out": module.reader(image)}, logits="out")
    trainer = _fit(Steps(), probe, epochs=1)
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
    module.validation_step = lambda batch, batch_idx: None
    trainer.validate(module, DataLoader(data, batch_size=5), verbose=False)
    assert trainer.callback_metrics["bias/acc_mixed_same"] == 1


def test_mixed_precision() -> None:
    probe = BackgroundBiasProbe()
    trainer = _fit(Plain(), probe, epochs=1, precision="bf16-mixed")
    assert not math.isnan(float(trainer.callback_metrics["bias/feature_consistency"]))


class _Recorder:
    def __init__(self) -> None:
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


class FakeWandb(WandbLogger):
    """The real logger's methods over a recording run: W&B itself is not needed."""

    def __init__(self) -> None:
        self.images = []
        self.run = _Recorder()

    @property
    def experiment(self):
        return self.run

    name = version = "fake"
    save_dir = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def save(self):
        pass

    def finalize(self, status):
        pass

    def log_image(self, key, images, step=None, **kwargs):
        self.images.append((key, images, step))


class FakeMLFlowClient:
    """``MlflowClient.log_figure`` as documented by MLflow."""

    def __init__(self) -> None:
        self.calls = []

    def log_figure(self, run_id, figure, artifact_file, *, save_kwargs=None):
        self.calls.append((run_id, type(figure).__name__, artifact_file))


class FakeMLFlow(MLFlowLogger):
    def __init__(self) -> None:
        self.client = FakeMLFlowClient()

    name = version = "fake"
    save_dir = None
    run_id = "run7"

    @property
    def experiment(self):
        return self.client

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def finalize(self, status):
        pass


def test_figures_reach_every_logger(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    loggers = [TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path, name="csv"), FakeWandb(), FakeMLFlow()]
    _fit(Plain(), BackgroundBiasProbe(), epochs=2, logger=loggers)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(loggers[0].log_dir)
    events.Reload()
    assert "bias/variants" in events.Tags()["images"]
    assert [e.step for e in events.Images("bias/variants")] == [4, 8]
    assert len(events.Scalars("bias/bg_gap")) == 2
    assert (Path(loggers[1].log_dir) / "bias" / "variants-step4.png").stat().st_size > 1000
    assert "bias/bg_gap" in (Path(loggers[1].log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert ("bias/variants", 4) in [(key, step) for key, _, step in loggers[2].images]
    assert all(type(image).__name__ == "Figure" for _, images, _ in loggers[2].images for image in images)
    assert ("run7", "Figure", "bias/variants-step4.png") in loggers[3].client.calls


def test_logger_without_figures_is_named_and_off_means_off(tmp_path) -> None:
    class Numbers(pl.loggers.Logger):
        name = version = "numbers"

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, params):
            pass

    with pytest.warns(UserWarning, match="Numbers takes no figures: bias figures are not logged"):
        _fit(Plain(), BackgroundBiasProbe(), epochs=1, logger=Numbers())
    logger = CSVLogger(tmp_path)
    _fit(Plain(), BackgroundBiasProbe(figures=False), epochs=1, logger=logger)
    assert not (Path(logger.log_dir) / "bias").exists()


def test_budget_limits_large_sets_only() -> None:
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"])
    _fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(600), batch_size=100))
    assert len(probe.report.images) == 50  # a quarter of 600 passes: gathering, original, variant
    positions = np.sort(probe.report.images.position)
    assert positions[0] == 0
    assert positions[-1] == 599
    assert np.diff(positions).max() <= 13
    probe = BackgroundBiasProbe()
    _fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(100), batch_size=50))
    assert len(probe.report.images) == 40  # never fewer
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"], budget=None)
    _fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(600), batch_size=100))
    assert len(probe.report.images) == 600
    probe = BackgroundBiasProbe(max_images=9)
    _fit(Cheat(), probe, epochs=1)
    assert len(probe.report.images) == 9
    probe = BackgroundBiasProbe()
    _fit(Cheat(), probe, epochs=1, limit_val_batches=2)
    assert len(probe.report.images) == 14
    probe = BackgroundBiasProbe(metrics=["accuracy"], variants=["mixed_rand"])
    _fit(Cheat(), probe, epochs=1, val=DataLoader(ToyImages(8000), batch_size=1000))
    assert len(probe.report.images) == 666  # a quarter of 8000 passes: gathering, original, variant


def test_cost_is_told(caplog) -> None:
    with caplog.at_level("INFO"):
        _fit(Plain(), BackgroundBiasProbe(), epochs=2)
    told = [r.getMessage() for r in caplog.records if "forward passes took" in r.getMessage()]
    assert len(told) == 1
    assert "40 images x 3 forward passes took" in told[0]
    assert "of the validation" in told[0]


def test_few_images_and_a_missing_embedding_are_told_once_and_not_as_warnings(caplog) -> None:
    class Bare(Cheat):
        def forward(self, image):
            return image[:, :1].mean((2, 3)).repeat(1, K) * 1.0

    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = Bare()
        del module.reader
        _fit(module, BackgroundBiasProbe(), epochs=2, val=DataLoader(ToyImages(100), batch_size=50))
    told = [r.getMessage() for r in caplog.records]
    assert sum("feature consistency is left out" in line for line in told) == 1
    assert sum("rest on 40 of 100 validation images, to stay within budget=0.25" in line for line in told) == 1
    assert not [w for w in caught if "feature consistency" in str(w.message)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_cover_every_image_once(world: int) -> None:
    data = ToyImages(23)
    spec = BatchSpec()
    order = [7, 3, 11, 2, 20]
    loaders = {
        "plain": (DataLoader(data, batch_size=4), range(23)),
        "shuffled": (DataLoader(data, batch_size=4, shuffle=True), range(23)),
        "subset": (DataLoader(data, batch_size=2, sampler=order), range(5)),
        "random subset": (DataLoader(data, batch_size=2, sampler=SubsetRandomSampler(order)), range(5)),
        "list": ([data[0:5], data[5:6], data[6:9]], range(9)),
    }
    for name, (loader, expected) in loaders.items():
        seen = []
        for rank in range(world):
            for places, counted, batch in Share(loader, spec, rank=rank, world=world):
                assert len(places) == len(batch[0]) == len(counted)
                seen += places[counted].tolist()
        assert sorted(seen) == list(expected), name


def test_share_of_a_sampler_that_pads() -> None:
    from torch.utils.data import DistributedSampler

    class Wrapped(DistributedSampler):  # as Lightning's own: a subclass, so that its order is kept
        pass

    data, seen = ToyImages(23), []
    for rank in (0, 1, 2):
        sampler = Wrapped(data, num_replicas=3, rank=rank, shuffle=False)
        for places, counted, batch in Share(
            DataLoader(data, batch_size=4, sampler=sampler), BatchSpec(), rank=rank, world=3
        ):
            seen += places[counted].tolist()
            assert torch.equal(batch[1][counted], data.labels[places[counted]])
    assert sorted(seen) == list(range(23))


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
    with pytest.raises(ValueError, match="max_images: expected at least 1 or None, got 0"):
        BackgroundBiasProbe(max_images=0)
    with pytest.raises(ValueError, match="backgrounds: expected None because the first argument is a bank already"):
        BackgroundBiasProbe(torch.zeros(2, 3, 4, 4), backgrounds=torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="unexpected keyword argument 'every'"):
        BackgroundBiasProbe(every=2)
    with pytest.raises(KeyError, match=r"batch has no mask at 5; it holds 3 item\(s\)"):
        _fit(Plain(), BackgroundBiasProbe(spec=BatchSpec(mask=5)), epochs=1)
    with pytest.raises(ValueError, match=r"dataloader_idx: expected less than 1 validation loader\(s\), got 1"):
        _fit(Plain(), BackgroundBiasProbe(dataloader_idx=1), epochs=1)


TWO_PROCESSES = """
import sys, json, torch, pytorch_lightning as pl
sys.path.insert(0, {here!r})
from test_callback import Cheat, Plain
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
    import json

    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES.format(here=str(HERE), out=str(tmp_path)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    data = ToyImages(41)
    options = {"variants": ["mixed_same", "mixed_rand"], "n_resamples": 1000}
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
