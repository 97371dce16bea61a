"""Sends figures to any experiment logger through its own interface, chosen by capability and not by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["log_figures"]


def log_figures(loggers: Iterable[Any], figures: Mapping[str, Figure], *, prefix: str, step: int) -> None:
    """Hand figures to each logger: TensorBoard, Weights & Biases, MLflow, Comet, or a file beside a CSV's metrics.

    Args:
        loggers: Lightning loggers.
        figures: figures by name.
        prefix: goes before the name, ``<prefix>/<name>``.
        step: of the training.

    A logger that can take no figure is named in a warning and left out.
    """
    for logger in loggers:
        for name, figure in figures.items():
            if not _log(logger, f"{prefix}/{name}", figure, step):
                warnings.warn(
                    f"{type(logger).__name__} takes no figures: {prefix} figures are not logged", stacklevel=2
                )
                break


def _log(logger: Any, tag: str, figure: Figure, step: int) -> bool:
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(key=tag, images=[figure], step=step)
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_figure"):  # TensorBoard
        experiment.add_figure(tag, figure, global_step=step)
    elif hasattr(experiment, "log_figure") and hasattr(logger, "run_id"):  # MLflow's client wants to know the run
        experiment.log_figure(logger.run_id, figure, f"{tag}-step{step}.png")
    elif hasattr(experiment, "log_figure"):  # Comet
        experiment.log_figure(figure_name=tag, figure=figure, step=step)
    elif getattr(logger, "log_dir", None):
        path = Path(logger.log_dir) / f"{tag}-step{step}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            figure.savefig(file, format="png")
    else:
        return False
    return True
