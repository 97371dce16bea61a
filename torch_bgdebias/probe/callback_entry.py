"""Observes how images enter a module in its own validation steps, and whether those use its forward's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.lightning import LightningModule, StepCall, Trainer, is_written
from torch_bgdebias.lightning.step import wrap_method
from torch_bgdebias.models import LogitsKey, eval_mode, logits_of
from torch_bgdebias.probe.passes.answers import Answers, same_answers
from torch_bgdebias.probe.passes.entry import (
    Calls,
    Entry,
    calls_by_module,
    compare_entries,
    joined_entries,
    other_networks,
    picture_in,
    several_calls,
)
from torch_bgdebias.probe.passes.judged import ROWS, Judgements
from torch_bgdebias.probe.passes.label_agreement import Agreements
from torch_bgdebias.probe.passes.later import LaterSteps
from torch_bgdebias.probe.passes.loading import rng_untouched

__all__ = ["UNSEEN", "EntryWatch", "how_images_enter"]

_AS_FORWARD = "pass forward=lambda module, image: module(image) if forward is what the step judges, else what is"
#: a problem and what to do about it
UNSEEN = (
    "how images enter the module in its own step could not be seen (a step that runs no module or takes no batch, "
    "batches without pictures, or parts that are given none)",
    _AS_FORWARD,
)
_FORWARD = (
    "pass forward=lambda module, image: ... (what the step judges, for these images), or logits= where that stands "
    "elsewhere in the output"
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
_ELSEWHERE = (
    "its own step says yes from another threshold on than a probability of a half",
    "pass forward=lambda module, image: ... (module(image) without a sigmoid, minus the threshold's log odds)",
)

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
        self.spec, self._task, self._logits = spec, task, logits
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
            return in_training if shown_in_training else _with_problem(entry, UNSEEN)
        if not entry.problem and self._later is not None:
            entry = self._with_later(module, entry, self._later)
        if not entry.problem and (problem := self._problem_of_labels()):
            entry = _with_problem(entry, problem)
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
            return _with_problem(entry, (problem, ""))
        if later.judges_otherwise():
            return _with_problem(entry, (_OTHER_ANSWERS, _FORWARD))
        return _with_problem(entry, _ELSEWHERE) if later.cuts_elsewhere() else entry

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
        """Only how images enter: what a step in training judges may differ by dropout and by what is drawn."""
        try:
            image = self.spec.image_of(call.batch).detach().clone()
        except (KeyError, TypeError):
            self.stop_training()
            return call.run()
        with _steps_uncompiled(call.module), calls_by_module(call.module) as step:
            output = call.run()
        if len(image):
            with (
                _steps_uncompiled(call.module),
                rng_untouched(),
                call.module.trainer.precision_plugin.forward_context(),
            ):
                entry = self._called_plainly(call.module, step, image[:ROWS])[0]
            self._in_training.append(dataclasses.replace(entry, training=True))
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
            return self._look(call, image.detach().clone(), label)  # steps may work in place
        if self._later is None:
            entry = joined_entries(self._entries)
            assert entry is not None
            self._later = LaterSteps(entry, self._answers, task=self._task)
        with self._later.watching(call.module, image) as judgements:
            output = call.run()
            judgements.returned(output)
        self._compare_labels(judgements, label)
        return output

    def _compare_labels(self, judgements: Judgements, label: Tensor | None) -> None:
        if label is not None and len(label):
            self._labels.add(
                judgements.agree(label), predicted=bool(judgements.answers.outputs or judgements.answers.cuts)
            )

    def _look(self, call: StepCall, image: Tensor, label: Tensor | None) -> Any:
        with ExitStack() as stack:
            step = stack.enter_context(calls_by_module(call.module))
            sets = self._task == "multilabel"
            judgements = stack.enter_context(Judgements(len(image), lambda: not step.running, sets=sets))
            step.answered = judgements.answered
            output = call.run()
            judgements.returned(output)
        if not len(image):
            return output
        with rng_untouched(), call.module.trainer.precision_plugin.forward_context():
            self._entries.append(self._compared(call.module, step, judgements.answers, image))
        self._compare_labels(judgements, label)
        return output

    def _label_of(self, batch: Any) -> Tensor | None:
        """Labels (B,) of one class an image, 0 and 1 where there are two, or sets of labels (B, L) of 0 and 1."""
        if self.spec.label is None:
            return None
        try:
            label = self.spec.label_of(batch).detach()
        except (KeyError, TypeError):
            return None
        if self._task == "binary":
            return (label.reshape(-1) > 0.5).long() if label.numel() == len(label) else None
        if label.ndim == 2 and label.shape[1] > 1:
            return (label > 0.5).long() if self._task == "multilabel" else label.argmax(1)
        are_classes = label.ndim == 1 and not label.is_floating_point() and self._task == "multiclass"
        return label.clone() if are_classes else None

    def _compared(self, module: nn.Module, step: Calls, judged: Answers, image: Tensor) -> Entry:
        entry, plain, output = self._called_plainly(module, step, image[:ROWS])
        if entry.failed:
            return entry
        if problem := several_calls(step, plain, len(image)):
            return _with_problem(entry, (problem, _FORWARD))
        logits = None if entry.problem else self._logits_in(output)
        if logits is None:
            return entry
        return self._judged(module, step, plain, judged, logits, image, entry)

    def _called_plainly(self, module: nn.Module, step: Calls, image: Tensor) -> tuple[Entry, Calls, Any]:
        """How images enter in a step and in a plain call of the module, and what the latter did and returned."""
        try:
            with eval_mode(module), torch.no_grad(), calls_by_module(module) as plain:
                output = module(image)
        except Exception:  # whatever somebody's forward raises at other arguments than it takes
            return Entry(compared=False, failed=True), Calls(), None
        return compare_entries(step, plain, image), plain, output

    def _judged(
        self, module: nn.Module, step: Calls, plain: Calls, judged: Answers, logits: Tensor, image: Tensor, entry: Entry
    ) -> Entry:
        """Whether the step judges what forward returns."""
        others = other_networks(step, plain, logits.shape[-1])
        also = (f"its own step also runs {' and '.join(others)} on the images, which its forward does not", _FORWARD)
        candidates = judged.candidates
        same, answers, whole = self._same(module, judged, logits, image, entry)
        entry = dataclasses.replace(entry, whole=whole)
        if not candidates:
            entry = _with_problem(entry, also) if others else entry
        elif others and (not all(same) or any(same_answers(x, logits, task=self._task) for x in others.values())):
            entry = _with_problem(entry, also)
        elif any(same):
            entry = dataclasses.replace(entry, compared=True)  # also where nobody saw the images enter
        else:
            problem = f"its own step judges {_shape_text(candidates)} that its forward does not return"
            entry = _with_problem(entry, (problem, _FORWARD))
        if not judged.outputs and entry.compared and not entry.problem and (name := _judges_at_the_end(module)):
            return _with_problem(
                entry, (f"its own step judges nothing, and what its {name} does is not seen", _AS_FORWARD)
            )
        if not entry.problem and judged.cut_elsewhere(answers, task=self._task):
            return _with_problem(entry, _ELSEWHERE)
        return entry

    def _logits_in(self, output: Any) -> Tensor | None:
        try:
            logits = logits_of(output, self._logits)
        except (LookupError, TypeError):  # the measurement itself will say what is wrong
            return None
        return logits if logits.ndim in (1, 2) else None

    def _same(
        self, module: nn.Module, judged: Answers, logits: Tensor, image: Tensor, entry: Entry
    ) -> tuple[list[bool], Tensor, bool]:
        """Which candidates are what forward returns for the images as the step changes them, and what it returns.

        And whether it is so only where forward is given the whole batch.
        """
        plain = logits if entry.preprocess is None else self._forward(module, image[:ROWS], entry)
        same = judged.same(plain, task=self._task)
        if not same:
            return same, plain, False
        if any(same) or len(image) <= ROWS:
            fewer = self._forward(module, image[: max(1, len(plain) // 2)], entry)
            return same, plain, not same_answers(fewer, plain, task=self._task)
        plain = self._forward(module, image, entry)
        same = judged.same(plain, task=self._task)
        return same, plain, any(same)

    def _forward(self, module: nn.Module, images: Tensor, entry: Entry) -> Tensor:
        with eval_mode(module), torch.no_grad():
            images = images if entry.preprocess is None else entry.preprocess(images)
            return logits_of(module(images), self._logits)

    def _answers(self, module: Any, images: Tensor) -> Tensor | None:
        """What forward returns for images of several batches."""
        entry = joined_entries(self._entries)
        assert entry is not None, "later steps come after the first ones"
        try:
            with rng_untouched(), module.trainer.precision_plugin.forward_context():
                logits = self._forward(module, images, entry)
        except Exception:  # as above
            return None
        return logits if logits.ndim in (1, 2) else None


def _steps_uncompiled(module: Any) -> AbstractContextManager[Any]:
    """Runs steps, and modules that were compiled in place, as they are written: they hear of no hooks when compiled.

    A module that ``torch.compile`` has wrapped is left as it is, for its wrapper hears of them.
    """
    compiled = getattr(module, "_compiler_ctx", None) is not None
    compiled = compiled or any(submodule._compiled_call_impl is not None for submodule in module.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _with_problem(entry: Entry, problem: tuple[str, str]) -> Entry:
    return dataclasses.replace(entry, compared=True, problem=problem[0], advice=problem[1])


def _runs_nothing(module: Any) -> bool:
    """Whether the module's validation step names no attribute of the module's own: ``pass``, a constant that is logged.

    One that calls the module itself names none either; that is seen when it does.
    """
    code = getattr(getattr(module.validation_step, "__func__", None), "__code__", None)
    kind = type(module)
    framework = next(base for base in kind.__mro__ if base.__name__ == "LightningModule")
    own_names = {*vars(module), *module._modules, *dir(kind)} - {*dir(framework)}  # without asking any property
    return code is not None and own_names.isdisjoint(code.co_names)


def _judges_at_the_end(module: Any) -> str:
    """The name of a hook in which answers may be judged when all are there; empty where nobody wrote one."""
    name = f"on_{'test' if module.trainer.testing else 'validation'}_epoch_end"
    return name if is_written(module, name) else ""


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


def _shape_text(outputs: list[Tensor]) -> str:
    widths = sorted({1 if output.ndim == 1 else output.shape[1] for output in outputs})
    return f"answers ({' or '.join(map(str, widths))} numbers an image)"
