"""A report into TensorBoard, Weights & Biases and MLflow, all offline, and read back from their own files."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from probe_pages import NAMES, make_report

from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.probe.sharing.rows import class_table, heat_pictures, image_table, numbers_of


@pytest.fixture
def report() -> BackgroundBiasReport:
    return make_report(n=80, examples=3, score=True)


def test_tensorboard_holds_numbers_text_and_figures(report: BackgroundBiasReport, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        report.to_tensorboard(writer, prefix="bias", step=7)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    events.Reload()
    numbers = numbers_of(report)
    assert set(events.Tags()["scalars"]) == {f"bias/{name}" for name in numbers}
    for name, value in numbers.items():
        (entry,) = events.Scalars(f"bias/{name}")
        assert (entry.step, entry.value) == (7, pytest.approx(value, rel=1e-6))
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    summary = texts["bias/summary/text_summary"]
    assert [line[4:] for line in summary.splitlines()] == report.summary().splitlines()
    table = texts["bias/classes/text_summary"].splitlines()
    assert len(table) == 2 + len(NAMES)
    assert "&lt;script>" in "".join(table), "a class's name is no markup"
    assert {f"bias/{name}" for name in report.figures} == set(events.Tags()["images"])


def test_wandb_holds_tables_with_pictures(
    report: BackgroundBiasReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    run = wandb.init(mode="offline", dir=str(tmp_path), project="trial")
    report.to_wandb(run, prefix="bias", images=50)
    summary = dict(run.summary)
    run.finish()
    for name, value in numbers_of(report).items():
        assert summary[f"bias/{name}"] == pytest.approx(value)
    read: dict[str, Any] = {}
    for file in tmp_path.glob("wandb/offline-run-*/files/media/table/bias/*.table.json"):
        read[file.name.split("_")[0]] = json.loads(file.read_text(encoding="utf-8"))
    classes = class_table(report)
    assert (read["classes"]["columns"], read["classes"]["data"]) == (classes.columns, classes.rows)
    columns, rows = image_table(report)
    assert read["images"]["columns"] == columns
    assert read["images"]["data"] == [row for row, _ in zip(rows, range(50), strict=False)]
    assert read["examples"]["columns"] == ["id", "label", "original", "mixed_rand", "grad_cam"]
    assert [row[1] for row in read["examples"]["data"]] == NAMES[:3]
    drawn = [np.asarray(picture) for picture in _pictures(tmp_path / "data")]
    for example in report.examples:
        for expected in (*example.pictures.values(), *heat_pictures(example).values()):
            assert any(np.array_equal(expected, picture[..., :3]) for picture in drawn)


def _pictures(folder: Path) -> Iterator[Image.Image]:
    """Those among the files of any kind that are laid out for upload."""
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(UnidentifiedImageError), Image.open(path) as picture:
                yield picture.convert("RGB")


def test_mlflow_gives_back_the_whole_report(
    report: BackgroundBiasReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    run_id = client.create_run(client.create_experiment("trial")).info.run_id
    report.to_mlflow(run_id, client=client, folder="bias", step=3)
    metrics = client.get_run(run_id).data.metrics
    assert metrics == pytest.approx({f"bias/{name}": value for name, value in numbers_of(report).items()})
    assert {entry.step for entry in client.get_metric_history(run_id, "bias/bg_gap")} == {3}
    held = Path(client.download_artifacts(run_id, "bias", str(tmp_path)))
    assert BackgroundBiasReport.from_json(held / "report.json").to_dict() == report.to_dict()
    assert "<!doctype html>" in (held / "report.html").read_text(encoding="utf-8").lower()
    with (held / "classes.csv").open(encoding="utf-8", newline="") as file:
        assert {row["part"] for row in csv.DictReader(file)} == {"all", *NAMES}
    assert {str(path.relative_to(held)) for path in held.rglob("*.png")} == {f"{name}.png" for name in report.figures}


def test_mlflow_takes_the_active_run_and_names_it_where_there_is_none(
    report: BackgroundBiasReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    with pytest.raises(ValueError, match=r"run_id: expected a run's id, or a run that mlflow.start_run\(\) began"):
        report.to_mlflow()
    with mlflow.start_run() as run:
        report.to_mlflow()
    assert "background/bg_gap" in mlflow.get_run(run.info.run_id).data.metrics


def test_what_is_no_writer_and_no_run_is_named(report: BackgroundBiasReport) -> None:
    with pytest.raises(TypeError, match="writer: expected a SummaryWriter, such as logger.experiment"):
        report.to_tensorboard("runs")
    pytest.importorskip("wandb")
    with pytest.raises(TypeError, match=r"run: expected what wandb.init\(\) returned, got"):
        report.to_wandb("project")
    with pytest.raises(ValueError, match="images: expected"):
        report.to_wandb("project", images=-1)
