"""``BackgroundBiasProbe``: background bias as numbers and pictures in the training log. It only reads."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from torch_bgdebias._deprecated import renamed_arguments, warn_renamed
from torch_bgdebias.backgrounds.pool import BackgroundSource, Labelled, Pool
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.lightning import LightningModule, ReadingCallback, Trainer
from torch_bgdebias.names import METRICS
from torch_bgdebias.probe.callback_course import FitCourse
from torch_bgdebias.probe.callback_entry import UNSEEN, EntryWatch, how_images_enter
from torch_bgdebias.probe.callback_loaders import LoaderLimits
from torch_bgdebias.probe.callback_measuring import Measured, Measuring, NotMeasuredError, from_all_ranks
from torch_bgdebias.probe.callback_settings import ProbeSettings, call_module, slash_in_names
from torch_bgdebias.probe.loggers import log_figures
from torch_bgdebias.probe.passes.entry import joined_entries
from torch_bgdebias.probe.passes.settings import EvaluationSettings, MeasuringOptions
from torch_bgdebias.probe.report import BackgroundBiasReport
from torch_bgdebias.probe.results.scalars import scalars_of

__all__ = ["BackgroundBiasProbe"]

_ANOTHER = (
    "pass preprocess= (what the step does to its images) or forward=lambda module, image: ... (the model's output for "
    "an image)"
)
_FEW = 256  # with fewer images than this because of the budget, the first measurement says so


class BackgroundBiasProbe(ReadingCallback):
    """Measures background bias at the end of validation and test epochs of any LightningModule; changes nothing.

    Logged under ``bias/``: ``worst_variant``, the lowest accuracy over original, mixed_same and mixed_rand, by which to
    choose a checkpoint (``ModelCheckpoint(monitor="bias/worst_variant", mode="max")`` with the same
    ``every_n_epochs``); ``worst_class`` and, with ``groups=``, ``worst_group``: the lowest accuracy of any class or
    group on any of the three; ``bg_gap`` with ``bg_gap_low`` and ``bg_gap_high``, its distance from 0 as ``abs_gap``;
    ``acc_<variant>``; ``decision_consistency_<variant>`` and ``feature_consistency_<variant>`` for mixed variants, and
    both without a suffix for mixed_rand; ``<score>`` for each of ``scores``; ``images`` and ``seconds``. Figures go to
    every logger that takes them. The last report, with everything in it, is ``probe.report``.

    Training is the same with and without the probe, bit for bit. Under several processes each evaluates its share of
    the images, none twice, and all log the same numbers. Strategies that shard the parameters (FSDP) are refused.

    Args:
        loader_or_bank: a loader with masks; or backgrounds (a ``BackgroundBank``) to use with the trainer's validation
            loader; ``None``: the trainer's validation (or test) loader, backgrounds from its own images, and mean and
            std of the ``preprocessing`` that the data module has, or the module if the images are not in [0, 1], where
            none are given.
        spec: where image, label and mask are in a batch, after the module's own transfer hooks have been applied.
        every_n_epochs: measure in epochs 0, n, 2n, ... of a fit.
        seed: of the choice of backgrounds.
        log: log, do not, or log under this prefix.
        settings: options of the evaluation in one object.
        metrics: which of accuracy, bg_gap, decision_consistency, feature_consistency to log.
        figures: draw figures (needs matplotlib) for the loggers.
        backgrounds: backgrounds when the first argument is a loader.
        limits: how many images, of which of the trainer's loaders (`LoaderLimits`).
        inference_mode: evaluate under ``torch.inference_mode``; off for modules that keep tensors made in ``forward``.
        **options: fields of ``LoaderLimits`` and of `torch_bgdebias.probe.EvaluationSettings`.

    Example:
        >>> from torch_bgdebias.callbacks import BackgroundBiasProbe
        >>> probe = BackgroundBiasProbe(every_n_epochs=5, spec=BatchSpec(image="image", label="label", mask="mask"))
    """

    log_prefix = "bias"

    @renamed_arguments(prefix="log")
    def __init__(
        self,
        loader_or_bank: Iterable[Any] | BackgroundSource | None = None,
        spec: BatchSpec | None = None,
        *,
        every_n_epochs: int = 1,
        seed: int = 0,
        log: bool | str = True,
        settings: EvaluationSettings | None = None,
        metrics: Sequence[str] = METRICS,
        figures: bool = True,
        backgrounds: BackgroundSource | None = None,
        limits: LoaderLimits | None = None,
        inference_mode: bool = True,
        **options: Unpack[ProbeOptions],
    ) -> None:
        second: object = spec
        if isinstance(second, int):  # what was the second argument once
            warn_renamed("BackgroundBiasProbe(loader, n)", "BackgroundBiasProbe(loader, every_n_epochs=n)")
            spec, every_n_epochs = None, second
        described = {"metrics": metrics, "figures": figures, "every_n_epochs": every_n_epochs, **options}
        super().__init__(
            every_n_epochs=every_n_epochs, seed=seed, log=log, spec=spec, options={**described, "log": log}
        )
        names = {field.name for field in dataclasses.fields(LoaderLimits)}
        arguments: dict[str, Any] = {**options, "spec": spec}
        if settings is None or seed:
            arguments["seed"] = seed
        self.limits = dataclasses.replace(
            LoaderLimits() if limits is None else limits, **{k: v for k, v in arguments.items() if k in names}
        )
        batch_spec = settings.spec if spec is None and settings is not None else spec
        if batch_spec is not None and batch_spec.label is None:  # without labels there is no accuracy and no gap
            start = EvaluationSettings(spec=batch_spec, variants=("mixed_rand",))
            metrics = [m for m in metrics if m not in ("accuracy", "bg_gap")] if metrics is METRICS else metrics
        else:
            start = EvaluationSettings(variants=("mixed_same", "mixed_rand"))
        evaluation_options = {k: v for k, v in arguments.items() if k not in names and v is not None}
        self.choices = ProbeSettings(metrics, figures, inference_mode)
        self.settings = self.choices.evaluation(
            dataclasses.replace(start if settings is None else settings, **evaluation_options)
        )
        self.spec = self.settings.spec
        if not isinstance(loader_or_bank, Tensor | Labelled | Pool):
            loader, bank = loader_or_bank, backgrounds
        elif backgrounds is None:
            loader, bank = None, loader_or_bank
        else:
            raise ValueError("backgrounds: expected None because the first argument is a bank already")
        self._measuring = Measuring(loader, bank, self.limits, inference_mode=inference_mode)
        self._draws = figures
        #: the last report; the same on every process. ``None`` before the first, and where nothing was measured
        self.report: BackgroundBiasReport | None = None
        self._course = FitCourse()
        self._started = math.nan
        self._informed = self._doubted = False
        self._problems: set[str] = set()  # that have been reported
        own_way = self.settings.preprocess is not None or self.settings.forward is not call_module
        self._entry = None
        if not own_way:
            self._entry = EntryWatch(self.settings.spec, task=self.settings.task, logits=self.settings.logits)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the backgrounds of an earlier run."""
        super().setup(trainer, pl_module, stage)
        self._measuring.forget()
        self._course.begin(pl_module, self.report)
        self._informed, self._doubted, self._problems = False, False, set()
        if self._entry is not None:
            self._entry.forget()
        if slashes := slash_in_names(trainer.checkpoint_callbacks, self._prefix):
            rank_zero_warn(slashes)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the first training steps, where the module's own validation step shows nothing."""
        if self._entry is not None:
            self._entry.start_training(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say in a line what became of gap and accuracy, and warn where accuracy was lost for nothing."""
        self._course.close(type(self).__name__, self.report)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching the module, and say so where a fit was never measured."""
        self._stop_watching()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching the module, and give its own methods back."""
        self._stop_watching()
        super().on_exception(trainer, pl_module, exception)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time, to compare the probe's cost with the validation's."""
        self._started = time.perf_counter()
        if self._entry is not None:
            self._entry.begin()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch what the module's own step does."""
        if self._entry is not None and dataloader_idx == self.limits.dataloader_idx and not trainer.sanity_checking:
            self._entry.start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop watching; note the weights."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if self._entry is not None:
            self._entry.stop()

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        start = time.perf_counter()
        self._measuring.check_loader(trainer)
        try:
            measured = self._measuring.run(trainer, pl_module, self._as_entered(pl_module))
        except NotMeasuredError as error:
            return self._without_numbers(pl_module, str(error))
        self.report = measured.report
        self._course.take(self.report, trainer.current_epoch)
        self._say_what_was_seen(measured)
        seconds = time.perf_counter() - start
        if self._draws and self._logs and trainer.is_global_zero and trainer.loggers:
            self._draw(trainer, self.report)
        drawing = time.perf_counter() - start - seconds
        self._inform_of_cost(self.report, seconds, drawing, start - self._started)
        return {**scalars_of(self.report, self.choices.metrics), "seconds": seconds}

    def _as_entered(self, module: LightningModule) -> EvaluationSettings:
        """The settings with what the module's own step does to its images.

        Raises:
            NotMeasuredError: that, or whether the step judges what is measured, could not be seen.
        """
        if self._entry is None:
            return self.settings
        entry = joined_entries([entry for entry in from_all_ranks(self._entry.entry(module)) if entry is not None])
        problem, advice = UNSEEN if entry is None else (entry.problem, entry.advice)
        if entry is None or problem:
            raise NotMeasuredError(
                f"{problem}, so handing it the batch's images may measure another network than the one in training; "
                f"{advice or _ANOTHER}"
            )
        recorded = {**self.settings.recorded, "images_enter": how_images_enter(entry)}
        return dataclasses.replace(self.settings, preprocess=entry.preprocess, recorded=recorded)

    def _without_numbers(self, module: LightningModule, problem: str) -> Mapping[str, float]:
        """No numbers rather than wrong ones."""
        self.report = None
        if problem not in self._problems:
            self._problems.add(problem)
            super()._without_numbers(module, problem)
        return dict.fromkeys(("worst_variant", "bg_gap", "abs_gap"), math.nan)

    def _say_what_was_seen(self, measured: Measured) -> None:
        name = type(self).__name__
        if not self._informed:
            for note in measured.notes():
                rank_zero_info(f"{name}: {note}")
            if changing := measured.changing():  # later measurements may be of fewer images
                rank_zero_warn(f"{name}: {changing}")
        if measured.run.doubt and not self._doubted:
            self._doubted = True
            rank_zero_warn(f"{name}: {measured.run.doubt}")

    def _inform_of_cost(self, report: BackgroundBiasReport, seconds: float, drawing: float, validation: float) -> None:
        if self._informed:
            return
        self._informed = True
        name, passes = type(self).__name__, 1 + len(self.settings.variant_names)
        share = f", together {(seconds + drawing) / validation:.2f} of the validation" if validation > 0 else ""
        took = f"{seconds:.2f} s, logging and figures {drawing:.2f} s"
        cost = f"{len(report.images)} images x {passes} forward passes took {took}{share}"
        rank_zero_info(f"{name}: {cost}; the first measurement also gathers the backgrounds")
        if self._measuring.left_out and len(report.images) < _FEW:
            budget = self.limits.budget
            subset = (
                f"{len(report.images)} of {self._measuring.left_out} validation images, to stay within budget={budget}"
            )
            rank_zero_info(f"{name}: the figures rest on {subset}; budget=None measures them all")

    def _draw(self, trainer: Trainer, report: BackgroundBiasReport) -> None:
        try:
            figures = report.figures
        except ImportError as error:
            self._draws = False
            warnings.warn(f"{type(self).__name__} logs no figures: {error}", stacklevel=2)
            return
        log_figures(trainer.loggers, figures, prefix=self._prefix, step=trainer.global_step)

    def _stop_watching(self) -> None:
        if self._entry is not None:
            self._entry.forget()


class ProbeOptions(MeasuringOptions, total=False):
    """The fields of `LoaderLimits` and of the evaluation's settings as keyword arguments."""

    max_images: int | None
    budget: float | None
    dataloader_idx: int
