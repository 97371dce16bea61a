"""``BackgroundBiasProbe``: background bias as numbers and pictures in the training log. It only reads."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_option
from torch_bgdebias.data.variants import VARIANTS
from torch_bgdebias.models import LogitsKey, eval_mode
from torch_bgdebias.probe.loggers import log_figures
from torch_bgdebias.probe.passes.attributions import Attribution, named_attributions
from torch_bgdebias.probe.passes.gathering import BackgroundPool, Gatherer
from torch_bgdebias.probe.passes.loading import Share, rng_untouched
from torch_bgdebias.probe.passes.measure import Evaluation, ImageScore, merge
from torch_bgdebias.probe.results.aggregate import summarise
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, Estimate, ImageResults

__all__ = ["BackgroundBiasProbe"]

METRICS = ("accuracy", "bg_gap", "decision_consistency", "feature_consistency")
_FLOOR = 40  # a budget never asks for fewer images than this: it binds from 640 validation images on
_FEW = 256  # with fewer than this because of the budget, the first measurement says so


class BackgroundBiasProbe(pl.Callback):
    """Measures background bias at the end of validation epochs, for any LightningModule, without changing anything.

    Logged, with intervals as ``_low`` and ``_high`` where it says so, under ``<prefix>/``: ``acc_original`` and
    ``acc_<variant>``; ``bg_gap`` (with interval); ``decision_consistency_<variant>`` and
    ``feature_consistency_<variant>`` for mixed variants, and both without a suffix for mixed_rand; ``<score>`` for each
    of ``scores``; ``images`` and ``seconds``. They go through the module's own ``log_dict``, so that
    ``ModelCheckpoint(monitor="bias/bg_gap", mode="min")`` works; give it the same ``every_n_epochs``. Figures go to
    every logger that takes them. The last report, with everything in it, is ``probe.report``.

    Training is the same with and without the probe, bit for bit: random states, module modes, statistics and gradients
    are left as found. The sanity check is skipped. Under several processes each evaluates its share of the images,
    none twice, and all log the same numbers. Strategies that shard the parameters (FSDP) need shares of equal length
    and are not supported.

    Args:
        loader_or_bank: a loader with masks; or backgrounds (a ``BackgroundBank``) to use with the trainer's validation
            loader; ``None``: the trainer's validation loader, backgrounds from its own images.
        every_n_epochs: measure in epochs 0, n, 2n, ...
        spec: where image, label and mask are in a batch, after the module's own transfer hooks have been applied.
        metrics: which of accuracy, bg_gap, decision_consistency, feature_consistency to log.
        variants: variants to evaluate, each one forward pass over the images.
        figures: draw figures (needs matplotlib) for the loggers.
        forward: ``forward(module, image)`` returns the model's output; by default ``module(image)``.
        logits: where the logits are in that output.
        layer: name of the layer whose input is the embedding; the last linear layer when ``None``.
        scores: further per-image scores by name, as in ``evaluate_background_bias``.
        attributions: names or functions, as there: logs ``pixel_ratio/<name>`` and draws heatmaps. Not within the cost
            that ``budget`` speaks of.
        backgrounds: backgrounds when the first argument is a loader.
        mean: normalisation of the images (black in only_fg and its like, colours of examples).
        std: goes with ``mean``.
        seed: of the choice of backgrounds and of the bootstrap.
        max_images: evaluate at most so many images, spread evenly over the data set.
        budget: with the trainer's validation loader and no ``max_images``: passes over images of the probe (one each
            for the original, every variant, and gathering backgrounds), as a share of the validation epoch's. It limits
            the images, but never to fewer than 40, and says so once where it leaves fewer than 256, since the interval
            is wide then. ``None``: all images.
        max_backgrounds: backgrounds kept in host memory (gathered at the first measurement of a run).
        inference_mode: evaluate under ``torch.inference_mode``. Off (``torch.no_grad`` alone, which is what Lightning
            does in the validation of a fit) for modules that keep tensors they make in ``forward``: such tensors could
            not be trained with.
        dataloader_idx: which validation loader, where the trainer has several.
        prefix: of the logged names.
        confidence: of the intervals.
        n_resamples: bootstrap resamples.

    Example:
        >>> from torch_bgdebias.callbacks import BackgroundBiasProbe
        >>> probe = BackgroundBiasProbe(every_n_epochs=5, spec=BatchSpec(image="image", label="label", mask="mask"))
    """

    def __init__(
        self,
        loader_or_bank: Any = None,
        every_n_epochs: int = 1,
        *,
        spec: BatchSpec | None = None,
        metrics: Sequence[str] = METRICS,
        variants: Sequence[str] = ("mixed_same", "mixed_rand"),
        figures: bool = True,
        forward: Callable[[nn.Module, Tensor], Any] | None = None,
        logits: LogitsKey = None,
        layer: str | None = None,
        scores: Mapping[str, ImageScore] | None = None,
        attributions: Sequence[str] | Mapping[str, Attribution] = (),
        backgrounds: Any = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        max_images: int | None = None,
        budget: float | None = 0.25,
        max_backgrounds: int = 512,
        inference_mode: bool = True,
        dataloader_idx: int = 0,
        prefix: str = "bias",
        confidence: float = 0.95,
        n_resamples: int = 1000,
    ) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: expected at least 1, got {every_n_epochs}")
        if budget is not None and not budget > 0:
            raise ValueError(f"budget: expected a positive share of a validation epoch or None, got {budget}")
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images: expected at least 1 or None, got {max_images}")
        for metric in metrics:
            check_option(metric, METRICS, name="metrics")
        for variant in variants:
            check_option(variant, VARIANTS, name="variants")
        if "bg_gap" in metrics and not {"mixed_same", "mixed_rand"} <= set(variants):
            raise ValueError(f"variants: expected mixed_same and mixed_rand for bg_gap, got {list(variants)}")
        is_bank = isinstance(loader_or_bank, Tensor) or isinstance(getattr(loader_or_bank, "images", None), Tensor)
        if is_bank and backgrounds is not None:
            raise ValueError("backgrounds: expected None because the first argument is a bank already")
        self.loader: Iterable[Any] | None = None if is_bank else loader_or_bank
        self.backgrounds = loader_or_bank if is_bank else backgrounds
        self.every_n_epochs, self.spec = every_n_epochs, BatchSpec() if spec is None else spec
        self.metrics, self.variants, self.figures = tuple(metrics), tuple(variants), figures
        self.attributions = named_attributions(attributions, logits=logits, seed=seed)
        self.scores, self.prefix, self.dataloader_idx = dict(scores or {}), prefix, dataloader_idx
        self.max_images, self.budget, self.max_backgrounds = max_images, budget, max_backgrounds
        self.confidence, self.n_resamples, self.seed = confidence, n_resamples, seed
        #: the last report; the same on every process
        self.report: BackgroundBiasReport | None = None
        self.inference_mode = inference_mode
        self.mean, self.std, self.logits, self.layer = mean, std, logits, layer
        self._forward = _call if forward is None else forward
        self._pool: BackgroundPool | None = None
        self._started = math.nan
        self._told = False
        self._cut = 0  # validation images, where the budget leaves some of them out

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the backgrounds of an earlier run."""
        self._pool, self._told, self._cut = None, False, 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time, to compare the probe's cost with the validation's."""
        self._started = time.perf_counter()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log."""
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        start = time.perf_counter()
        self.report = self._measure(trainer, pl_module)
        seconds = time.perf_counter() - start
        scalars = {**_scalars(self.report, self.metrics), "seconds": seconds}
        named = {f"{self.prefix}/{name}": float(value) for name, value in scalars.items()}
        # the numbers are the same on every process already: the mean over processes that Lightning asks for keeps them
        pl_module.log_dict(named, on_step=False, on_epoch=True, sync_dist=trainer.world_size > 1)
        if self.figures and trainer.is_global_zero and trainer.loggers:
            self._draw(trainer, self.report)
        self._tell_cost(self.report, seconds, time.perf_counter() - start - seconds, start - self._started)

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> BackgroundBiasReport:
        with rng_untouched(), eval_mode(pl_module), torch.no_grad():
            evaluation = Evaluation(
                pl_module,
                self.spec,
                self.variants,
                mean=self.mean,
                std=self.std,
                device=pl_module.device,
                seed=self.seed,
                forward=self._forward,
                logits=self.logits,
                layer=self.layer,
                embeddings="feature_consistency" in self.metrics,
                scores=self.scores,
                attributions=self.attributions,
                examples=6 if self.figures else 0,
            )
            if evaluation.no_embedding and not self._told:
                rank_zero_info(f"{type(self).__name__}: {evaluation.no_embedding}")
            share, loader = self._share(trainer, pl_module)
            if self._pool is None and self.backgrounds is not None:
                self._pool = BackgroundPool.of(self.backgrounds, mean=self.mean, std=self.std)
            elif self._pool is None and evaluation.mixed:
                self._pool = self._gathered(evaluation, share)
            with self._reading(), trainer.precision_plugin.forward_context():
                images = evaluation.collect(share, self._pool)
        evaluation, found = self._joined(evaluation, images)
        merged = merge(found)
        return summarise(
            merged,
            model=type(pl_module).__name__,
            class_names=evaluation.class_names(None, loader),
            confidence=self.confidence,
            n_resamples=self.n_resamples,
            seed=self.seed,
            counts=evaluation.counts(merged, self._pool),
            settings={**evaluation.settings(), "epoch": trainer.current_epoch, "processes": trainer.world_size},
            examples=evaluation.examples.examples(),
        )

    def _reading(self) -> AbstractContextManager[None]:
        return torch.inference_mode() if self.inference_mode else torch.no_grad()

    def _joined(self, evaluation: Evaluation, images: ImageResults | None) -> tuple[Evaluation, list[ImageResults]]:
        """What all processes found: their images, and their counts and examples in this process's ``evaluation``."""
        parts = _from_all_ranks((images, evaluation.without_foreground, evaluation.num_classes, evaluation.examples))
        found = [part[0] for part in parts if part[0] is not None]
        if not found:
            raise ValueError("loader: expected at least one batch with an image, got none")
        evaluation.without_foreground = sum(part[1] for part in parts)
        evaluation.num_classes = max(part[2] or 0 for part in parts)
        evaluation.examples.join([part[3] for part in parts])
        return evaluation, found

    def _gathered(self, evaluation: Evaluation, share: Share) -> BackgroundPool:
        with self._reading():
            own = evaluation.gather(share, self.max_backgrounds)
        together = Gatherer(self.max_backgrounds, self.seed)
        for entries in _from_all_ranks(own.entries()):
            together.add(entries)
        return together.pool()

    def _share(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[Share, Any]:
        """This process's part of the images, moved to the device as the trainer moves a validation batch."""

        def move(batch: Any) -> Any:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=self.dataloader_idx)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=self.dataloader_idx)

        loader, limit, batches = self.loader, self.max_images, None
        if loader is None:
            loader = _validation_loader(trainer, self.dataloader_idx)
            count = _images_of(loader)
            allowed = trainer.num_val_batches[self.dataloader_idx] if trainer.num_val_batches else math.inf
            if count is None:
                batches = None if math.isinf(allowed) else int(allowed) * trainer.world_size
            else:
                size = getattr(loader, "batch_size", None) or 1
                seen = count if math.isinf(allowed) else min(count, int(allowed) * size * trainer.world_size)
                if limit is None and self.budget is not None:
                    limit = max(_FLOOR, int(seen * self.budget / (2 + len(self.variants))))
                    self._cut = seen if limit < seen else 0
                limit = seen if limit is None else min(limit, seen)
                limit = None if limit >= count else limit
        rank, world = trainer.global_rank, trainer.world_size
        share = Share(loader, self.spec, rank=rank, world=world, max_images=limit, max_batches=batches, move=move)
        return share, loader

    def _tell_cost(self, report: BackgroundBiasReport, seconds: float, drawing: float, validation: float) -> None:
        if self._told:
            return
        self._told = True
        passes = 1 + len(self.variants)
        share = f", together {(seconds + drawing) / validation:.2f} of the validation" if validation > 0 else ""
        took = f"{seconds:.2f} s, logging and figures {drawing:.2f} s"
        what = f"{len(report.images)} images x {passes} forward passes took {took}{share}"
        rank_zero_info(f"{type(self).__name__}: {what}; the first measurement also gathers the backgrounds")
        if self._cut and len(report.images) < _FEW:
            rest = f"{len(report.images)} of {self._cut} validation images, to stay within budget={self.budget}"
            rank_zero_info(f"{type(self).__name__}: the figures rest on {rest}; budget=None measures them all")

    def _draw(self, trainer: pl.Trainer, report: BackgroundBiasReport) -> None:
        try:
            figures = report.figures
        except ImportError as error:
            self.figures = False
            warnings.warn(f"{type(self).__name__} logs no figures: {error}", stacklevel=2)
            return
        log_figures(trainer.loggers, figures, prefix=self.prefix, step=trainer.global_step)


