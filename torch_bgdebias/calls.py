"""Runs functions at every call of a borrowed module, whether it is called itself or through its ``forward``."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

__all__ = ["After", "Before", "around_calls"]

#: called with the positional and the named arguments; returns others, or ``None``
Before: TypeAlias = "Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]"
#: called with what the module returned, ``None`` if it raised
After: TypeAlias = "Callable[[Any], None]"


class _Hooked(threading.local):
    """Whether the running call of this thread came through the module's hooks."""

    yes = False


class _Forward:
    """A stand-in for a module's ``forward``: a direct call of it is a call, too. Copies of the module have their
    own forward, as pickled ones do."""

    def __init__(self, module: nn.Module, before: Before, after: After) -> None:
        self.hooked = _Hooked()
        self._module, self._before, self._after = module, before, after
        self._own = vars(module).get("forward")  # an instance attribute of the user's, if there was one
        self._original = module.forward
        functools.update_wrapper(self, self._original, updated=())  # a replacement has its own attributes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.hooked.yes:
            self.hooked.yes = False
            return self._original(*args, **kwargs)
        args, kwargs = self._before(args, kwargs) or (args, kwargs)
        output = None
        try:
            output = self._original(*args, **kwargs)
        finally:
            self._after(output)
        return output

    def restore(self) -> None:
        """Put the module's own forward back."""
        above = vars(self._module).get("forward")
        if above is not self:  # another wrapper came later and is still in place
            while isinstance(above, _Forward) and above._own is not self:
                above = above._own
            if isinstance(above, _Forward):
                above._own, above._original = self._own, self._original
        elif self._own is None:
            del self._module.forward
        else:
            self._module.forward = self._own

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return _own_forward(memo.get(id(self._module), self._module), self._own)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, Any]]:
        return _own_forward, (self._module, self._own)


def _own_forward(module: nn.Module, own: Callable[..., Any] | None) -> Callable[..., Any]:
    return types.MethodType(type(module).forward, module) if own is None else own


@contextmanager
def around_calls(module: nn.Module, before: Before, after: After) -> Iterator[None]:
    """``before`` and ``after`` run around every call of ``module`` while the block is open, also of its ``forward``.

    They run next to the forward itself: within the user's forward hooks before, and after those that are registered
    now. ``after`` runs after failed calls too.

    Args:
        module: as it is called, without the wrappers of ``torch.compile`` and data parallel training.
        before: may exchange the arguments.
        after: gets the output.
    """
    with ExitStack() as stack:
        hooked = _Hooked()
        if not isinstance(module, torch.jit.ScriptModule):  # its forward is no attribute that can be exchanged
            stand_in = _Forward(module, before, after)
            hooked = stand_in.hooked
            module.forward = stand_in
            stack.callback(stand_in.restore)

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new_arguments = before(args, kwargs)
            hooked.yes = True
            return new_arguments

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            hooked.yes = False
            after(output)

        stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield
