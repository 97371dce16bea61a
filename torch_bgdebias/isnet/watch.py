"""One forward pass of a borrowed model, recorded so that it can be explained afterwards."""

from __future__ import annotations

import dataclasses
import functools
import warnings
import weakref
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_finite, check_image
from torch_bgdebias.isnet.targets import Target, explained
from torch_bgdebias.lrp.blame import (
    LayerError,
    check_batch_norm,
    check_trainable,
    check_visible,
    refusal,
    where_infinite,
)
from torch_bgdebias.lrp.dual import DualPass
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.models import get_layer, is_compiled, logits_of, original_module
from torch_bgdebias.precision import autocast_off

if TYPE_CHECKING:
    from torch_bgdebias.isnet.wrapper import ISNet

__all__ = ["Explanation", "Watch"]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Heatmaps of one forward pass.

    Attributes:
        logits: (B, K), what the model returned.
        relevance: (B, M, C, H, W), at least float32: M heatmaps an image, at the input.
        hidden: the same at the outputs of the layers of ``deep_supervision``, (B, M, c, h, w) each.
    """

    logits: Tensor
    relevance: Tensor
    hidden: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Record:
    """One forward pass: its input as a place to differentiate at, its output, and what was caught on the way."""

    image: Tensor
    flex: FlexPass
    modes: list[FlexPass]
    #: what else the model was given
    rest: tuple[tuple[Any, ...], dict[str, Any]]
    output: Any = None
    hidden: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    finished: bool = False


#: watches of a module, innermost last: only that one records
_watching: weakref.WeakKeyDictionary[nn.Module, list[Watch]] = weakref.WeakKeyDictionary()


class Watch:
    """Records the model's forward passes while it is open, at the cost of a forward pass that will be explained.

    Made by :meth:`ISNet.watching`. Hooks are on the user's module only while the block is open.
    """

    def __init__(self, isnet: ISNet) -> None:
        self._isnet = isnet
        self._records: list[_Record] = []
        self._stack = ExitStack()
        self._module = original_module(isnet.model)

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
            self._prepare(stack)
            self._stack = stack.pop_all()  # only if all went well
        return self

    def _prepare(self, stack: ExitStack) -> None:
        model = self._isnet.model
        if is_compiled(model):
            warnings.warn(
                f"{type(self._module).__name__} is compiled, which cannot be differentiated twice: "
                "the original module runs while it is explained",
                stacklevel=4,
            )
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        module = self._module
        if self._isnet.attribution == "lrp":
            check_visible(module)
        before = module.register_forward_pre_hook(self._before, with_kwargs=True)
        stack.callback(before.remove)
        after = module.register_forward_hook(self._after, always_call=True)
        stack.callback(after.remove)
        for name in self._isnet.deep_supervision:
            handle = get_layer(module, name).register_forward_hook(_Catch(self, name))
            stack.callback(handle.remove)
        watches = _watching.setdefault(module, [])
        watches.append(self)
        stack.callback(watches.remove, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for record in self._records:  # a forward pass that broke off
            _leave(record)
        self._records = [] if error is not None else [r for r in self._records if r.finished]

    def __len__(self) -> int:
        """How many forward passes have been recorded and not yet explained."""
        return len(self._records)

    @property
    def _live(self) -> bool:
        return _watching[self._module][-1] is self

    @property
    def _current(self) -> _Record | None:
        """The record of the forward pass that is running."""
        return self._records[-1] if self._records and not self._records[-1].finished else None

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._live or self._current is not None or not torch.is_grad_enabled():
            return None
        if not args:
            raise TypeError(f"{type(module).__name__}: expected the image as first positional argument")
        image = check_image(args[0])
        check_batch_norm(module)
        if image.is_inference():
            raise RuntimeError("image: made in inference mode; explain(image) copes with that, watching() cannot")
        leaf = image if image.requires_grad else image.detach().requires_grad_()
        entering = leaf.clone()  # the model may change its input in place
        flex = self._isnet._new_pass(entering, private=leaf is not image)
        self._records.append(_Record(leaf, flex, [flex], (args[1:], kwargs)))
        flex.open()
        return (entering, *args[1:]), kwargs

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        record = self._current
        if not self._live or record is None or module is not self._module:
            return
        _leave(record)
        record.output = output
        record.finished = output is not None

    def explain(
        self,
        target: Target = None,
        create_graph: bool | None = None,
        *,
        index: int = -1,
        generator: torch.Generator | None = None,
    ) -> Explanation:
        """Explain a recorded forward pass and forget it. See :meth:`ISNet.explain` for the arguments.

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
        rerun = functools.partial(self._again, record, target)
        with torch.enable_grad():
            try:
                with autocast_off(record.image):
                    explanation = self._explain(record, target, create_graph, generator)
            except LayerError as error:
                raise refusal(self._module, error, rerun, create_graph=create_graph) from error
            if create_graph:
                check_trainable(self._module, explanation.relevance, rerun)
            self._check_finite(record, explanation, target)
        return explanation

    def _explain(
        self, record: _Record, target: Target, create_graph: bool, generator: torch.Generator | None
    ) -> Explanation:
        isnet = self._isnet
        logits, scalars = self._scalars(record, target, generator)
        jobs = isnet._jobs(scalars, target)
        maps = [
            isnet._map(record.image, record.flex, record.hidden, scalar.sum(), rule, create_graph, i == len(jobs) - 1)
            for i, (scalar, rule) in enumerate(jobs)
        ]
        heatmap = torch.stack([relevance for relevance, _ in maps], 1)
        hidden = {name: torch.stack([h[name] for _, h in maps], 1) for name in record.hidden}
        return Explanation(logits if create_graph else logits.detach(), heatmap, hidden)

    def _scalars(self, record: _Record, target: Target, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The logits (B, K), and what is explained of them."""
        isnet = self._isnet
        logits = logits_of(record.output, isnet.logits)
        scalars = explained(
            isnet.variant,
            logits,
            target,
            selective_eps=isnet.selective_eps,
            multi_label=isnet.multi_label,
            dual_target=isnet.dual_target,
            positive=isnet.attribution == "gradient",
            generator=generator,
        )
        if isinstance(record.flex, DualPass):
            record.flex.finish(logits)
        return logits, scalars

    def _check_finite(self, record: _Record, explanation: Explanation, target: Target) -> None:
        """Require finite relevance, where looking is free.

        Raises:
            ValueError: it is not; the message says in which samples, and in which layer that begins.
        """
        named = {"relevance": explanation.relevance}
        named |= {f"relevance at {name}": hidden for name, hidden in explanation.hidden.items()}
        for name, relevance in named.items():
            try:
                check_finite(relevance.flatten(1), name=name)
            except ValueError as error:
                bad = ~torch.isfinite(relevance.detach()).flatten(2).all(2).all(0)
                rerun = functools.partial(self._again, record, target, int(bad.nonzero()[0]))
                place = where_infinite(self._module, record.image.detach(), rerun)
                raise ValueError(f"{error}; {place}") from error

    def _again(self, record: _Record, target: Target, index: int = 0) -> tuple[Tensor, AbstractContextManager[None]]:
        """The recorded forward pass again, for a closer look: the scalar of one heatmap, and its relevance pass."""
        isnet = self._isnet
        args, kwargs = record.rest
        with warnings.catch_warnings(), isnet.watching() as watch:
            warnings.simplefilter("ignore")  # the first pass has warned
            self._module(record.image, *args, **kwargs)
        again = watch._records.pop()
        if target is None and isnet.variant == "stochastic":  # its choice was random: any logit's relevance will do
            target = torch.ones_like(logits_of(again.output, isnet.logits).detach())
        _, scalars = watch._scalars(again, target, None)
        scalar, rule = isnet._jobs(scalars, target)[index]
        return scalar.sum(), again.flex.relevance(rule)


class _Catch:
    """Forward hook that catches a layer's output, and passes a copy on, which the model may change in place."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch = watch
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        watch = self._watch
        record = watch._current
        if not watch._live or record is None:
            return None
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"deep_supervision: layer {self._name!r} must return maps (B, C, H, W), got {got}")
        record.hidden[self._name] = output
        return output.clone()


def _leave(record: _Record) -> None:
    while record.modes:
        record.modes.pop().close()
