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

__all__ = ["lazy", "renamed_names"]


def lazy(
    face: str,
    homes: Mapping[str, Sequence[str]],
    renamed: Mapping[str, str] | None = None,
    moved: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a module whose names are defined elsewhere.

    Args:
        face: the module's ``__name__``.
        homes: full name of the defining module -> its names; the face's own name stands for its submodules.
        renamed: old name -> the name in ``homes`` that took its place; old names warn and are not listed.
        moved: another face -> names that it shows now; they warn here, and are not listed.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    old_names = dict(renamed or {})
    elsewhere = {name: new_face for new_face, names in (moved or {}).items() for name in names}

    def look_up(name: str) -> object:
        if name in old_names:
            warn_renamed(f"{face}.{name}", f"{face}.{old_names[name]}")
            return look_up(old_names[name])
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


def renamed_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], object]:
    """``__getattr__`` of a module some of whose names are now called otherwise or are defined elsewhere.

    Args:
        module: its ``__name__``.
        renamed: old name -> ``"full.module:new_name"``.

    Bind it where type checkers do not look: ``if not TYPE_CHECKING: __getattr__ = renamed_names(__name__, {...})``.
    """

    def look_up(name: str) -> object:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])
        home, _, new_name = renamed[name].partition(":")
        warn_renamed(f"{module}.{name}", f"{home}.{new_name}")
        value: object = getattr(importlib.import_module(home), new_name)
        return value

    return look_up
