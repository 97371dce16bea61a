"""Finds and loads the compiled kernels and reports the outcome; without them everything works, only slower."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from torch_bgdebias.ops.library import NAME
from torch_bgdebias.ops.seal import flaw

__all__ = ["ExtensionStatus", "extension_status", "load_extension"]

VARIABLE = "TORCH_BGDEBIAS_EXTENSION"

#: csrc/module.cpp carries the same words. Kernels of the stable ABI are called without a check of their schema, so a
#: library built for another one must be known before it is loaded. To be raised with every change of the schema.
MARKER = b"torch_bgdebias kernels for schema 1"

#: nothing is missing then: a pure-Python wheel has no compiled kernels and needs none
_NOT_BUILT = (
    "not built; every function works without it. To build it, with torch and a C++ compiler there, from the sources: "
    "pip install --no-build-isolation --no-deps --force-reinstall DIR_OF_THE_SOURCES"
)

_PACKAGE = Path(__file__).resolve().parents[1]


class ExtensionStatus(NamedTuple):
    """The state of the compiled kernels in this process.

    Attributes:
        state: ``"loaded"``, ``"absent"`` (not built, or switched off) or ``"refused"`` (there, but unusable).
        reason: why, in words.
        path: the library's file, if there is one.
        devices: device types that have a compiled kernel; all others use the plain torch kernel.
    """

    state: str
    reason: str
    path: str | None = None
    devices: tuple[str, ...] = ()


_status: ExtensionStatus | None = None


def extension_status() -> ExtensionStatus:
    """Whether compiled kernels are in use: loaded, absent or refused, and why. Never starts CUDA.

    Example:
        >>> from torch_bgdebias.ops import extension_status
        >>> extension_status().state in ("loaded", "absent", "refused")
        True
    """
    return load_extension()


def load_extension() -> ExtensionStatus:
    """Load the extension once per process. A library that cannot be used causes one warning and nothing else."""
    global _status
    if _status is None:
        _status = _load(_PACKAGE)
        if _status.state == "refused":
            warnings.warn(
                f"torch_bgdebias uses its plain torch kernels: {_status.path} was refused, {_status.reason}",
                RuntimeWarning,
                stacklevel=2,
            )
    return _status


def _load(folder: Path) -> ExtensionStatus:
    setting = os.environ.get(VARIABLE, "auto")
    if setting not in ("auto", "off"):
        raise ValueError(f"{VARIABLE}: expected 'auto' or 'off', got {setting!r}")
    if setting == "off":
        return ExtensionStatus("absent", f"switched off by {VARIABLE}=off")
    libraries = sorted(folder.glob("_C*.so"))
    if not _has_stable_abi():
        reason = f"the compiled kernels need torch 2.10 or newer, this is {torch.__version__}"
        return ExtensionStatus("absent", reason, str(libraries[0]) if libraries else None)
    if not libraries:
        return ExtensionStatus("absent", _NOT_BUILT)
    path = libraries[0]
    try:
        content = path.read_bytes()
        if MARKER not in content:
            reason = "it was not built from this version of the package; build it again"
            return ExtensionStatus("refused", reason, str(path))
        if damage := flaw(content):
            return ExtensionStatus("refused", damage, str(path))
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        return ExtensionStatus("refused", f"it cannot be loaded: {error}", str(path))
    devices = tuple(key.lower() for key in ("CPU", "CUDA") if torch._C._dispatch_has_kernel_for_dispatch_key(NAME, key))
    if "cpu" not in devices:
        return ExtensionStatus("refused", "it registers no kernel", str(path))
    return ExtensionStatus("loaded", "compiled kernels are in use", str(path), devices)


def _has_stable_abi() -> bool:
    """Whether this torch has the stable ABI that the kernels are built for."""
    return tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 10)
