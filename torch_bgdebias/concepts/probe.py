"""``ConceptProbe``: fits concept vectors of every layer on images and masks, and measures their IoU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias._deprecated import renamed_arguments
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_label, check_mask, check_option
from torch_bgdebias.concepts.activations import ActivationReader, Forward
from torch_bgdebias.concepts.fitting import concept_iou, fit_concepts
from torch_bgdebias.concepts.settings import ConceptOptions, ConceptSettings
from torch_bgdebias.concepts.store import ActivationStore
from torch_bgdebias.models import device_of, dtype_of

__all__ = ["ConceptProbe", "ConceptVectors", "Method"]

Method: TypeAlias = Literal["net2vec", "loce"]
METHODS: tuple[Method, ...] = ("net2vec", "loce")


@dataclasses.dataclass(frozen=True)
class ConceptVectors:
    """The vectors of one method.

    Attributes:
        names: the G concepts.
        method: ``"net2vec"``, or ``"loce"``: globalised, the mean of the local vectors.
        vectors: layer -> (G, C) float32 on the CPU; NaN for a concept all of whose masks are too small for the layer.
        local: layer -> (N, C), for LoCE each image's own vector (NaN where its mask is too small); empty for Net2Vec.
        too_small: layer -> positions of the images whose mask covers less than one activation pixel, which were left
            out of the fit.
        counts: images a concept.
    """

    names: tuple[str, ...]
    method: Method
    vectors: dict[str, Tensor]
    local: dict[str, Tensor]
    too_small: dict[str, list[int]]
    counts: tuple[int, ...]


class ConceptProbe:
    """Fit concept vectors in the layers of a borrowed model, and measure how well they segment.

    Args:
        model: any module; see `torch_bgdebias.concepts.ActivationReader` for what it may be.
        layers: their names; ``None``: an early, a middle and a late one.
        forward: how to run the model; ``None``: ``model(images)``.
        settings: the options in one object; the default one when ``None``.
        **options: fields of `torch_bgdebias.concepts.ConceptSettings` (``size``, ``epochs``, ``lr``, ...); they
            go before those of ``settings``.

    A mask that covers less than one activation pixel (mean(mask) * h * w < 1) says nothing at that layer: the image is
    left out there and listed in ``too_small``; its IoU is NaN.

    Source: arXiv 1801.03454 (Net2Vec), arXiv 2311.14435 (LoCE), arXiv 2504.08602 (backgrounds).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        >>> images, masks = torch.rand(4, 3, 16, 16), torch.zeros(4, 1, 16, 16)
        >>> masks[:, :, 4:12, 4:12] = 1
        >>> probe = ConceptProbe(net, ["1"], size=16)
        >>> vectors = probe.fit(images, masks, torch.tensor([0, 0, 1, 1]), names=["bird", "boat"])
        >>> vectors.vectors["1"].shape, probe.iou(vectors, images, masks, torch.tensor([0, 0, 1, 1]))["1"].shape
        (torch.Size([2, 4]), torch.Size([4]))
    """

    @renamed_arguments(block="chunk")
    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        forward: Forward | None = None,
        settings: ConceptSettings | None = None,
        **options: Unpack[ConceptOptions],
    ) -> None:
        self.settings = dataclasses.replace(ConceptSettings() if settings is None else settings, **options)
        self.reader = ActivationReader(model, layers, forward=forward)

    @property
    def layers(self) -> tuple[str, ...] | None:
        """Layers that are read; ``None`` until images have been seen, where they are chosen."""
        return self.reader.layers

    def fit(
        self,
        images: Tensor | Iterable[Any],
        masks: Tensor | None = None,
        concepts: Tensor | None = None,
        *,
        names: Sequence[str] | None = None,
        method: Method = "net2vec",
        batch: BatchSpec | None = None,
        void: Tensor | None = None,
    ) -> ConceptVectors:
        """Vectors of every concept in every layer, all of a layer in one batched optimisation.

        Args:
            images: (N, C, H, W) in the model's units; or a loader of batches, whose labels are the concepts.
            masks: (N, 1, H, W) in [0, 1], 1 on the concept (with a tensor of images only).
            concepts: (N,) int64 in [0, G) (with a tensor of images only).
            names: of the G concepts; ``None``: "0", "1", ... up to the largest that comes.
            method: ``"net2vec"``: one vector a concept; ``"loce"``: one an image, and their mean.
            batch: what in a loader's batches is what; ``None``: (image, label, mask).
            void: (N, 1, H, W), 1 where a pixel is neither object nor background and does not count (with a tensor of
                images only; a loader's batches say it themselves).

        Raises:
            ValueError: no images, a concept without images, or activations that are not finite.
        """
        check_option(method, METHODS, name="method")
        stores: dict[str, ActivationStore] = {}
        small, group, share = [], [], []
        unknown: list[Tensor] = []
        for batch_images, mask, label, unclear in self._batches(images, masks, concepts, batch, void):
            for layer, maps in self.reader(batch_images).items():
                stores.setdefault(layer, ActivationStore(self.settings.folder)).append(maps)
            small.append(self.shrink(mask))
            unknown.append(torch.zeros_like(small[-1]) if unclear is None else self.shrink(unclear))
            share.append(mask.mean((1, 2, 3)).cpu())
            group.append(label.cpu())
        if not group:
            raise ValueError("images: expected at least one, got none")
        ids, covered = torch.cat(group), torch.cat(share)
        targets = _ComparisonMasks(
            torch.cat(small), torch.cat(unknown) if any(bool(batch_images.any()) for batch_images in unknown) else None
        )
        total = int(ids.max()) + 1 if names is None else len(names)
        check_label(ids, len(ids), name="concepts", num_classes=total)
        names = [str(i) for i in range(total)] if names is None else list(names)
        counts = torch.bincount(ids, minlength=total)
        if empty := [names[i] for i in (counts == 0).nonzero().flatten().tolist()]:
            raise ValueError(f"concepts: expected at least one image of each, got none of {', '.join(empty)}")
        fitted = ConceptVectors(tuple(names), method, {}, {}, {}, tuple(counts.tolist()))
        for layer, store in stores.items():
            large = covered * store.shape[2] * store.shape[3] >= 1
            fitted.too_small[layer] = (~large).nonzero().flatten().tolist()
            if method == "net2vec":
                fitted.vectors[layer] = self._fit(store, targets, torch.where(large, ids, -1), total)
            else:
                rows = torch.where(large, torch.arange(len(ids)), -1)
                local = fitted.local[layer] = self._fit(store, targets, rows, len(ids))
                fitted.vectors[layer] = torch.stack([local[large & (ids == g)].mean(0) for g in range(total)])
            store.close()
        return fitted

    def iou(
        self,
        vectors: ConceptVectors | Sequence[ConceptVectors],
        images: Tensor | Iterable[Any],
        masks: Tensor | None = None,
        concepts: Tensor | None = None,
        *,
        batch: BatchSpec | None = None,
        void: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """How well each image's concept vector segments it: layer -> IoU (N,), NaN where the mask is too small.

        Args:
            vectors: from `fit`; with several, all are measured in one pass and the result is (V, N).
            images: as for `fit`; arguments and errors too.
            masks: as for `fit`.
            concepts: as for `fit`.
            batch: as for `fit`.
            void: as for `fit`.
        """
        vector_sets = [vectors] if isinstance(vectors, ConceptVectors) else list(vectors)
        scores: dict[str, list[Tensor]] = {}
        for batch_images, mask, label, unclear in self._batches(images, masks, concepts, batch, void):
            check_label(label, len(batch_images), name="concepts", num_classes=len(vector_sets[0].names))
            target = self.shrink(mask).to(batch_images.device)
            unknown = None if unclear is None else self.shrink(unclear).to(batch_images.device)
            for layer, maps in self.reader(batch_images).items():
                small = mask.mean((1, 2, 3)).to(batch_images.device) * maps.shape[2] * maps.shape[3] < 1
                of_each = []
                for vector_set in vector_sets:
                    rows = vector_set.vectors[layer][label.cpu()].to(maps.device)
                    values = concept_iou(rows, maps, target, unknown)
                    of_each.append(values.masked_fill(small | rows.isnan().any(1), float("nan")).cpu())
                scores.setdefault(layer, []).append(torch.stack(of_each))
        joined = {layer: torch.cat(parts, 1) for layer, parts in scores.items()}
        return {k: v[0] for k, v in joined.items()} if isinstance(vectors, ConceptVectors) else joined

    def shrink(self, masks: Tensor) -> Tensor:
        """Masks (B, 1, H, W) at the size of comparison: (B, size, size) bool, 1 where at least half is covered."""
        size = self.settings.size
        return (F.interpolate(masks.float(), size=(size, size), mode="area") >= 0.5)[:, 0].cpu()

    def _fit(self, store: ActivationStore, targets: _ComparisonMasks, group: Tensor, groups: int) -> Tensor:
        """Vectors (groups, C), NaN for empty groups. Samples of group -1 are left out."""
        settings = self.settings
        vectors = torch.full((groups, store.shape[1]), float("nan"), dtype=torch.float32)  # as the store's maps
        for in_chunk in _group_chunks(torch.bincount(group[group >= 0], minlength=groups), settings.chunk):
            rows = torch.isin(group, in_chunk).nonzero().flatten()
            rows = rows[group[rows].argsort(stable=True)]
            position_in_chunk = torch.searchsorted(in_chunk, group[rows])
            view = _Rows(store, rows.tolist())
            vectors[in_chunk] = fit_concepts(
                view,
                targets.masks[rows],
                void=None if targets.void is None else targets.void[rows],
                group=position_in_chunk,
                num_groups=len(in_chunk),
                epochs=settings.epochs,
                lr=settings.lr,
                chunk=settings.chunk,
            )
        return vectors

    def _batches(
        self,
        images: Any,
        masks: Tensor | None,
        concepts: Tensor | None,
        batch: BatchSpec | None,
        void: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """(images, masks (B, 1, H, W) float, concepts, void) on the model's device, images in its precision."""
        if isinstance(images, Tensor):
            if masks is None or concepts is None:
                raise TypeError("masks, concepts: expected both with a tensor of images, got None")
            check_mask(masks, images, name="masks")
            check_label(concepts, len(images), name="concepts")
            step = self.settings.batch_size
            slices = [slice(start, start + step) for start in range(0, len(images), step)]
            voids = [None if void is None else void[part] for part in slices]
            parts: Iterable[Any] = (
                {"image": images[part], "label": concepts[part], "mask": masks[part], "void": batch_void}
                for part, batch_void in zip(slices, voids, strict=True)
            )
            spec = BatchSpec(image="image", label="label", mask="mask")
        else:
            parts, spec = images, batch or BatchSpec()
        dtype = dtype_of(self.reader.model, None)
        for part in parts:
            image, mask, label = spec.image_of(part), spec.mask_of(part), spec.label_of(part)
            check_mask(mask, image, name="masks")
            check_label(label, len(image), name="concepts")
            device = device_of(self.reader.model, image.device)
            unknown, cover = spec.void_of(part), check_mask(mask.to(device), name="masks", values=False).float()
            if unknown is not None:
                unknown = check_mask(unknown, image, name="void").float().to(device)
                cover = torch.minimum(cover, 1 - unknown)
            yield image.to(device, dtype), cover, label, unknown


class _ComparisonMasks(NamedTuple):
    """Masks at the size of comparison, and where pixels are neither object nor background: (N, size, size) bool."""

    masks: Tensor
    void: Tensor | None


class _Rows:
    """Some samples of a store, in an order, as `fit_concepts` takes them."""

    def __init__(self, store: ActivationStore, rows: list[int]) -> None:
        self.store, self.rows = store, rows
        self.shape = torch.Size((len(rows), *store.shape[1:]))

    def __getitem__(self, index: slice) -> Tensor:
        return self.store[self.rows[index]]


def _group_chunks(counts: Tensor, chunk: int) -> Iterator[Tensor]:
    """Numbers of the groups that are fitted together: at most ``chunk`` samples, or one larger group."""
    together: list[int] = []
    buffered = 0
    for group, count in enumerate(counts.tolist()):
        if not count:
            continue
        if together and buffered + count > chunk:
            yield torch.tensor(together)
            together, buffered = [], 0
        together.append(group)
        buffered += count
    if together:
        yield torch.tensor(together)
