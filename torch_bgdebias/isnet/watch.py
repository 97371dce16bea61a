"""``Watch``: records one forward pass of a borrowed model, so that it can be explained afterwards."""

from __future__ import annotations

import functools
import threading
import warnings
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from torch_bgdebias.calls import around_calls
from torch_bgdebias.checks import check_finite, check_image
from torch_bgdebias.isnet.calls import given_image, place_of_image
from torch_bgdebias.isnet.record import Explanation, Record, WithImage
from torch_bgdebias.isnet.rules import PixelBox, Rules
from torch_bgdebias.isnet.targets import Target
from torch_bgdebias.lrp.blame import (
    LayerError,
    Rerun,
    check_batch_norm,
    check_reached,
    check_trainable,
    check_visible,
    refusal,
    where_infinite,
)
from torch_bgdebias.lrp.engine import FlexPass, running_pass
from torch_bgdebias.models import check_one_device, get_layer, is_compiled, logits_of, original_module, run_eagerly
from torch_bgdebias.precision import autocast_off
from torch_bgdebias.sharded import check_not_flattened, parameters_whole

__all__ = ["Watch"]


class _Exclusive(threading.local):
    """The watches of this thread that want to be alone while their own forward pass runs, innermost last."""

    def __init__(self) -> None:
        self.watches: list[Watch] = []


_exclusive = _Exclusive()


