"""LRP-Flex on an unmodified model: a torch function mode around one forward pass.

While `FlexPass` is open, every torch function that the model calls passes through it: modules, functional forms
and methods alike, in place or not, however often a module is used. The few that have a rule (activations,
normalisation, attention) get nodes which obey the pass's switch; all else is left alone. Nothing is hooked, nothing is
left behind, and other threads do not notice, since such modes are per thread.

The relevance pass is then ``torch.autograd.grad`` inside `FlexPass.relevance`. Outside of it, and so in the
training loss's own backward pass through logits and relevance, every derivative is the true one.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torch_bgdebias.lrp.handlers import HANDLERS, Handler
from torch_bgdebias.lrp.pass_state import PassState

__all__ = ["FlexPass", "running_pass"]


class _Running(threading.local):
    """The passes that are open in this thread, innermost last."""

    def __init__(self) -> None:
        self.passes: list[FlexPass] = []


_running = _Running()


def running_pass() -> FlexPass | None:
    """The innermost pass that is open in this thread."""
    return _running.passes[-1] if _running.passes else None


class FlexPass(PassState, TorchFunctionMode):
    """One explained forward pass.

    The arguments are those of `torch_bgdebias.lrp.pass_state.PassState`.
    """

    #: torch function -> what to do instead
    handlers: ClassVar[dict[Any, Handler]] = HANDLERS

    def open(self) -> None:
        """Begin, where a ``with`` block cannot stand; `close` must follow."""
        self.__enter__()  # type: ignore[no-untyped-call]
        _running.passes.append(self)

    def close(self) -> None:
        """End what `open` began."""
        _running.passes.remove(self)
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @contextmanager
    def relevance(self, rule: str = "", logits: Tensor | None = None) -> Iterator[None]:
        """Backward passes inside the block are relevance passes, of the logits if a rule has to know them."""
        with self.switch.on(rule):
            yield

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Give ``func`` its rule, if it has one."""
        kwargs = kwargs or {}
        carried = self.carried(func, args, kwargs)
        if carried is not None:
            return carried[0]
        handler = self.handlers.get(func)
        if handler is not None:
            return handler(self, func, args, kwargs)
        if func is F.multi_head_attention_forward:  # Python code: what it calls has to pass here too
            with self:
                return _mha(*args, **kwargs)
        return func(*args, **kwargs)


def _unguarded(func: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch.nn.functional without its check for overrides, which would only bring it back here."""
    assert isinstance(func, types.FunctionType)
    namespace = func.__globals__.copy()
    namespace["has_torch_function"] = lambda *_: False
    copy = types.FunctionType(func.__code__, namespace, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


_mha = _unguarded(F.multi_head_attention_forward)
