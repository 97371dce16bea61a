"""``BackgroundBiasReport``: a measurement that can be printed, drawn, saved as JSON and written as one HTML file.

The page needs nothing else: no network, no other file, no plotting package.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias._deprecated import warn_of_resampling
from torch_bgdebias.checks import check_count
from torch_bgdebias.probe.figures import figures_of
from torch_bgdebias.probe.page.concepts import concepts_section
from torch_bgdebias.probe.page.downloads import downloads_section
from torch_bgdebias.probe.page.first import how_section, is_grave, issues_section, verdict_section
from torch_bgdebias.probe.page.performance import performance_section
from torch_bgdebias.probe.page.pictures import Cell, ImageGrid, examples_section, grid_section
from torch_bgdebias.probe.page.render import Section, page_html
from torch_bgdebias.probe.page.sections import (
    curves_section,
    footnotes_section,
    gaps_section,
    header,
    scores_section,
    settings_section,
    variants_section,
)
from torch_bgdebias.probe.page.sensitivity import sensitivity_section
from torch_bgdebias.probe.page.tables import classes_section, overview_section
from torch_bgdebias.probe.results.aggregate import measurement_of
from torch_bgdebias.probe.results.agreement import require_agreement
from torch_bgdebias.probe.results.comparison import ModelComparison, compare_models
from torch_bgdebias.probe.results.images import Example, ImageResults
from torch_bgdebias.probe.results.layout import measurement_from_dict, measurement_to_dict
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.parquet import measurement_from_parquet, measurement_to_parquet
from torch_bgdebias.probe.results.performance import AreaGap, VariantPerformance, area_gap, performance_of
from torch_bgdebias.probe.results.sensitivity import MaskSensitivity
from torch_bgdebias.probe.results.summary import summary_text
from torch_bgdebias.probe.sharing.fields import to_fiftyone
from torch_bgdebias.probe.sharing.runs import to_mlflow, to_tensorboard, to_wandb
from torch_bgdebias.records import fields_of, parse_json
from torch_bgdebias.writing import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BackgroundBiasReport", "Cell", "ImageGrid", "report_html", "summarise"]

#: panel -> model -> one value per epoch
Curves = Mapping[str, Mapping[str, Sequence[float]]]


@dataclasses.dataclass(eq=False)
class BackgroundBiasReport(Measurement):
    """The result of `torch_bgdebias.probe.evaluate_background_bias`; its numbers are those of ``Measurement``."""

    def summary(self) -> str:
        """The headline numbers with intervals, the conclusions, and the worst classes, as text."""
        return summary_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and text (NaN as ``None``), with the schema's name."""
        return measurement_to_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write `to_dict` as strict JSON; undefined numbers (NaN) become ``null``."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BackgroundBiasReport:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another schema, a field is missing or unknown, or figures that its images do not give.
        """
        measurement = measurement_from_dict(data)
        require_agreement(measurement)
        return _report(measurement)

    @classmethod
    def from_json(cls, path: str | Path) -> BackgroundBiasReport:
        """Read what `to_json` wrote.

        Raises:
            OSError: no such file, or it cannot be read; the message says what was expected.
            ValueError: not JSON, another schema, a field that is missing or of another kind; the message names the
                file.
        """
        expected = "expected a report's JSON file, as BackgroundBiasReport.to_json and bgdebias probe write it"
        try:
            data = parse_json(path)
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
            raise type(error)(f"{path}: {expected}; {reason}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {expected}; it is not text") from error
        except ValueError as error:
            raise ValueError(f"{path}: {expected}; it is not JSON: {error}") from error
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_parquet(self, path: str | Path) -> None:
        """Write everything as one Parquet file, results of images in columns: for millions of them, where JSON is
        large and slow.

        Raises:
            ImportError: pyarrow is not installed.
        """
        measurement_to_parquet(self, path)

    @classmethod
    def from_parquet(cls, path: str | Path) -> BackgroundBiasReport:
        """Read what `to_parquet` wrote.

        Raises:
            ImportError: pyarrow is not installed.
            OSError, ValueError: as for `from_json`.
        """
        return _report(measurement_from_parquet(path))

    def to_html(
        self,
        path: str | Path,
        *,
        others: Sequence[Measurement] = (),
        title: str = "Background bias report",
        curves: Curves | None = None,
        grids: Sequence[ImageGrid] | None = None,
        settings: Mapping[str, Any] | None = None,
        comparisons: Sequence[ModelComparison | None] | None = None,
        masks: MaskSensitivity | None = None,
    ) -> Path:
        """Write one page about this model, or about several of which this one is "before".

        Args:
            path: the file to write; its folder must exist.
            others: later models to show beside this one; all should come from the same test images.
            title: heading and title of the page.
            curves: training curves: panel -> model -> one value per epoch. Fractions are drawn in percent, unless the
                panel is called a loss or a value is above 1.
            grids: tables of pictures, shown in this order.
            settings: further settings to list, such as the command and its arguments.
            comparisons: what `torch_bgdebias.probe.compare_models` gave for these models; made when ``None``.
            masks: what `torch_bgdebias.probe.mask_sensitivity` gave for this model, for a section of its own.

        Returns:
            ``path``.

        Raises:
            OSError: the file cannot be written.
        """
        page = report_html(
            [self, *others],
            title=title,
            curves=curves,
            grids=grids,
            settings=settings,
            comparisons=comparisons,
            masks=masks,
        )
        path = Path(path)
        write_text(path, page)
        return path

    def to_tensorboard(self, writer: Any, *, prefix: str = "background", step: int = 0) -> None:
        """Write numbers, the summary, the table of classes and the figures into a TensorBoard run.

        Args:
            writer: ``torch.utils.tensorboard.SummaryWriter``, or ``logger.experiment`` of a ``TensorBoardLogger``.
            prefix: of every tag.
            step: of the training.

        Raises:
            TypeError: no such writer.
            ImportError: matplotlib is not installed.
        """
        to_tensorboard(self, writer, prefix=prefix, step=step)

    def to_wandb(self, run: Any, *, prefix: str = "background", step: int | None = None, images: int = 10_000) -> None:
        """Log numbers and tables of classes, images and examples (pictures, heatmaps) into a Weights & Biases run.

        Args:
            run: what ``wandb.init`` returned, or ``logger.experiment`` of a ``WandbLogger``.
            prefix: of every key.
            step: of the run; ``None``: its next one.
            images: rows of the table of images at most.

        Raises:
            TypeError: not a run.
            ImportError: wandb is not installed.
        """
        to_wandb(self, run, prefix=prefix, step=step, images=check_count(images, name="images", least=0))

    def to_mlflow(
        self, run_id: str | None = None, *, client: Any = None, folder: str = "background", step: int = 0
    ) -> None:
        """Log metrics, and as artefacts the report (JSON, page), its figures and the table of classes, into a run.

        Args:
            run_id: of the run, such as ``logger.run_id`` of an ``MLFlowLogger``; ``None``: the active one.
            client: an ``mlflow.MlflowClient``; ``None``: one of the tracking server that is set.
            folder: of the artefacts, and before the names of metrics.
            step: of the training.

        Raises:
            ValueError: no run is named, and none is active.
            ImportError: mlflow or matplotlib is not installed.
        """
        files = {"report.html": report_html([self]), "report.json": json.dumps(self.to_dict(), allow_nan=False)}
        to_mlflow(self, run_id, client=client, folder=folder, step=step, files=files)

    def to_fiftyone(self, samples: Iterable[Any], *, field: str = "background") -> int:
        """Write fields into FiftyOne's samples: answers on each background, whether a new one hurt, scores, heatmaps.

        Args:
            samples: a dataset, a view or a list of samples, in the order of the data set that was measured (by a loader
                that does not shuffle).
            field: before the name of every field: ``background_mixed_rand``, ``background_hurt``, ...

        Returns:
            How many samples were given fields.

        Raises:
            ValueError: positions are not known, or there are fewer samples than images were measured.
            ImportError: fiftyone is not installed.
        """
        return to_fiftyone(self, samples, field=field)

    @property
    def performance(self) -> dict[str, VariantPerformance]:
        """AUC, sensitivity, F1, balanced accuracy, calibration and confusion matrix per variant.

        Empty where no log odds were kept (more than 20 classes, unless ``probabilities=True``) or there are no labels.
        """
        return performance_of(self)

    @property
    def auc_gap(self) -> AreaGap | None:
        """The area under the ROC curve on own backgrounds less that on random ones, with DeLong's test."""
        return area_gap(self)

    @property
    def figures(self) -> dict[str, Figure]:
        """Figures by name (`torch_bgdebias.probe.figures.figures_of`); needs matplotlib."""
        return figures_of(self)


