"""``lightning`` and ``pytorch_lightning``: the same library under two names, whose classes know nothing of each other.

A callback here inherits from the ``Callback`` of each that is installed, so it works, bare or in a list, in the
trainers of both. Types are those of either; nothing but this file needs to know which one is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["CallbackBase", "LightningModule", "Trainer", "installed"]

_NAMES = ("pytorch_lightning", "lightning.pytorch")


def installed() -> list[Any]:
    """The packages that can be imported, one of them at least.

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
