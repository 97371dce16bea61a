"""The classifier that screens backgrounds (a timm name, a module or a callable) and its cache key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds.pool import in_image_units
from torch_bgdebias.checks import check_both_or_none, check_size, describe
from torch_bgdebias.models import device_of, dtype_of, eval_mode, logits_of

__all__ = ["Classifier", "Viewer"]

#: a timm model's name, a module, or any callable from images (B, C, h, w) to logits (B, K)
Classifier: TypeAlias = "str | nn.Module | Callable[[Tensor], Any]"


class Viewer:
    """Prepares images as a classifier wants them, and returns its logits.

    Args:
        classifier: see `BackgroundBank.filter`.
        size: (h, w) that it takes, ``None``: a timm model's own, else whatever comes.
        mean: per channel, after scaling to [0, 1]; ``None``: a timm model's own, else no normalisation.
        std: per channel; required with ``mean``.
        device: for a model made here; a module is used where it is.

    Attributes:
        name: for messages.
        identity: text that differs wherever weights, architecture or settings differ; ``None`` for a callable.

    Raises:
        ValueError: a name that timm does not know, only one of mean and std.
        TypeError: no classifier.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        check_both_or_none(mean, std)
        self.module: nn.Module | None = None
        if isinstance(classifier, str):
            self.name = classifier.removeprefix("timm:")
            classifier = _timm(self.name).to(device)
        elif isinstance(classifier, nn.Module):
            self.name = type(classifier).__name__
        elif callable(classifier):
            self.name = getattr(classifier, "__name__", type(classifier).__name__)
        else:
            raise TypeError(f"classifier: expected a timm name, a module or a callable, got {describe(classifier)}")
        self._call: Callable[[Tensor], Any] = classifier
        self.channels: int | None = None
        self.size = check_size(size)
        self.normalisation = None if mean is None or std is None else (tuple(mean), tuple(std))
        if isinstance(classifier, nn.Module):
            self.module = classifier
            if hasattr(classifier, "pretrained_cfg"):
                self._ask_timm(classifier)
        self.identity = None if self.module is None else self._identity(self.module)

    def _ask_timm(self, model: nn.Module) -> None:
        from timm.data import resolve_model_data_config

        config = resolve_model_data_config(model)
        self.channels = int(config["input_size"][0])
        self.size = self.size or (int(config["input_size"][1]), int(config["input_size"][2]))
        self.normalisation = self.normalisation or (tuple(config["mean"]), tuple(config["std"]))

    def _identity(self, module: nn.Module) -> str:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        description = "\n".join([self.name, kind, repr(module), repr(self.size), repr(self.normalisation)])
        digest = hashlib.sha256(description.encode())
        for key, value in module.state_dict().items():
            digest.update(f"{key} {describe(value)}".encode())
            if isinstance(value, Tensor):
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) float32 of images (B, C, H, W), uint8 or in [0, 1], on the classifier's device.

        Raises:
            ValueError: images outside [0, 1], an answer that is not (B, K) or not finite.
        """
        if len(images) == 0:
            raise ValueError(f"images: expected at least one in a batch, got {describe(images)}")
        pixels = self._prepared(images)
        with torch.no_grad(), nullcontext() if self.module is None else eval_mode(self.module):
            logits = logits_of(self._call(pixels))
        if logits.ndim != 2 or len(logits) != len(images):
            raise ValueError(f"classifier: expected logits ({len(images)}, K), got {describe(logits)}")
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"classifier: expected finite logits, got NaN or infinity from {self.name}")
        return logits.float()

    def _prepared(self, images: Tensor) -> Tensor:
        """The images in the channels, size, normalisation, dtype and on the device of the classifier."""
        pixels = in_image_units(images, None, None, dtype=torch.float32)
        low, high = (float(v) for v in pixels.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images: expected uint8 or values in [0, 1], got [{low:g}, {high:g}]; filter before normalising"
            )
        if self.channels == 3 and pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        if self.module is not None:
            pixels = pixels.to(device_of(self.module, pixels.device))
        if pixels.ndim == 5 and self.size is not None:
            raise ValueError(
                f"images: expected (N, C, H, W), for {self.name} resized to {self.size}, got {describe(images)}; "
                "pass a function of the volumes as classifier, without size="
            )
        if self.size is not None and pixels.shape[2:] != self.size:
            pixels = nn.functional.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        if self.normalisation is not None:
            pixels = in_image_units(pixels, *self.normalisation)
        if self.module is not None:
            pixels = pixels.to(dtype_of(self.module, pixels.dtype))
        return pixels


def _timm(name: str) -> nn.Module:
    import difflib

    import timm

    architecture = name.split(".")[0]
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(architecture):
        close_matches = difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.5)
        raise ValueError(
            f"classifier: timm has no model {name!r}"
            + (f"; near names: {', '.join(close_matches)}" if close_matches else "")
        )
    model: nn.Module = timm.create_model(name, pretrained=True).eval()
    return model