def _call(module: nn.Module, image: Tensor) -> Any:
    try:
        return module(image)
    except NotImplementedError as error:
        hint = "pass BackgroundBiasProbe(forward=lambda module, image: ...), which returns the model's output"
        raise TypeError(f"{type(module).__name__} has no forward(image): {hint}") from error


def _scalars(report: BackgroundBiasReport, metrics: Sequence[str]) -> dict[str, float]:
    scalars: dict[str, float] = {"images": len(report.images)}
    if "bg_gap" in metrics and report.bg_gap is not None:
        gap = report.bg_gap
        scalars |= {"bg_gap": gap.value, "bg_gap_low": gap.low, "bg_gap_high": gap.high}
    for name, result in report.variants.items():
        if "accuracy" in metrics:
            scalars[f"acc_{name}"] = result.accuracy.value
        for what in ("decision_consistency", "feature_consistency"):
            estimate: Estimate | None = getattr(result, what)
            if what in metrics and estimate is not None:
                scalars[f"{what}_{name}"] = estimate.value
                if name == "mixed_rand":
                    scalars[what] = estimate.value
    return scalars | {name: score.mean.value for name, score in report.scores.items()}


def _validation_loader(trainer: pl.Trainer, index: int) -> Any:
    loaders = trainer.val_dataloaders
    if loaders is None:
        raise ValueError("loader: expected one, because the trainer has no validation loader; pass it to the probe")
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, (list, tuple)):
        loaders = [loaders]
    if not 0 <= index < len(loaders):
        raise ValueError(f"dataloader_idx: expected less than {len(loaders)} validation loader(s), got {index}")
    return loaders[index]


def _images_of(loader: Any) -> int | None:
    """Images in the loader's data set, ``None`` where that cannot be told."""
    data = getattr(loader, "dataset", None)
    return len(data) if isinstance(data, Sized) and getattr(loader, "batch_size", None) else None


def _from_all_ranks(value: Any) -> list[Any]:
    """``value`` of every process, in rank order."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
