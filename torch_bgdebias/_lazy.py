"""Lazy imports for a package's public names: each name is imported from its file on first use.

A face (the ``__init__.py`` of a room, ``callbacks.py``) states its names twice, once for type checkers and editors and
once for the interpreter, and ``tests/test_faces.py`` proves that both say the same::

    if TYPE_CHECKING:
        from torch_bgdebias.swap.module import BackgroundSwap as BackgroundSwap
    else:
        __all__, __getattr__, __dir__ = lazy(__name__, {"torch_bgdebias.swap.module": ["BackgroundSwap"]})

Type checkers never see a ``__getattr__`` that answers ``Any`` to every name, so a misspelt one is an error there too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias._optional import said_to_need

__all__ = ["lazy"]


def lazy(
    face: str,
    homes: Mapping[str, Sequence[str]],
    moved: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a module whose names are defined elsewhere.

    Args:
        face: the module's ``__name__``.
        homes: full name of the defining module -> its names; the face's own name stands for its submodules.
        moved: another face -> names that it shows now; they warn here, and are not listed.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    elsewhere = {name: new_face for new_face, names in (moved or {}).items() for name in names}

    def look_up(name: str) -> object:
        if name in elsewhere:
            warn_renamed(f"{face}.{name}", f"{elsewhere[name]}.{name}")
            value: object = getattr(importlib.import_module(elsewhere[name]), name)
            return value
        if name not in home_of:
            message = f"module {face!r} has no attribute {name!r}; it has {', '.join(home_of)}"
            raise AttributeError(message, name=name, obj=sys.modules[face])
        if home_of[name] == face:
            return importlib.import_module(f"{face}.{name}")
        with said_to_need(f"{face}.{name}"):
            value = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[face], name, value)  # the next look-up does not come here
        return value

    return list(home_of), look_up, lambda: sorted({*vars(sys.modules[face]), *home_of})
