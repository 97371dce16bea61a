"""Watches a module's own validation steps of a run: what may be measured in their place, and what may not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.lightning import LightningModule, StepCall, Trainer
from torch_bgdebias.lightning.step import wrap_method
from torch_bgdebias.models import LogitsKey
from torch_bgdebias.probe.callback_inspection import Inspector
from torch_bgdebias.probe.passes.entry import AS_FORWARD, ELSEWHERE, FORWARD, Entry, joined_entries, picture_in
from torch_bgdebias.probe.passes.judged import Judgements
from torch_bgdebias.probe.passes.label_agreement import Agreements
from torch_bgdebias.probe.passes.later import LaterSteps

__all__ = ["UNSEEN", "EntryWatch", "how_images_enter"]

#: a problem and what to do about it
UNSEEN = (
    "how images enter the module in its own step could not be seen (a step that runs no module or takes no batch, "
    "batches without pictures, or parts that are given none)",
    AS_FORWARD,
)
_LABELS = "let BatchSpec(label=lambda batch: ...) make of a batch the labels that the step takes"
_OTHER_LABELS = ("its own step judges by other labels than those of the batch", _LABELS)
_CHANGED_LABELS = (
    "its own step makes other labels of those of the batch, and what it judges by them is not seen (numpy, lists?)",
    f"{_LABELS}, and pass forward=lambda module, image: module(image)",
)
_UNSEEN_LABELS = (
    "BackgroundBiasProbe: the labels that it is judged by leave the step's tensors (numpy, lists, a later hook?), so "
    "those of the batch are taken without a comparison; where others are meant, let BatchSpec(label=lambda batch: ...) "
    "make them"
)
_OTHER_ANSWERS = "some of its own steps judge answers that its forward does not return"

#: steps that are inspected in every respect; in those after them, all but which modules run
_BATCHES = 8
#: training steps that are inspected where the validation step cannot run anything: two, since what is drawn differs
_TRAINING_BATCHES = 2


class EntryWatch:
    """Compares the validation steps of a run with handing the batch's images to the module.

    The first steps are compared in every respect: which modules run and how often, what images they get, what is
    judged, by which labels and thresholds. In all others it is seen whether the network still runs as often, on images
    changed in the same way, and whether some rows of what is judged, and all labels, are forward's and the batch's,
    without waiting for the device.

    Args:
        spec: where images and labels are in a batch.
        task: as of `torch_bgdebias.probe.EvaluationSettings`.
        logits: where the logits are in what the module's forward returns.
    """

    def __init__(self, spec: BatchSpec, *, task: str = "multiclass", logits: LogitsKey = None) -> None:
        self.spec, self._inspector = spec, Inspector(task=task, logits=logits)
        self._entries: list[Entry] = []
        self._in_training: list[Entry] = []
        self._later: LaterSteps | None = None
        self._labels, self._warned = Agreements(), False
        self._restore: Callable[[], None] | None = None
        self._leave_training: Callable[[], None] | None = None

    def forget(self) -> None:
        """Begin anew, and leave the module's own steps as they were."""
        self.stop()
        self.stop_training()
        self._entries, self._in_training, self._later, self._labels = [], [], None, Agreements()

    def begin(self) -> None:
        """A validation starts, with weights that may be others."""
        if self._later is not None:
            self._later.forget_waiting()

    def entry(self, module: LightningModule) -> Entry | None:
        """What came of it so far; ``None`` before the first step. Waits for the device."""
        entry = joined_entries(self._entries)
        if entry is None or entry.failed:
            return entry
        if not entry.compared:
            in_training = joined_entries(self._in_training)
            shown_in_training = in_training is not None and in_training.compared and not in_training.problem
            return in_training if shown_in_training else entry.with_problem(*UNSEEN)
        if not entry.problem and self._later is not None:
            entry = self._with_later(module, entry, self._later)
        if not entry.problem and (problem := self._problem_of_labels()):
            entry = entry.with_problem(*problem)
        if not entry.problem and self._labels.unseen == "elsewhere":
            self._warn_of_labels()
        return dataclasses.replace(entry, labels=self._labels.unseen)

    def _warn_of_labels(self) -> None:
        if not self._warned:
            self._warned = True
            rank_zero_warn(_UNSEEN_LABELS)

    def _with_later(self, module: LightningModule, entry: Entry, later: LaterSteps) -> Entry:
        with _steps_uncompiled(module):
            later.finish(module)
        entry = dataclasses.replace(entry, batches=entry.batches + later.steps, partly=later.unanswered)
        if problem := later.problem():
            return entry.with_problem(problem)
        if later.judges_otherwise():
            return entry.with_problem(_OTHER_ANSWERS, FORWARD)
        return entry.with_problem(*ELSEWHERE) if later.cuts_elsewhere() else entry

    def _problem_of_labels(self) -> tuple[str, str] | None:
        if self._labels.other:
            return _OTHER_LABELS
        return _CHANGED_LABELS if self._labels.changed else None

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Before a step: go around it."""
        name = "test_step" if trainer.testing else "validation_step"
        self._restore = wrap_method(module, name, self, self._around, trainer=trainer)

    def stop(self) -> None:
        """After it."""
        if self._restore is not None:
            self._restore()
            self._restore = None

    def start_training(self, trainer: Trainer, module: LightningModule) -> None:
        """Before a fit: look at its first training steps, where the validation step can tell nothing."""
        if not self._in_training and _runs_nothing(module):
            self._leave_training = wrap_method(
                module, "training_step", self, self._around_training, trainer=trainer, innermost=True
            )

    def stop_training(self) -> None:
        """Enough of them were seen."""
        if self._leave_training is not None:
            self._leave_training()
            self._leave_training = None

    def _around_training(self, call: StepCall) -> Any:
        try:
            image = self.spec.image_of(call.batch).detach().clone()
        except (KeyError, TypeError):
            self.stop_training()
            return call.run()
        with _steps_uncompiled(call.module):
            output, entry = self._inspector.run_training(call, image)
        if entry is not None:
            self._in_training.append(entry)
        if len(self._in_training) >= _TRAINING_BATCHES:
            self.stop_training()
        return output

    def _around(self, call: StepCall) -> Any:
        with _steps_uncompiled(call.module):
            return self._watched(call)

    def _watched(self, call: StepCall) -> Any:
        label = None
        try:
            image, label = self.spec.image_of(call.batch), self._label_of(call.batch)
        except (KeyError, TypeError):  # a validation batch of another layout than the probe's own loader
            picture = picture_in(tree_leaves(call.batch), {})
            if picture is None:
                if len(self._entries) < _BATCHES:
                    self._entries.append(Entry(compared=False))
                return call.run()
            image = picture
        if len(self._entries) < _BATCHES:
            image = image.detach().clone()  # steps may work in place
            output, judgements, entry = self._inspector.run(call, image, label)
            if entry is not None:
                self._entries.append(entry)
        else:
            output, judgements = self._run_later(call, image)
        if label is not None and len(label):
            self._labels.add(judgements.agree(label), predicted=judgements.answers.predict)
        return output

    def _run_later(self, call: StepCall, image: Tensor) -> tuple[Any, Judgements]:
        if self._later is None:
            entry = joined_entries(self._entries)
            assert entry is not None, "later steps come after the first ones"
            self._later = LaterSteps(
                entry, functools.partial(self._inspector.logits, entry=entry), task=self._inspector.task
            )
        with self._later.watching(call.module, image) as judgements:
            output = call.run()
            judgements.returned(output)
        return output, judgements

    def _label_of(self, batch: Any) -> Tensor | None:
        """Labels (B,) of one class an image, 0 and 1 where there are two, or sets of labels (B, L) of 0 and 1."""
        if self.spec.label is None:
            return None
        try:
            label = self.spec.label_of(batch).detach()
        except (KeyError, TypeError):
            return None
        if self._inspector.task == "binary":
            return (label.reshape(-1) > 0.5).long() if label.numel() == len(label) else None
        if label.ndim == 2 and label.shape[1] > 1:
            return (label > 0.5).long() if self._inspector.task == "multilabel" else label.argmax(1)
        are_classes = label.ndim == 1 and not label.is_floating_point() and self._inspector.task == "multiclass"
        return label.clone() if are_classes else None


def _steps_uncompiled(module: Any) -> AbstractContextManager[Any]:
    """Runs steps, and modules that were compiled in place, as they are written: they hear of no hooks when compiled.

    A module that ``torch.compile`` has wrapped is left as it is, for its wrapper hears of them.
    """
    compiled = getattr(module, "_compiler_ctx", None) is not None
    compiled = compiled or any(submodule._compiled_call_impl is not None for submodule in module.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _runs_nothing(module: Any) -> bool:
    """Whether the module's validation step names no attribute of the module's own: ``pass``, a constant that is logged.

    One that calls the module itself names none either; that is seen when it does.
    """
    code = getattr(getattr(module.validation_step, "__func__", None), "__code__", None)
    kind = type(module)
    framework = next(base for base in kind.__mro__ if base.__name__ == "LightningModule")
    own_names = {*vars(module), *module._modules, *dir(kind)} - {*dir(framework)}  # without asking any property
    return code is not None and own_names.isdisjoint(code.co_names)


def how_images_enter(entry: Entry | None) -> str:
    """What a report says of it."""
    if entry is None or not entry.compared:
        return "not compared with the module's own step"
    if entry.training:
        return (
            f"as in the module's own training step, in the first {entry.batches} batch(es); its validation step runs "
            "nothing"
        )
    text = f"as in the module's own step, in the {entry.batches} batch(es) that were looked at"
    unseen = [
        "; what it judges was compared in some of them only" * entry.partly,
        "; by which labels was not seen, those of the batch are taken" * bool(entry.labels),
    ]
    return text + "".join(unseen)