def summarise(
    images: ImageResults,
    *,
    model: str,
    class_names: Sequence[str],
    confidence: float = 0.95,
    n_resamples: int | None = None,
    seed: int | None = None,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    examples: Sequence[Example] = (),
) -> BackgroundBiasReport:
    """Compute a report from per-image results, for example again with another confidence.

    Args:
        images: per-image results, as in ``report.images``.
        model: the model's name.
        class_names: names of all K classes.
        confidence: of the intervals.
        n_resamples: without effect: intervals are computed, not drawn. Goes in the next release.
        seed: without effect, as ``n_resamples``.
        counts: further counts to carry.
        settings: further settings to carry.
        examples: pictures to carry.

    Example:
        >>> import numpy as np
        >>> columns = {"original": np.array([0, 1]), "mixed_same": np.array([0, 1]), "mixed_rand": np.array([0, 0])}
        >>> sure = {name: np.ones(2, np.float32) for name in columns}
        >>> images = ImageResults(np.array([5, 9], np.uint64), np.array([0, 1]), columns, sure)
        >>> summarise(images, model="toy", class_names=["cat", "dog"]).bg_gap.value
        0.5
    """
    for name, value in (("n_resamples", n_resamples), ("seed", seed)):
        if value is not None:
            warn_of_resampling(f"summarise({name}=...)")
    measurement = measurement_of(
        images,
        model=model,
        class_names=class_names,
        confidence=confidence,
        counts=counts,
        settings=settings,
        examples=examples,
    )
    return _report(measurement)


