"""Optional packages: the one place that knows which extra installs which package."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

#: import name -> extra of torch_bgdebias that installs it
EXTRAS = {
    "timm": "models",
    "torchvision": "models",
    "zennit": "lrp",
    "captum": "attribution",
    "cv2": "opencv",
    "diffusers": "diffusers",
    "transformers": "diffusers",
    "matplotlib": "report",
    "sklearn": "demo",
    "tqdm": "demo",
    "jsonargparse": "train",
    "onnxruntime": "masks",
    "rembg": "rembg",
    "pyarrow": "parquet",
    "wandb": "tools",
    "mlflow": "tools",
    "fiftyone": "fiftyone",
}


def require(package: str, *, purpose: str) -> ModuleType:
    """Import ``package`` or raise an ImportError that says which extra to install for ``purpose``."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise _with_hint(package.split(".")[0], purpose, error) from error


@contextmanager
def said_to_need(purpose: str) -> Iterator[None]:
    """Within the block: an ImportError of a package that an extra brings says which extra to install for ``purpose``.

    Raises:
        ImportError: that, or of any other package as it came.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS or "pip install" in str(error):
            raise
        raise _with_hint(package, purpose, error) from error


def _with_hint(package: str, purpose: str, error: ImportError) -> ImportError:
    hint = f"pip install 'torch_bgdebias[{EXTRAS[package]}]'"
    return ImportError(f"{purpose} needs {package}, which could not be imported ({error}): {hint}", name=error.name)
