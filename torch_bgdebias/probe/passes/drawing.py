"""Every object on several backgrounds, drawn independently for each object from one source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torch_bgdebias.compositing import FOREGROUND_THRESHOLD, paste
from torch_bgdebias.probe.passes.gathering import BackgroundPool
from torch_bgdebias.probe.passes.grouping import names_of_images
from torch_bgdebias.probe.passes.measure import Batches
from torch_bgdebias.probe.passes.reading import LabelledImages, read_batch
from torch_bgdebias.probe.passes.running import ModelRun
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["DrawnAnswers", "answers_on_draws"]


@dataclasses.dataclass(frozen=True)
class DrawnAnswers:
    """Which answers were right.

    Attributes:
        right: (N, M) of 0 and 1, a row an object, its backgrounds in the order of the draws.
        label: (N,) classes.
        unit: (N,) names of what objects belong together; ``None``: every object its own.
        num_classes: outputs of the model.
        without_foreground: images whose mask is empty.
        without_background: objects whose class may have none of the backgrounds.
        doubt: what speaks against the images' units; empty where nothing does.
    """

    right: NDArray[np.uint8]
    label: NDArray[np.int64]
    unit: NDArray[np.str_] | None
    num_classes: int
    without_foreground: int
    without_background: int
    doubt: str


#: the backgrounds of a batch of images for one of the draws: rows (B,), -1 for none
Rows = Callable[[LabelledImages, int], NDArray[np.int64]]


def answers_on_draws(
    model: nn.Module,
    batches: Batches,
    pool: BackgroundPool,
    settings: EvaluationSettings,
    *,
    device: torch.device,
    per_object: int,
    once: bool,
) -> DrawnAnswers:
    """Classify every object on ``per_object`` backgrounds.

    Args:
        model: in evaluation mode.
        batches: with positions and what counts.
        pool: the source.
        settings: say how images, labels and answers are read, and the seed.
        device: of the model.
        per_object: M.
        once: no background for two draws, in a random order, instead of each draw anew.

    Raises:
        ValueError: no object, labels that the model has no output for, or too few backgrounds for ``once``.
    """
    run, rows_of = (
        ModelRun(model, settings),
        _draw_each_once(pool, settings.seed) if once else _draw_anew(pool, settings.seed),
    )
    right: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    units: list[NDArray[np.str_]] = []
    classes, no_foreground, no_background = 0, 0, 0
    for number, (positions, counted, batch) in enumerate(batches):
        images = read_batch(batch, positions, counted, number, settings, device)
        has_foreground = (images.mask > FOREGROUND_THRESHOLD).flatten(1).any(1).cpu().numpy()
        no_foreground += int((~has_foreground).sum())
        if not has_foreground.any():
            continue
        images = _subset(images, has_foreground)
        columns = []
        has_background = np.ones(len(images.label), bool)
        for draw in range(per_object):
            rows = rows_of(images, draw)
            has_background &= rows >= 0
            composites = paste(images.image, images.mask, pool.take(rows, images.image))
            logits, _ = run(composites, None, variant=f"background {draw}", number=number)
            classes = logits.shape[1]
            _check_labels(images.label, classes, number)
            columns.append((logits.argmax(1) == images.label.cpu()).numpy().astype(np.uint8))
        no_background += int((~has_background).sum())
        right.append(np.stack(columns, 1)[has_background])
        labels.append(images.label.cpu().numpy()[has_background])
        if settings.unit is not None:
            units.append(
                names_of_images(settings.unit, batch, positions, counted, name="unit")[has_foreground][has_background]
            )
    if not sum(map(len, right)):
        raise ValueError("loader: expected at least one image with a foreground that may have a background, got none")
    return DrawnAnswers(
        np.concatenate(right),
        np.concatenate(labels),
        np.concatenate(units) if settings.unit is not None else None,
        classes,
        no_foreground,
        no_background,
        run.doubt or "",
    )


def _draw_anew(pool: BackgroundPool, seed: int) -> Rows:
    return lambda images, draw: pool.draw(images.ids, images.label.tolist(), number=draw, seed=seed)


def _draw_each_once(pool: BackgroundPool, seed: int) -> Rows:
    order, used = np.random.default_rng(seed).permutation(len(pool)), 0

    def rows(images: LabelledImages, draw: int) -> NDArray[np.int64]:
        nonlocal used
        used += len(images.label)
        if used > len(order):
            raise ValueError(
                f"once: expected a background for each draw, one an object and round, got {len(order)} for at least "
                f"{used} draws; draw fewer for each object, take more backgrounds, or let them be drawn again "
                "(without once)"
            )
        return order[used - len(images.label) : used].astype(np.int64)

    return rows


def _subset(images: LabelledImages, selected: NDArray[np.bool_]) -> LabelledImages:
    if selected.all():
        return images
    rows = torch.from_numpy(selected).to(images.image.device)
    return LabelledImages(
        images.image[rows],
        images.label[rows],
        images.mask[rows],
        images.ids[selected],
        None if images.void is None else images.void[rows],
        None if images.targets is None else images.targets[rows],
        images.soft,
    )


def _check_labels(label: Tensor, classes: int, number: int) -> None:
    if int(label.max()) >= classes:
        raise ValueError(
            f"label: expected classes in [0, {classes - 1}], the model's outputs, got {int(label.max())} in batch "
            f"{number}"
        )