def report_html(
    reports: Sequence[Measurement],
    *,
    title: str = "Background bias report",
    curves: Curves | None = None,
    grids: Sequence[ImageGrid] | None = None,
    settings: Mapping[str, Any] | None = None,
    comparisons: Sequence[ModelComparison | None] | None = None,
    masks: MaskSensitivity | None = None,
) -> str:
    """The page that `BackgroundBiasReport.to_html` writes, as text.

    Raises:
        ValueError: no report.
    """
    if not reports:
        raise ValueError("reports: expected at least one BackgroundBiasReport, got none")
    compared = compare_models(reports) if comparisons is None else comparisons
    verdict_part, issues_part = verdict_section(reports, compared), issues_section(reports, compared)
    sections = [
        header(title, reports),
        *([issues_part, verdict_part] if is_grave(issues_part) else [verdict_part, issues_part]),
    ]
    if any(r.per_class for r in reports):
        sections.append(classes_section(reports, compared))
    groupings = dict.fromkeys(name for r in reports for name in r.per_group)
    sections += [classes_section(reports, grouping=name) for name in groupings]
    sections += [overview_section(reports, compared), gaps_section(reports)]
    if any(r.images.labelled for r in reports):
        sections.append(variants_section(reports))
    sections += [examples_section(r, anchor=f"worst-{i}") for i, r in enumerate(reports, start=1) if r.examples]
    sections += [grid_section(g, anchor=f"grid-{i}") for i, g in enumerate(grids or (), start=1)]
    sections += _further_sections(reports, compared)
    if masks is not None:
        sections.append(sensitivity_section(masks))
    if curves:
        sections.append(curves_section(curves, reports))
    sections += [how_section(reports, compared), downloads_section(reports, compared)]
    sections += [settings_section(reports, settings), footnotes_section(reports)]
    return page_html(title, [section for section in sections if section is not None])


def _further_sections(reports: Sequence[Measurement], compared: Sequence[ModelComparison | None]) -> list[Section]:
    """The sections that only some measurements have."""
    sections = []
    if any(r.images.log_odds and r.images.labelled for r in reports):
        sections.append(performance_section(reports, compared))
    if any(r.scores for r in reports):
        sections.append(scores_section(reports))
    if any(r.concepts for r in reports):
        sections.append(concepts_section(reports))
    return sections


def _report(measurement: Measurement) -> BackgroundBiasReport:
    return BackgroundBiasReport(**fields_of(measurement))
