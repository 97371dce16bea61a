"""Deprecated names and keywords: they keep working for one release and warn with their replacement."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["REMOVED_IN", "renamed_arguments", "warn_of_resampling", "warn_renamed"]

#: the release in which today's old names go
REMOVED_IN = "0.3.0"

P = ParamSpec("P")
T = TypeVar("T")


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that ``old`` is now called ``new``; ``stacklevel`` as in ``warnings.warn``, seen from the caller."""
    message = f"{old} is now {new}; the old name goes in torch_bgdebias {REMOVED_IN}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


def warn_of_resampling(what: str) -> None:
    """Warn that an option of the bootstrap has no effect: intervals are computed without drawing."""
    message = f"{what} has no effect: intervals are computed, not drawn; the option goes in torch_bgdebias {REMOVED_IN}"
    warnings.warn(message, DeprecationWarning, stacklevel=4)


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of functions and ``__init__``: keyword arguments by their old names, ``renamed_arguments(old="new")``.

    Type checkers see the new names alone. Passing an argument by both names raises a TypeError.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for old, new in renamed.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{name}: expected {new} alone, got {new} and its old name {old}")
                    warn_renamed(f"{name}({old}=...)", f"{name}({new}=...)")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