class Watch:
    """Records the model's forward passes while it is open, each at the cost of an explained forward pass.

    Made by `ISNet.watching`. Hooks are on the user's module only while the block is open, and do nothing in other
    threads.

    Args:
        model: whose forward passes are recorded.
        rules: by which they will be explained.
        box: where the pixels lie.
        ends: the parts of the model between whose calls a forward pass lies, the one that takes the image and the one
            that returns the logits; ``None``: the model itself.
        exclusive: what runs meanwhile is this watch's own affair: no other one records it.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Rules,
        box: PixelBox,
        *,
        ends: tuple[nn.Module, nn.Module] | None = None,
        exclusive: bool = False,
    ) -> None:
        self._model, self._rules, self._box = model, rules, box
        self._records: list[Record] = []
        self._stack = ExitStack()
        self._module = original_module(model)
        self._first, self._last = (original_module(end) for end in ends or (model, model))
        self._exclusive = exclusive
        self._thread = 0

    def __enter__(self) -> Watch:
        self._thread = threading.get_ident()
        with ExitStack() as stack:
            self._prepare(stack)
            self._stack = stack.pop_all()  # only if all went well
        return self

    def _prepare(self, stack: ExitStack) -> None:
        if is_compiled(self._model):
            warnings.warn(
                f"{type(self._module).__name__} is compiled, which cannot be differentiated twice: "
                "the original module runs while it is explained",
                stacklevel=4,
            )
            stack.enter_context(run_eagerly())
        module = self._module
        check_not_flattened(module, what="ISNet")
        check_one_device(module, what="ISNet")
        if self._rules.attribution == "lrp":
            check_visible(module)
        if self._first is self._last:
            stack.enter_context(around_calls(self._first, self._before, self._after))
        else:
            stack.enter_context(around_calls(self._first, self._before, lambda _: None))
            stack.enter_context(around_calls(self._last, lambda *_: None, self._after))
        for name in self._rules.layers:
            handle = get_layer(module, name).register_forward_hook(_Catch(self, name))
            stack.callback(handle.remove)
        if self._exclusive:
            _exclusive.watches.append(self)
            stack.callback(_exclusive.watches.remove, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for record in self._records:  # a forward pass that broke off
            record.leave()
        self._records = [] if error is not None else [r for r in self._records if r.finished]

    def __len__(self) -> int:
        """How many forward passes have been recorded and not yet explained."""
        return len(self._records)

    @property
    def _is_live(self) -> bool:
        if threading.get_ident() != self._thread:
            return False
        return not _exclusive.watches or _exclusive.watches[-1] is self

    @property
    def current(self) -> Record | None:
        """The record of the forward pass that is running in this thread."""
        if not self._is_live or not self._records or self._records[-1].finished:
            return None
        return self._records[-1]

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self._is_live:
            return None
        if self.current is not None:
            self.current.depth += self._first is self._last
            return None
        if not torch.is_grad_enabled():
            return None
        argument = place_of_image(args, kwargs)
        image = given_image(args, kwargs, argument, self._module)
        check_image(image, volumes=True)
        check_batch_norm(self._module)
        if image.is_inference():
            raise ValueError("image: made in inference mode; explain(image) copes with that, watching() cannot")
        if argument is None:
            return (self._record(image, lambda other: ((other, *args[1:]), kwargs)), *args[1:]), kwargs
        return args, {**kwargs, argument: self._record(image, lambda other: (args, {**kwargs, argument: other}))}

    def _record(self, image: Tensor, with_image: WithImage) -> Tensor:
        """Begin a record; returns what the model is to get, which it may change in place."""
        running = running_pass()
        if running is not None and image.requires_grad and self._join_running(running, image):
            # it already is a place of that pass's graph
            private = running.private and image is running.image
            edge = get_gradient_edge(image)
            self._records.append(Record(image.clone(), edge, private, running, with_image, opened=False))
            return image
        private = not image.requires_grad
        value = image.detach().clone().requires_grad_() if private else image.clone()
        model_input = value.clone() if private else image.clone()
        flex = self._new_pass(model_input, private)
        if running is not None and self._join_running(running, model_input):
            flex = running
        source = value if private else get_gradient_edge(image)
        self._records.append(Record(value, source, private, flex, with_image, opened=flex is not running))
        if flex is not running:
            flex.open()
        return model_input

    def _new_pass(self, image: Tensor, private: bool) -> FlexPass:
        if self._rules.boxed:
            self._box.check(image)
        return self._rules.new_pass(image, private)

    def _join_running(self, running: FlexPass, image: Tensor) -> bool:
        """Use the pass that is running, in which the module is called, instead of one of its own."""
        if running.agrees_with(self._new_pass(image, running.private)):
            running.users += 1
            return True
        if self._exclusive:  # an explanation of its own, of which the running pass is to take no notice
            return False
        raise RuntimeError(
            f"{type(self._module).__name__} is called in a forward pass that is explained already, by other rules; "
            "explanations of one forward pass have to agree in epsilon, batch_norm, input_rule, attribution and "
            "whether the variant is 'dual'"
        )

    def _after(self, output: Any) -> None:
        record = self.current
        if record is None:
            return
        if record.depth > 0:
            record.depth -= 1
            return
        record.leave()
        record.output = output
        record.finished = output is not None
        if not record.finished:  # it broke off
            self._records.remove(record)

    def entered(self, index: int = -1) -> Tensor:
        """The images (B, C, H, W) of a recorded pass as they were when the model was called with them."""
        return self._records[index].value

    def logits(self, index: int = -1) -> Tensor:
        """The logits (B, K) of a recorded pass."""
        return logits_of(self._records[index].output, self._rules.logits)

    def explain(
        self,
        target: Target = None,
        create_graph: bool | None = None,
        *,
        index: int = -1,
        generator: torch.Generator | None = None,
    ) -> Explanation:
        """Explain a recorded forward pass and forget it. See `ISNet.explain` for the arguments.

        Args:
            target: overrides the variant's choice.
            create_graph: whether the relevance can be trained through; ``None`` says yes where gradients are enabled.
            index: which of the recorded passes; the last one by default.
            generator: for the stochastic choice.
        """
        if not self._records:
            raise RuntimeError(
                f"no forward pass of {type(self._module).__name__} with gradients enabled was seen while watching"
            )
        record = self._records.pop(index)
        create_graph = torch.is_grad_enabled() if create_graph is None else create_graph
        rerun = self._rerun(record, target)
        with parameters_whole(self._module), torch.enable_grad():
            try:
                with autocast_off(record.value):
                    explanation = self._explain(record, target, create_graph, generator)
            except LayerError as error:
                raise refusal(self._module, error, rerun, create_graph=create_graph) from error
            if create_graph:
                for relevance in (explanation.relevance, *list(explanation.hidden.values())[:1]):
                    if relevance.numel():
                        check_trainable(self._module, relevance, rerun)
                        break
            self._check_finite(record, explanation, target)
        return explanation

    def _explain(
        self, record: Record, target: Target, create_graph: bool, generator: torch.Generator | None
    ) -> Explanation:
        rules = self._rules
        missing = [name for name in rules.layers if name not in record.hidden]
        if missing:
            raise ValueError(f"deep_supervision: layers {missing} did not run in the forward pass that is explained")
        if rules.boxed and not record.flex.input_layers:
            self._box.does_not_hold(type(self._module).__name__, strict=rules.input_rule == "zbox")
        logits = logits_of(record.output, rules.logits)
        scalars = rules.scalars(logits, target, generator)
        if rules.attribution == "lrp":
            start = get_gradient_edge(record.place) if isinstance(record.place, Tensor) else record.place
            check_reached(self._module, logits, start, self._rerun(record, target))
        jobs = rules.jobs(scalars, target)
        retain = create_graph or record.flex.users > 1
        maps = []
        for i, (scalar, rule) in enumerate(jobs, 1):
            options = {"create_graph": create_graph, "retain_graph": retain or i < len(jobs)}
            maps.append(record.heatmap(scalar.sum(), logits, rule, self._box, at_input=rules.at_input, **options))
        heatmap = torch.stack([relevance for relevance, _ in maps], 1)
        hidden = {name: torch.stack([h[name] for _, h in maps], 1) for name in record.hidden}
        return Explanation(logits if create_graph else logits.detach(), heatmap, hidden)

    def _check_finite(self, record: Record, explanation: Explanation, target: Target) -> None:
        """Require finite relevance, where looking is free.

        Raises:
            ValueError: it is not; the message says in which samples, and in which layer that begins.
        """
        maps = {"relevance": explanation.relevance}
        maps |= {f"relevance at {name}": hidden for name, hidden in explanation.hidden.items()}
        for name, relevance in maps.items():
            try:
                check_finite(relevance.flatten(1), name=name)
            except ValueError as error:
                bad = ~torch.isfinite(relevance.detach()).flatten(2).all(2).all(0)
                rerun = self._rerun(record, target, int(bad.nonzero()[0]))
                origin = where_infinite(self._module, record.value.detach(), rerun)
                raise ValueError(f"{error}; {origin}") from error

    def _rerun(self, record: Record, target: Target, index: int = 0) -> Rerun | None:
        """A function that runs a recorded pass again, which takes a model that can be called by itself."""
        return functools.partial(self._rerun_pass, record, target, index) if self._first is self._last else None

    def _rerun_pass(
        self, record: Record, target: Target, index: int = 0
    ) -> tuple[Tensor, AbstractContextManager[None]]:
        """The recorded forward pass again, for a closer look: the scalar of one heatmap, and its relevance pass."""
        args, kwargs = record.rest(record.value)
        with warnings.catch_warnings(), Watch(self._model, self._rules, self._box, exclusive=True) as watch:
            warnings.simplefilter("ignore")  # the first pass has warned
            self._module(*args, **kwargs)
        again = watch._records.pop()
        logits = logits_of(again.output, self._rules.logits)
        if target is None and self._rules.variant == "stochastic":  # drawn at random: any logit's relevance will do
            target = torch.ones_like(logits.detach())
        scalar, rule = self._rules.jobs(self._rules.scalars(logits, target, None), target)[index]
        return scalar.sum(), again.flex.relevance(rule, logits)


class _Catch:
    """Forward hook that notes a layer's output, and leaves it to the model as it is."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch = watch
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        record = self._watch.current
        if record is not None:
            record.catch(self._name, module, output)
