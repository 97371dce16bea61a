"""The demo's page: the report on every method, its curves, and a grid of objects in front of other scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torch_bgdebias.cli.demo.data import DemoData
from torch_bgdebias.cli.demo.training import METHODS, SmallCNN, Trained, predict
from torch_bgdebias.compositing import paste
from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.probe.report import Cell, ImageGrid

__all__ = ["write_page"]


def write_page(
    out: Path,
    data: DemoData,
    trained: dict[str, Trained],
    reports: Sequence[BackgroundBiasReport],
    settings: dict[str, Any],
    panels: Sequence[str],
) -> Path:
    """Write report.html: every measurement, the curves of the training, and objects in front of other scenes."""
    curves: dict[str, dict[str, list[float]]] = {}
    for name, result in trained.items():
        for quantity, values in result.curves.items():
            panel = "Training loss" if quantity == "loss" else quantity
            curves.setdefault(panel, {})[METHODS[name].label] = values
    curves = {panel: curves[panel] for panel in [*panels, "Training loss"]}
    models = {METHODS[name].label: result.model for name, result in trained.items()}
    path = out / "report.html"
    reports[0].to_html(
        path,
        others=reports[1:],
        title="Background bias: before and after",
        curves=curves,
        grids=[_grid(models, data)],
        settings=settings,
    )
    return path


def _grid(models: dict[str, SmallCNN], data: DemoData, rows: int = 6, columns: int = 5) -> ImageGrid:
    """The first test object of some classes in front of a scene of its own category and of some fixed other scenes."""
    k = len(data.classes)
    bank, labels = data.test_bank.images.float() / 255, data.test_bank.labels
    assert labels is not None
    first_rows = [int((labels == c).nonzero()[0]) for c in range(k)]
    rows_shown = sorted({round(i * (k - 1) / max(1, rows - 1)) for i in range(min(rows, k))})
    other_classes = sorted({round((i + 0.5) * (k - 1) / columns) for i in range(min(columns, k))})
    table = []
    for label in rows_shown:
        at = (data.test.labels == label).nonzero()[0]
        scenes = bank[[first_rows[label], *(first_rows[c] for c in other_classes)]]
        image = data.test.images[at].float().expand(len(scenes), -1, -1, -1) / 255
        mask = data.test.masks[at].float().expand(len(scenes), -1, -1, -1) / 255
        composed = paste(image, mask, scenes)
        answers_of = {name: predict(model, composed).argmax(1).tolist() for name, model in models.items()}
        pictures = (composed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        cells = [
            Cell(
                picture,
                [(data.classes[answers[i]], answers[i] == label) for answers in answers_of.values()],
                f"{data.classes[label]} in front of another scene; "
                + ", ".join(f"{name}: {data.classes[answers[i]]}" for name, answers in answers_of.items()),
                range(len(answers_of)),
            )
            for i, picture in enumerate(pictures)
        ]
        table.append((data.classes[label], cells))
    return ImageGrid(
        "The same objects in front of other scenes",
        ["its own category", *(data.categories[c].replace("_", " ") for c in other_classes)],
        table,
        "Objects and scenes that no model was trained on, and what each model says. In training each class stood in "
        "front of its own category.",
        list(models),
    )
