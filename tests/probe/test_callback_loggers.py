"""Figures of the probe in every logger, and what it says in the log."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
from probe_modules import Cheat, Plain, fit
from probe_toy import K, ToyImages
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader

from torch_bgdebias.callbacks import BackgroundBiasProbe


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
    fit(Plain(), BackgroundBiasProbe(), epochs=2, logger=loggers)

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
        fit(Plain(), BackgroundBiasProbe(), epochs=1, logger=Numbers())
    logger = CSVLogger(tmp_path)
    fit(Plain(), BackgroundBiasProbe(figures=False), epochs=1, logger=logger)
    assert not (Path(logger.log_dir) / "bias").exists()


def test_cost_is_told(caplog) -> None:
    with caplog.at_level("INFO"):
        fit(Plain(), BackgroundBiasProbe(), epochs=2)
    messages = [r.getMessage() for r in caplog.records if "forward passes took" in r.getMessage()]
    assert len(messages) == 1
    assert "40 images x 3 forward passes took" in messages[0]
    share = re.search(r"together (\d+\.\d\d) of the validation", messages[0])
    assert float(share.group(1)) > 0.01, "both take milliseconds here"


def test_few_images_and_a_missing_embedding_are_told_once_and_not_as_warnings(caplog) -> None:
    class Bare(Cheat):
        def forward(self, image):
            return image[:, :1].mean((2, 3)).repeat(1, K) * 1.0

    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = Bare()
        del module.reader
        fit(module, BackgroundBiasProbe(), epochs=2, val=DataLoader(ToyImages(100), batch_size=50))
    messages = [r.getMessage() for r in caplog.records]
    assert sum("feature consistency is left out" in line for line in messages) == 1
    assert sum("rest on 40 of 100 validation images, to stay within budget=0.25" in line for line in messages) == 1
    assert not [w for w in caught if "feature consistency" in str(w.message)]
