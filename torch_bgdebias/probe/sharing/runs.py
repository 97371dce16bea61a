"""Exports a measurement to a run of TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch_bgdebias._optional import require
from torch_bgdebias.checks import describe
from torch_bgdebias.probe.figures import figures_of
from torch_bgdebias.probe.page.downloads import classes_csv
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.naming import answer_name, label_name
from torch_bgdebias.probe.results.summary import summary_text
from torch_bgdebias.probe.sharing.rows import Table, class_table, heat_pictures, image_table, numbers_of

__all__ = ["to_mlflow", "to_tensorboard", "to_wandb"]


def to_tensorboard(report: Measurement, writer: Any, *, prefix: str, step: int) -> None:
    """Scalars, the summary and the classes as text, figures.

    Args:
        report: the measurement.
        writer: with ``add_scalar``, ``add_text`` and ``add_figure``, as ``torch.utils.tensorboard.SummaryWriter``.
        prefix: of every tag.
        step: of the training.

    Raises:
        TypeError: no such writer.
        ImportError: matplotlib is not installed.
    """
    if not all(callable(getattr(writer, name, None)) for name in ("add_scalar", "add_text", "add_figure")):
        raise TypeError(
            f"writer: expected a SummaryWriter, such as logger.experiment of TensorBoardLogger, got {describe(writer)}"
        )
    for name, value in numbers_of(report).items():
        writer.add_scalar(f"{prefix}/{name}", value, step)
    indented = "\n".join(f"    {line}" for line in summary_text(report).splitlines())
    writer.add_text(f"{prefix}/summary", indented, step)
    writer.add_text(f"{prefix}/classes", _markdown(class_table(report)), step)
    for name, figure in figures_of(report).items():
        writer.add_figure(f"{prefix}/{name}", figure, step)


def to_wandb(report: Measurement, run: Any, *, prefix: str, step: int | None, images: int) -> None:
    """Numbers, and tables of classes, of images, and of examples with their pictures and heatmaps.

    Args:
        report: the measurement.
        run: what ``wandb.init`` returned, or ``logger.experiment`` of Lightning's ``WandbLogger``.
        prefix: of every key.
        step: of the run; ``None``: its next one.
        images: rows of the table of images at most.

    Raises:
        TypeError: not a run.
        ImportError: wandb is not installed.
    """
    wandb = require("wandb", purpose="tables for Weights & Biases")
    if not callable(getattr(run, "log", None)):
        raise TypeError(f"run: expected what wandb.init() returned, got {describe(run)}")
    columns, rows = image_table(report)
    classes = class_table(report)
    logged: dict[str, Any] = {f"{prefix}/{name}": value for name, value in numbers_of(report).items()}
    logged[f"{prefix}/classes"] = wandb.Table(columns=classes.columns, data=classes.rows)
    logged[f"{prefix}/images"] = wandb.Table(columns=columns, data=list(itertools.islice(rows, images)))
    if report.examples:
        logged[f"{prefix}/examples"] = _wandb_examples(report, wandb.Table, wandb.Image)
    run.log(logged, step=step)


def to_mlflow(
    report: Measurement, run_id: str | None, *, client: Any, folder: str, step: int, files: Mapping[str, str]
) -> None:
    """Metrics, and as artefacts files, figures and the table of classes.

    Args:
        report: the measurement.
        run_id: of the run; ``None``: the active one.
        client: ``mlflow.MlflowClient``; ``None``: one of the tracking server that is set.
        folder: of the artefacts, and before the names of metrics.
        step: of the training.
        files: further artefacts, text by name: the report and its page.

    Raises:
        ValueError: no run is named, and none is active.
        ImportError: mlflow or matplotlib is not installed.
    """
    mlflow = require("mlflow", purpose="artefacts for MLflow")
    if run_id is None:
        active = mlflow.active_run()
        if active is None:
            raise ValueError("run_id: expected a run's id, or a run that mlflow.start_run() began; none is active")
        run_id = active.info.run_id
    client = mlflow.MlflowClient() if client is None else client
    for name, value in numbers_of(report).items():
        client.log_metric(run_id, f"{folder}/{name}", value, step=step)
    for name, figure in figures_of(report).items():
        client.log_figure(run_id, figure, f"{folder}/{name}.png")
    for name, text in {**files, "classes.csv": classes_csv([report])}.items():
        client.log_text(run_id, text, f"{folder}/{name}")


def _wandb_examples(report: Measurement, table: Any, picture: Any) -> Any:
    """A row an example: what it shows, its pictures with the answers below them, its heatmaps."""
    variants = list(dict.fromkeys(name for example in report.examples for name in example.pictures))
    maps = list(dict.fromkeys(name for example in report.examples for name in example.heatmaps))
    rows = []
    for example in report.examples:
        row: list[Any] = [f"{example.id:016x}", label_name(report, example)]
        for variant in variants:
            thumbnail = example.pictures.get(variant)
            answer = answer_name(report, example, variant) if variant in example.prediction else ""
            row.append(None if thumbnail is None else picture(thumbnail, caption=answer))
        heated = heat_pictures(example)
        row += [picture(heated[name]) if name in heated else None for name in maps]
        rows.append(row)
    return table(columns=["id", "label", *variants, *maps], data=rows)


def _markdown(table: Table) -> str:
    lines: list[Sequence[object]] = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
