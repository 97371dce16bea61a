"""A disk cache of the classes that a classifier saw in an image, keyed by its pixels and the classifier."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from torch_bgdebias.writing import save_content

__all__ = ["SeenCache", "cache_folder", "content_keys"]

_FORMAT = 1


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/torch_bgdebias/seen``, in ``~/.cache`` where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "torch_bgdebias" / "seen"


def content_keys(images: Tensor) -> list[bytes]:
    """16 bytes for each image (N, C, H, W): a hash of its pixels, shape and dtype."""
    head = f"{images.dtype} {tuple(images.shape[1:])}".encode()
    flat = images.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16, key=hashlib.sha256(head).digest()).digest() for row in flat]


class SeenCache:
    """Best classes of images for one classifier, in one file; without a folder they live in memory alone.

    Args:
        folder: where the file is, or ``None``.
        identity: of the classifier.

    An unreadable file is passed over with a warning and written anew.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        self.path = None if folder is None else folder / f"{identity}.pt"
        self.num_classes: int | None = None
        self._seen: dict[bytes, Tensor] = {}
        self._changed = False
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def get(self, key: bytes, top_k: int) -> Tensor | None:
        """The ``top_k`` best classes, best first; ``None`` when the image is not known, or not that many of them."""
        classes = self._seen.get(key)
        return None if classes is None or len(classes) < top_k else classes[:top_k]

    def put(self, key: bytes, classes: Tensor) -> None:
        """Note the best classes (k,) of an image."""
        self._seen[key] = classes
        self._changed = True

    def write(self) -> None:
        """Write what is new; the file is replaced as a whole, so that an interruption leaves the old one."""
        if self.path is None or not self._changed:
            return
        by_depth: dict[int, list[bytes]] = {}
        for key, classes in self._seen.items():
            by_depth.setdefault(len(classes), []).append(key)
        groups = [
            {
                "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 16),
                "classes": torch.stack([self._seen[key] for key in keys]).to(torch.int32),
            }
            for keys in by_depth.values()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_content({"format": _FORMAT, "num_classes": self.num_classes, "groups": groups}, self.path)
        self._changed = False

    def _read(self, path: Path) -> None:
        try:
            content = torch.load(path, weights_only=True)
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}")
            for group in content["groups"]:
                if group["keys"].ndim != 2 or group["classes"].ndim != 2 or group["keys"].dtype != torch.uint8:
                    raise ValueError("expected keys (N, 16) and classes (N, k)")
                for key, classes in zip(group["keys"].numpy(), group["classes"].long(), strict=True):
                    self._seen[key.tobytes()] = classes
            if not isinstance(content["num_classes"], int | None):
                raise TypeError(f"num_classes {content['num_classes']!r}")
            self.num_classes = content["num_classes"]
        except Exception as error:  # torch raises many kinds for a damaged file, and another layout leads to more
            self._seen.clear()
            warnings.warn(f"{path} cannot be read ({error}): the classifier looks at all images again", stacklevel=5)
