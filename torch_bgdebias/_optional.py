"""Packages that only some parts need: one place that knows which extra brings them."""

from __future__ import annotations

import importlib
from types import ModuleType

#: import name -> extra of torch_bgdebias that installs it
EXTRAS = {
    "captum": "attribution",
    "cv2": "opencv",
    "diffusers": "diffusers",
    "transformers": "diffusers",
    "matplotlib": "report",
    "sklearn": "demo",
    "tqdm": "demo",
    "jsonargparse": "train",
}


def require(package: str, *, purpose: str) -> ModuleType:
    """Import ``package`` or raise an ImportError that says which extra to install for ``purpose``."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = EXTRAS[package.split(".")[0]]
        raise ImportError(
            f"{purpose} needs {package}, which could not be imported ({error}): pip install 'torch_bgdebias[{extra}]'"
        ) from error
