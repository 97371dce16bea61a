"""``ProbeSettings``: what ``BackgroundBiasProbe`` logs, beside how it evaluates; validated once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torch_bgdebias.checks import check_option
from torch_bgdebias.names import METRICS
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["ProbeSettings", "call_module", "call_with_advice", "in_unit_range", "slash_in_names", "with_known_units"]


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
    """Options of `torch_bgdebias.callbacks.BackgroundBiasProbe`, which explains them.

    Raises:
        ValueError: a metric that does not exist.
    """

    metrics: Sequence[str] = METRICS
    figures: bool = True
    inference_mode: bool = True

    def __post_init__(self) -> None:
        for metric in self.metrics:
            check_option(metric, METRICS, name="metrics")
        object.__setattr__(self, "metrics", tuple(self.metrics))

    def evaluation(self, settings: EvaluationSettings) -> EvaluationSettings:
        """The evaluation that these metrics and figures need: examples to draw, embeddings, the module's own call.

        Raises:
            ValueError: variants without which a metric cannot be had.
        """
        if "bg_gap" in self.metrics and not {"mixed_same", "mixed_rand"} <= set(settings.variant_names):
            names = list(settings.variant_names)
            raise ValueError(f"variants: expected mixed_same and mixed_rand for bg_gap, got {names}")
        return dataclasses.replace(
            settings,
            examples=settings.examples or 6 * self.figures,
            embeddings="feature_consistency" in self.metrics,
            forward=call_module if settings.forward is None else settings.forward,
        )


def slash_in_names(callbacks: Sequence[object], prefix: str) -> str:
    """What is wrong with a checkpoint's name that repeats a metric's name with its slash; empty where nothing is."""
    for callback in callbacks:
        filename = getattr(callback, "filename", None) or ""
        if f"{{{prefix}/" in filename and getattr(callback, "auto_insert_metric_name", False):
            return (
                f"ModelCheckpoint(filename={filename!r}): the slash in {prefix}/ makes a folder of every checkpoint, "
                "which save_top_k never removes; pass auto_insert_metric_name=False"
            )
    return ""


def with_known_units(settings: EvaluationSettings, *holders: object) -> EvaluationSettings:
    """The settings with mean and std of the first ``preprocessing`` that a data module or module has.

    Where they say nothing themselves, and the images are normalised by whoever loads them.
    """
    if settings.mean is not None or settings.preprocess is not None:
        return settings
    preprocessings = (getattr(holder, "preprocessing", None) for holder in holders)
    with_units = next(
        (
            preprocessing
            for preprocessing in preprocessings
            if isinstance(preprocessing, Preprocessing) and preprocessing.mean is not None
        ),
        None,
    )
    return settings if with_units is None else dataclasses.replace(settings, mean=with_units.mean, std=with_units.std)


def in_unit_range(image: Tensor) -> bool:
    """Whether all pixels are as in files, in [0, 1]."""
    low, high = image.detach().float().aminmax()
    return bool((low >= 0) & (high <= 1))


def call_module(module: nn.Module, image: Tensor) -> Any:
    """``module(image)`` for the probe."""
    return call_with_advice(module, image, who="BackgroundBiasProbe")


def call_with_advice(module: nn.Module, image: Tensor, *, who: str) -> Any:
    """``module(image)``, and what to do about it where its forward is another one, or there is none.

    Args:
        module: the user's.
        image: (B, C, H, W).
        who: calls it.
    """
    name, advice = type(module).__name__, f"pass {who}(forward=lambda module, image: ...), which returns the model's"
    try:
        return module(image)
    except NotImplementedError as error:
        raise TypeError(f"{name} has no forward(image): {advice} output") from error
    except Exception as error:  # whatever somebody's forward raises at other arguments than it takes
        error.add_note(f"{who} calls {name}(image); where its forward takes something else, {advice} output")
        raise
