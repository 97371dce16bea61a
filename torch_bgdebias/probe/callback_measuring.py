"""Measures the module of a trainer, on all its processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from torch_bgdebias.backgrounds.pool import BackgroundSource
from torch_bgdebias.class_names import known_names, names_of_classes
from torch_bgdebias.lightning import LightningModule, Trainer
from torch_bgdebias.models import eval_mode
from torch_bgdebias.probe.callback_loaders import LoaderLimits, stage_loader
from torch_bgdebias.probe.callback_settings import in_unit_range, with_known_units
from torch_bgdebias.probe.callback_transfer import BatchMove
from torch_bgdebias.probe.evaluation import changing_images, report_of, warnings_of
from torch_bgdebias.probe.passes.gathering import BackgroundPool, Gatherer, pool_for
from torch_bgdebias.probe.passes.loading import Share, repeated_images, rng_untouched, unshown_void
from torch_bgdebias.probe.passes.measure import Collected, Evaluation, joined
from torch_bgdebias.probe.passes.running import ModelRun
from torch_bgdebias.probe.passes.settings import EvaluationSettings
from torch_bgdebias.probe.report import BackgroundBiasReport

__all__ = ["Measured", "Measuring", "NotMeasuredError", "from_all_ranks"]

T = TypeVar("T")


class NotMeasuredError(Exception):
    """Why a measurement would have been of another network or of other backgrounds."""


class Measured(NamedTuple):
    """A measurement: the report, the same on every process, and what it was made of."""

    report: BackgroundBiasReport
    collected: Collected
    settings: EvaluationSettings
    pool: BackgroundPool | None
    loader: Any
    run: ModelRun

    def notes(self) -> Iterator[str]:
        """What is to know of the numbers."""
        messages = (
            *warnings_of(self.collected, self.settings),
            unshown_void(self.loader),
            repeated_images(self.loader),
        )
        return filter(None, messages)

    def changing(self) -> str:
        """What to say where the loader gave other images in a second pass; empty where it did not."""
        return changing_images(self.collected, self.pool)


class Measuring:
    """What a run's measurements share: the backgrounds, and what the first of them has found out.

    Args:
        loader: of images with masks; ``None``: the trainer's.
        backgrounds: ``None``: from the images themselves.
        limits: how many images are measured.
        inference_mode: measure under ``torch.inference_mode``.

    Attributes:
        left_out: images of the loader, where the budget leaves some of them out; else 0.
    """

    def __init__(
        self,
        loader: Iterable[Any] | None,
        backgrounds: BackgroundSource | None,
        limits: LoaderLimits,
        *,
        inference_mode: bool,
    ) -> None:
        self._loader, self._backgrounds, self._limits, self._inference_mode = (
            loader,
            backgrounds,
            limits,
            inference_mode,
        )
        self.forget()

    def forget(self) -> None:
        """A run starts."""
        self._pool: BackgroundPool | None = None
        self._normalised: bool | None = None  # whether the trainer's images are; not looked yet
        self.left_out = 0

    def check_loader(self, trainer: Trainer) -> None:
        """Raise where the trainer's loader is to be measured and there is none of this index."""
        if self._loader is None:
            stage_loader(trainer, self._limits.dataloader_idx)

    def run(self, trainer: Trainer, module: LightningModule, settings: EvaluationSettings) -> Measured:
        """Measure the module on the images as its own steps get them.

        Raises:
            NotMeasuredError: its transfer hooks move images and leave their masks.
        """
        if self._loader is None:  # the trainer's images are what its data module says
            settings = with_known_units(settings, getattr(trainer, "datamodule", None))
        with rng_untouched(), eval_mode(module), torch.no_grad():
            share, loader, move = self._share(trainer, module, settings)
            move.peek(share)
            _refuse_problem(move)
            if self._loader is None and settings.mean is None and with_known_units(settings, module) is not settings:
                settings = self._in_units_of_module(settings, module, share)
            evaluation = Evaluation(module, settings, device=module.device)
            if self._pool is None and self._backgrounds is not None:
                self._pool = pool_for(self._backgrounds, None, settings, known_names(None, loader))
            elif self._pool is None and settings.mixed and settings.ready is None:
                self._pool = self._gathered(evaluation, share)
            with self._reading(), trainer.precision_plugin.forward_context():
                of_this_rank = evaluation.collect(share, self._pool)
        _refuse_problem(move)
        collected = joined(from_all_ranks(of_this_rank))
        report = report_of(
            collected,
            settings,
            self._pool,
            model=type(module).__name__,
            class_names=names_of_classes(None, loader, collected.num_classes),
            recorded={
                "device": str(module.device),
                "epoch": trainer.current_epoch,
                "processes": trainer.world_size,
                "own_backgrounds": self._backgrounds is None,
            },
        )
        return Measured(report, collected, settings, self._pool, loader, evaluation.run)

    def _share(
        self, trainer: Trainer, module: LightningModule, settings: EvaluationSettings
    ) -> tuple[Share, Any, BatchMove]:
        """This process's part of the images, moved to the device as the trainer moves a validation batch."""
        index, spec = self._limits.dataloader_idx, settings.spec
        move = BatchMove(trainer, module, spec, index=index, own_loader=self._loader is not None)
        loader, images, batches = self._loader, self._limits.max_images, None
        if loader is None:
            loader, allowed = stage_loader(trainer, index)
            part = self._limits.part_of(loader, allowed, trainer.world_size, passes=2 + len(settings.variant_names))
            images, batches, self.left_out = part
        rank, world = trainer.global_rank, trainer.world_size
        share = Share(loader, spec, rank=rank, world=world, max_images=images, max_batches=batches, move=move)
        return share.need_order(settings), loader, move

    def _in_units_of_module(
        self, settings: EvaluationSettings, module: LightningModule, share: Share
    ) -> EvaluationSettings:
        """With the module's mean and std, unless the first images show that they were not normalised with them."""
        if self._normalised is None:
            first = next(iter(share), None)
            self._normalised = first is not None and not in_unit_range(settings.spec.image_of(first[2]))
            self._normalised = any(from_all_ranks(self._normalised))
        return with_known_units(settings, module) if self._normalised else settings

    def _gathered(self, evaluation: Evaluation, share: Share) -> BackgroundPool:
        with self._reading():
            of_this_rank = evaluation.gather(share)
        together = Gatherer(evaluation.settings.max_backgrounds, evaluation.settings.seed)
        for entries in from_all_ranks(of_this_rank.entries()):
            together.add(entries)
        return together.pool()

    def _reading(self) -> AbstractContextManager[None]:
        return torch.inference_mode() if self._inference_mode else torch.no_grad()


def from_all_ranks(value: T) -> list[T]:
    """``value`` of every process, in rank order."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _refuse_problem(move: BatchMove) -> None:
    if problem := next(filter(None, from_all_ranks(move.problem)), ""):
        raise NotMeasuredError(
            f"{problem}, so the backgrounds that are exchanged would not be those around the objects; let the hooks "
            "move image and mask together, or only while self.trainer.training"
        )
