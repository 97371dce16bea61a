"""``discover``: groups of pictures that a trained model recognises by something unusual; needs no masks."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.attribution import grad_cam
from torch_bgdebias.audit.backbone import layer_input
from torch_bgdebias.audit.clusters import clusters_of
from torch_bgdebias.audit.discovery import Discovery
from torch_bgdebias.audit.gathering import Say, duration, thumbnail
from torch_bgdebias.audit.pictures import Files, Picture, PictureSource, as_source, picture_files
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_count, check_option
from torch_bgdebias.data.class_folders import warn_of_order
from torch_bgdebias.models import LogitsKey, device_of, dtype_of, find_head, original_module
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.subsets import batched

__all__ = ["discover"]

#: places of a heatmap on a side
SIDE = 16
_BATCH = 32
#: takes images and classes, gives relevance (B, 1, H, W)
Attribution = Callable[[Tensor, Tensor], Tensor]


def discover(
    model: nn.Module,
    dataset: Any,
    *,
    preprocessing: Preprocessing | None = None,
    attribution: str = "auto",
    layer: str | None = None,
    logits: LogitsKey = None,
    spec: BatchSpec | None = None,
    images: int | None = 4000,
    seed: int = 0,
    say: Say | None = None,
) -> Discovery:
    """Cluster pictures by where a model looks, class by class, and rank the clusters by how far they stand apart.

    Args:
        model: any classifier; in evaluation mode meanwhile, given back as it was.
        dataset: as for `torch_bgdebias.audit.audit`; a folder's masks are not needed and not read. Labels are numbers
            of the model's outputs: a folder's classes in the order of their names.
        preprocessing: what the model wants of images in [0, 1]; tensors are taken to be in these units already.
        attribution: ``"lrp"``, ``"grad_cam"``, or ``"auto"``: LRP if zennit is installed.
        layer: of Grad-CAM; chosen automatically if ``None``.
        logits: where the logits are in the model's output.
        spec: where image and label are in an item or batch that is no tuple of these.
        images: at most so many pictures are used; ``None``: all.
        seed: of their choice and of the clustering.
        say: receives progress messages.

    Returns:
        Discovery: the groups, the most suspicious first, with ``to_html``, ``to_json`` and ``summary``.

    Raises:
        ImportError: scikit-learn is not there (extra ``audit``). ValueError: fewer than 20 pictures of any class, or
            images of several sizes.

    Source: SpRAy (Lapuschkin and others, Nature Communications 10, 2019).
    """
    check_option(attribution, ("auto", "lrp", "grad_cam"), name="attribution")
    if layer is not None and attribution == "lrp":
        raise ValueError(f"layer: expected none with attribution='lrp', which explains the pixels, got {layer!r}")
    if images is not None:
        check_count(images, name="images", least=20)
    preprocess = preprocessing or Preprocessing()
    source = _source(dataset, spec, preprocess)
    explain, method = _attribution(model, attribution, layer, logits)
    head: str | None = None
    maps: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    read_pictures: list[tuple[int, int, Path | None]] = []
    thumbnails: list[bytes] = []
    tell = say or (lambda _: None)
    tell(f"{'pictures' if source.total is None else f'{source.total:,} pictures'}, {method}")
    expected, start = min(source.total or 0, images or source.total or 0), time.monotonic()
    for batch in batched(source.pictures(images, seed), _BATCH):
        image, label = _tensors([picture for _, picture in batch], preprocess, device_of(model))
        image = image.to(dtype=dtype_of(model, image.dtype))
        head = head if maps else _head(model, image[:1])
        maps.append(_shares(explain(image, label)))
        if head is not None:
            embeddings.append(layer_input(original_module(model), head, image))
        thumbnails += [thumbnail(picture) for _, picture in batch]
        read_pictures += [(index, picture.label, picture.path) for index, picture in batch]
        if len(read_pictures) == _BATCH and expected > 10 * _BATCH:
            tell(f"about {duration((time.monotonic() - start) * expected / _BATCH)} to explain {expected:,}")
    labels = np.array([label for _, label, _ in read_pictures], np.int64)
    _require_pictures(labels)
    table = np.concatenate(embeddings) if embeddings else None
    clusters = clusters_of(np.concatenate(maps), table, labels, seed=seed)
    names = [str(index) if path is None else path.name for index, _, path in read_pictures]
    classes = source.classes + tuple(f"class {n}" for n in range(len(source.classes), int(labels.max()) + 1))
    return Discovery(
        classes=classes,
        labels=labels,
        index=np.array([index for index, _, _ in read_pictures], np.int64),
        names=names,
        clusters=clusters,
        method=method,
        thumbnails=thumbnails,
        unreadable=source.unreadable,
    )


def _source(dataset: Any, spec: BatchSpec | None, preprocess: Preprocessing) -> PictureSource:
    """The pictures; files no smaller than the model wants them."""
    if isinstance(dataset, str | Path):
        dataset = picture_files(Path(dataset))
        warn_of_order(dataset.root, dataset.classes)
    source = as_source(dataset, masks=None, spec=spec, restored=preprocess)
    if isinstance(source, Files):
        source.decoded = preprocess.height_width
    return source


def _attribution(model: nn.Module, method: str, layer: str | None, logits: LogitsKey) -> tuple[Attribution, str]:
    """The function that explains, and its name."""
    if method == "lrp" or (method == "auto" and layer is None and importlib.util.find_spec("zennit") is not None):
        from torch_bgdebias.attribution import lrp

        return lambda image, label: lrp(model, image, label, logits=logits), "LRP"
    return lambda image, label: grad_cam(model, image, label, layer=layer, logits=logits), "Grad-CAM"


def _head(model: nn.Module, image: Tensor) -> str | None:
    """The layer whose input is the embedding, where there is one that runs once."""
    try:
        head = find_head(original_module(model))[0]
        layer_input(original_module(model), head, image)
    except (LookupError, ValueError):
        return None
    return head


def _tensors(pictures: list[Picture], preprocess: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as the model takes them, and their classes."""
    images = [preprocess(torch.from_numpy(p.pixels.copy()).permute(2, 0, 1).float() / 255) for p in pictures]
    if len({image.shape for image in images}) > 1:
        sizes = sorted({tuple(image.shape[1:]) for image in images})[:3]
        raise ValueError(f"preprocessing: expected a size for images of several sizes, got None and {sizes}")
    return torch.stack(images).to(device), torch.tensor([p.label for p in pictures], device=device)


def _shares(relevance: Tensor) -> NDArray[np.float32]:
    """(B, SIDE, SIDE): the share of what speaks for the class at each place; even where nothing does."""
    pooled = F.adaptive_avg_pool2d(relevance.clamp(min=0).float().cpu(), SIDE)[:, 0]
    total = pooled.sum((1, 2), keepdim=True)
    shares: NDArray[np.float32] = torch.where(total > 0, pooled / total.clamp(min=1e-12), 1 / SIDE**2).numpy()
    return shares


def _require_pictures(labels: NDArray[np.int64]) -> None:
    counts = np.bincount(labels) if len(labels) else np.zeros(1, np.int64)
    if counts.max() < 20:
        raise ValueError(f"dataset: expected at least 20 pictures of a class, got {int(counts.max())} at most")
