"""``lightning`` and ``pytorch_lightning``: one library under two names, with unrelated classes.

A callback here inherits from the ``Callback`` of each that is installed, so it works, bare or in a list, in the
trainers of both. Types are those of either; nothing but this file needs to know which one is there.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["CallbackBase", "LightningModule", "Trainer", "choose", "chosen", "installed"]

_NAMES = ("pytorch_lightning", "lightning.pytorch")
#: name of the package that `choose` settled on
_choice: list[str] = []


def installed() -> list[Any]:
    """The Lightning packages that can be imported, at least one.

    Raises:
        ImportError: neither; the message says what to install, and why an installed one fails.
    """
    packages, reasons = [], []
    for name in _NAMES:
        try:
            packages.append(importlib.import_module(name))
        except ImportError as error:  # one that is broken does not matter while the other works
            reasons.append(f"{name}: {error}")
    if not packages:
        raise ImportError(
            "a callback needs Lightning, under either of its names: pip install lightning (or pytorch-lightning); "
            f"functions, modules and measuring work without it ({'; '.join(reasons)})"
        )
    return packages


def choose(names: Sequence[str]) -> Any:
    """The package to build classes on: the one that was chosen, else the first that is installed.

    Args:
        names: dotted names of classes, such as ``theirs.Net``; what cannot be imported is passed over.

    Raises:
        ValueError: classes of both packages, which no trainer takes together.
    """
    packages = installed()
    owners: dict[str, str] = {}
    for name in names:
        for package in packages:
            if _is_of_package(name, package):
                owners.setdefault(package.__name__, name)
    if len(owners) > 1:
        found_text = " and ".join(f"{name} of {package}" for package, name in sorted(owners.items()))
        raise ValueError(
            f"classes: expected those of one Lightning package, got {found_text}; import both from the same"
        )
    _choice[:] = list(owners) or [packages[0].__name__]
    return chosen()


def chosen() -> Any:
    """The package of the last `choose`, else the first that is installed."""
    packages = installed()
    return next((package for package in packages if [package.__name__] == _choice), packages[0])


def _is_of_package(name: str, package: Any) -> bool:
    """Whether this is a class of the package, or one made on it, and not of another one as well."""
    holder, _, attribute = name.rpartition(".")
    top = name.split(".")[0]
    if top in ("lightning", "pytorch_lightning"):
        return bool(top == package.__name__.split(".")[0])
    if top == "torch_bgdebias":  # these follow the choice
        return False
    try:
        value = getattr(importlib.import_module(holder), attribute)
    except Exception:  # not a class then, or one whose own error its user will see when it is made
        return False
    bases = (package.LightningModule, package.LightningDataModule, package.Callback)
    other_callbacks = tuple(base for other in installed() if other is not package for base in (other.Callback,))
    if not isinstance(value, type) or issubclass(value, other_callbacks):
        return False
    return any(issubclass(value, base) for base in bases)


if TYPE_CHECKING:
    import lightning.pytorch
    import pytorch_lightning

    Trainer: TypeAlias = pytorch_lightning.Trainer | lightning.pytorch.Trainer
    LightningModule: TypeAlias = pytorch_lightning.LightningModule | lightning.pytorch.LightningModule

    class CallbackBase(pytorch_lightning.Callback, lightning.pytorch.Callback):  # type: ignore[misc]
        """A callback of both packages."""
else:
    Trainer = LightningModule = Any
    CallbackBase = type("CallbackBase", tuple(package.Callback for package in installed()), {"__module__": __name__})
