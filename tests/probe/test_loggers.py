"""Figures through the real Weights & Biases and MLflow, offline, where they are installed (else: test_callback)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning.loggers import MLFlowLogger, WandbLogger

from torch_bgdebias.probe.loggers import log_figures


@pytest.fixture
def figures() -> dict[str, object]:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.add_subplot().plot([1, 2])
    return {"variants": figure}


def test_wandb_keeps_the_picture(tmp_path: Path, figures, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True, mode="offline", project="trial")
    log_figures([logger], figures, prefix="bias", step=4)
    assert logger.experiment.summary["bias/variants"]["count"] == 1
    logger.experiment.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/bias/variants_*.png"))


def test_mlflow_keeps_the_picture(tmp_path: Path, figures, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(experiment_name="trial", tracking_uri=(tmp_path / "runs").as_uri())
    log_figures([logger], figures, prefix="bias", step=4)
    artifacts = logger.experiment.list_artifacts(logger.run_id, "bias")
    assert [f.path for f in artifacts] == ["bias/variants-step4.png"]
