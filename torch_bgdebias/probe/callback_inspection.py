"""Inspects one of a module's own steps: is what it judges what forward returns for the batch's images?"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.lightning import StepCall, is_written
from torch_bgdebias.models import LogitsKey, eval_mode, logits_of
from torch_bgdebias.probe.passes.answers import Answers, same_answers
from torch_bgdebias.probe.passes.entry import (
    AS_FORWARD,
    ELSEWHERE,
    FORWARD,
    Calls,
    Entry,
    calls_by_module,
    compare_entries,
    other_networks,
    several_calls,
)
from torch_bgdebias.probe.passes.judged import ROWS, Judgements
from torch_bgdebias.probe.passes.loading import rng_untouched

__all__ = ["Inspector"]


class Inspector:
    """Compares steps with plain calls of their module.

    Args:
        task: as of `torch_bgdebias.probe.EvaluationSettings`.
        logits: where the logits are in what the module's forward returns.
    """

    def __init__(self, *, task: str, logits: LogitsKey) -> None:
        self.task, self._logits = task, logits

    def run(self, call: StepCall, image: Tensor, label: Tensor | None) -> tuple[Any, Judgements, Entry | None]:
        """Run a step: what it returned, what it judged, and how that compares; ``None`` for an empty batch.

        Args:
            call: of the step.
            image: (B, C, H, W) of its batch, which the step does not change.
            label: (B,) classes or (B, L) sets of its batch, where they are of a kind that can be compared.
        """
        with ExitStack() as stack:
            step = stack.enter_context(calls_by_module(call.module))
            sets = self.task == "multilabel"
            judgements = stack.enter_context(Judgements(len(image), lambda: not step.running, sets=sets))
            step.answered = judgements.answered
            output = call.run()
            judgements.returned(output)
        if not len(image):
            return output, judgements, None
        with rng_untouched(), call.module.trainer.precision_plugin.forward_context():
            entry = self._compared(call.module, step, judgements.answers, image)
            judges_nothing = not judgements.answers.of("output") and (label is None or not judgements.met(label))
        if judges_nothing and entry.compared and not entry.problem and (hook := _judges_at_the_end(call.module)):
            problem = f"its own step judges nothing, and what its {hook} does is not seen"
            entry = entry.with_problem(problem, AS_FORWARD)
        return output, judgements, entry

    def run_training(self, call: StepCall, image: Tensor) -> tuple[Any, Entry | None]:
        """As `run`; only how images enter: what a training step judges may differ by dropout and by what is drawn."""
        with calls_by_module(call.module) as step:
            output = call.run()
        if not len(image):
            return output, None
        with rng_untouched(), call.module.trainer.precision_plugin.forward_context():
            entry = _called_plainly(call.module, step, image[:ROWS])[0]
        return output, dataclasses.replace(entry, training=True)

    def logits(self, module: Any, images: Tensor, entry: Entry) -> Tensor | None:
        """The logits (B,) or (B, K) of images as steps change them; ``None`` where forward fails or has none."""
        try:
            with rng_untouched(), module.trainer.precision_plugin.forward_context():
                logits = self._forward(module, images, entry)
        except Exception:  # whatever somebody's forward raises at other arguments than it takes
            return None
        return logits if logits.ndim in (1, 2) else None

    def _compared(self, module: nn.Module, step: Calls, judged: Answers, image: Tensor) -> Entry:
        entry, plain, output = _called_plainly(module, step, image[:ROWS])
        if entry.failed:
            return entry
        if problem := several_calls(step, plain, len(image)):
            return entry.with_problem(problem, FORWARD)
        logits = None if entry.problem else self._logits_in(output)
        if logits is None:
            return entry
        return self._with_judged(module, step, plain, judged, logits, image, entry)

    def _with_judged(
        self, module: nn.Module, step: Calls, plain: Calls, judged: Answers, logits: Tensor, image: Tensor, entry: Entry
    ) -> Entry:
        """The entry with whether the step judges what forward returns."""
        candidates, others = judged.candidates, other_networks(step, plain, logits.shape[-1])
        same, logits_in_step, whole = self._same(module, judged, logits, image, entry)
        entry = dataclasses.replace(entry, whole=whole)
        alike = [other for other in others.values() if same_answers(other, logits, task=self.task)]
        if others and (alike or not candidates or not all(same)):
            networks = f"its own step also runs {' and '.join(others)} on the images, which its forward does not"
            entry = entry.with_problem(networks, FORWARD)
        elif any(same):
            entry = dataclasses.replace(entry, compared=True)  # also where nobody saw the images enter
        elif candidates:
            problem = f"its own step judges {_shape_text(candidates)} that its forward does not return"
            entry = entry.with_problem(problem, FORWARD)
        if not entry.problem and judged.cut_elsewhere(logits_in_step, task=self.task):
            return entry.with_problem(*ELSEWHERE)
        return entry

    def _same(
        self, module: nn.Module, judged: Answers, logits: Tensor, image: Tensor, entry: Entry
    ) -> tuple[list[bool], Tensor, bool]:
        """Which candidates are what forward returns for the images as the step changes them, and what it returns.

        And whether it is so only where forward is given the whole batch.
        """
        plain = logits if entry.preprocess is None else self._forward(module, image[:ROWS], entry)
        same = judged.same(plain, task=self.task)
        if not same:
            return same, plain, False
        if any(same) or len(image) <= ROWS:
            fewer = self._forward(module, image[: max(1, len(plain) // 2)], entry)
            return same, plain, not same_answers(fewer, plain, task=self.task)
        plain = self._forward(module, image, entry)
        same = judged.same(plain, task=self.task)
        return same, plain, any(same)

    def _forward(self, module: nn.Module, images: Tensor, entry: Entry) -> Tensor:
        with eval_mode(module), torch.no_grad():
            images = images if entry.preprocess is None else entry.preprocess(images)
            return logits_of(module(images), self._logits)

    def _logits_in(self, output: Any) -> Tensor | None:
        try:
            logits = logits_of(output, self._logits)
        except (LookupError, TypeError):  # the measurement itself will say what is wrong
            return None
        return logits if logits.ndim in (1, 2) else None


def _called_plainly(module: nn.Module, step: Calls, image: Tensor) -> tuple[Entry, Calls, Any]:
    """How images enter in a step and in a plain call of the module, and what the latter did and returned."""
    try:
        with eval_mode(module), torch.no_grad(), calls_by_module(module) as plain:
            output = module(image)
    except Exception:  # as above
        return Entry(compared=False, failed=True), Calls(), None
    return compare_entries(step, plain, image), plain, output


def _judges_at_the_end(module: Any) -> str:
    """The name of a hook in which answers may be judged when all are there; empty where nobody wrote one."""
    name = f"on_{'test' if module.trainer.testing else 'validation'}_epoch_end"
    return name if is_written(module, name) else ""


def _shape_text(outputs: list[Tensor]) -> str:
    widths = sorted({1 if output.ndim == 1 else output.shape[1] for output in outputs})
    return f"answers ({' or '.join(map(str, widths))} numbers an image)"
