"""The experiment of arXiv 2504.08602: vectors fitted on some backgrounds, tested on the original and on others.

Images are the caller's: a background condition is a tensor of the same images on other backgrounds, or a function that
makes them, ``(images, masks) -> images`` (a paste, a Voronoi fill, a generator).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.checks import check_image, check_label, check_mask, check_share
from torch_bgdebias.compositing import object_share
from torch_bgdebias.concepts.probe import METHODS, ConceptProbe, ConceptVectors, Method
from torch_bgdebias.records import Record, fields_of, parse_json
from torch_bgdebias.writing import write_text

__all__ = ["ORIGINAL", "ConceptSamples", "ConceptTransfer", "Variant", "concept_transfer"]

#: name of the images' own backgrounds, among the conditions of training and of testing
ORIGINAL = "original"
Variant: TypeAlias = "Tensor | Callable[[Tensor, Tensor], Tensor]"
Floats: TypeAlias = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ConceptSamples:
    """Images (N, C, H, W) in the model's units, masks (N, 1, H, W) in [0, 1], concepts (N,) int64; void, if any.

    ``void`` (N, 1, H, W) marks pixels that are neither object nor background: fit and IoU leave them out.
    """

    images: Tensor
    masks: Tensor
    concepts: Tensor
    void: Tensor | None = None

    def __post_init__(self) -> None:
        check_image(self.images, name="images")
        check_mask(self.masks, self.images, name="masks")
        check_label(self.concepts, len(self.images), name="concepts")
        if self.void is not None:
            check_mask(self.void, self.images, name="void")

    def covering(self, least: float = 0.04, most: float = 0.64) -> ConceptSamples:
        """The samples whose concept covers between ``least`` and ``most`` of the picture, as arXiv 2504.08602 has it.

        Raises:
            ValueError: shares outside [0, 1] or not in order, or no such sample.
        """
        if not check_share(least, name="least") <= check_share(most, name="most"):
            raise ValueError(f"least, most: expected the smaller share first, got {least} and {most}")
        share = object_share(self.masks, self.void)
        rows = (share >= least) & (share <= most)
        if not bool(rows.any()):
            raise ValueError(f"least, most: no concept covers {100 * least:g} to {100 * most:g} % of its picture")
        void = None if self.void is None else self.void[rows]
        return ConceptSamples(self.images[rows], self.masks[rows], self.concepts[rows], void)

    def on(self, variant: Variant, *, name: str) -> Tensor:
        """The images on other backgrounds. Raises a ValueError that names the variant if it changes their shape."""
        images = variant if isinstance(variant, Tensor) else variant(self.images, self.masks)
        if images.shape != self.images.shape:
            raise ValueError(f"{name}: expected images of shape {tuple(self.images.shape)}, got {tuple(images.shape)}")
        return images


@dataclasses.dataclass(frozen=True)
class ConceptTransfer:
    """IoU of every vector on every test image and background, and the vectors.

    Attributes:
        concepts: names, G.
        layers: names, L.
        methods: of ``"net2vec"``, ``"loce"`` (globalised), M.
        conditions: backgrounds that vectors were fitted on, T; ``"original"`` first.
        categories: backgrounds that they were tested on, K; ``"original"`` first.
        labels: (N,) concept of each test image.
        iou: (L, M, T, N, K); NaN where a mask is smaller than one activation pixel.
        vectors: layer -> (M, T, G, C).
        too_small: layer -> training images left out of the fit, by position.
    """

    concepts: tuple[str, ...]
    layers: tuple[str, ...]
    methods: tuple[str, ...]
    conditions: tuple[str, ...]
    categories: tuple[str, ...]
    labels: NDArray[np.int64]
    iou: Floats
    vectors: dict[str, Floats]
    too_small: dict[str, list[int]]

    def values(self, layer: str, method: str = "net2vec", condition: str = ORIGINAL) -> Floats:
        """IoU (N, K) of each test image on each background. Raises ValueError for an unknown name."""
        at = [
            _index_of(names, name, what)
            for names, name, what in (
                (self.layers, layer, "layer"),
                (self.methods, method, "method"),
                (self.conditions, condition, "condition"),
            )
        ]
        iou: Floats = self.iou[at[0], at[1], at[2]]
        return iou

    def table(self, layer: str, method: str = "net2vec", condition: str = ORIGINAL) -> Floats:
        """Mean IoU (G, K) of each concept on each background; NaN where no image has one."""
        values = self.values(layer, method, condition)
        return np.stack([_nan_mean(values[self.labels == g]) for g in range(len(self.concepts))])

    def relative_drop(self, layer: str, method: str = "net2vec", condition: str = ORIGINAL) -> Floats:
        """1 - IoU / IoU on original backgrounds (G, K): 0.1 is a tenth lost; NaN where the original's is 0."""
        table = self.table(layer, method, condition)
        original = np.where(table[:, :1] > 0, table[:, :1], np.nan)
        drop: Floats = 1 - table / original
        return drop

    def cosine_similarity(self, layer: str, method: str = "net2vec") -> Floats:
        """Cosine (G, T, T) between a concept's vectors fitted on different backgrounds."""
        vectors = self.vectors[layer][_index_of(self.methods, method, "method")]
        with np.errstate(invalid="ignore"):
            unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        cosines: Floats = np.einsum("tgc,sgc->gts", unit, unit)
        return cosines

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; NaN as None."""
        data = fields_of(self)
        return {name: _plain(value) for name, value in data.items()}

    def to_json(self, path: str | Path) -> None:
        """Write everything, per-image values and vectors included."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConceptTransfer:
        """The inverse of `to_dict`.

        Raises:
            KeyError: a field is missing.
            ValueError: a field is of another kind.
        """
        fields = Record(data)
        names = {k: tuple(fields.texts(k)) for k in ("concepts", "layers", "methods", "conditions", "categories")}
        vectors, too_small = fields.record("vectors"), fields.record("too_small")
        return cls(
            **names,
            labels=fields.array("labels", np.int64),
            iou=fields.nested("iou", dimensions=5),
            vectors={name: vectors.nested(name, dimensions=4) for name in vectors},
            too_small={name: too_small.array(name, np.int64).tolist() for name in too_small},
        )

    @classmethod
    def from_json(cls, path: str | Path) -> ConceptTransfer:
        """Read what `to_json` wrote.

        Raises:
            OSError: it cannot be read.
            ValueError: not JSON, or a field is missing or of another kind; the message names file and field.
        """
        try:
            return cls.from_dict(parse_json(path))
        except KeyError as error:
            raise ValueError(f"{path}: a field is missing: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def concept_transfer(
    probe: ConceptProbe,
    train: ConceptSamples,
    test: ConceptSamples,
    *,
    conditions: Mapping[str, Variant | Sequence[Variant]] | None = None,
    categories: Mapping[str, Variant] | None = None,
    names: Sequence[str] | None = None,
    methods: Sequence[Method] = METHODS,
) -> ConceptTransfer:
    """Fit vectors on original and other backgrounds; test each on the originals and on every background category.

    Args:
        probe: the model, its layers and the settings of the fit.
        train: images that vectors are fitted on.
        test: other images that they are tested on.
        conditions: name -> backgrounds of training: the training images on them, or a function that makes them; a list
            for more than one background an image. Original backgrounds always come first.
        categories: name -> backgrounds of testing, the same way. Original backgrounds always come first.
        names: of the concepts; ``None``: their numbers.
        methods: which vectors.

    Raises:
        ValueError: a concept without training images, a condition called "original", other shapes than the images'.

    Source: arXiv 2504.08602, sections 3 and 4.
    """
    conditions, categories = dict(conditions or {}), dict(categories or {})
    for option, names_given in (("conditions", conditions.keys()), ("categories", categories.keys())):
        if ORIGINAL in names_given:
            raise ValueError(f"{option}: {ORIGINAL!r} is always there and cannot be given")
    fits: dict[str, list[ConceptVectors]] = {}
    trained_on: list[tuple[str, Variant | Sequence[Variant]]] = [(ORIGINAL, train.images), *conditions.items()]
    for condition, backgrounds in trained_on:
        variants: list[Variant] = (
            [backgrounds] if isinstance(backgrounds, Tensor) or callable(backgrounds) else list(backgrounds)
        )
        if not variants:
            raise ValueError(f"conditions[{condition!r}]: expected at least one background an image, got none")
        images = torch.cat([train.on(v, name=f"conditions[{condition!r}]") for v in variants])
        masks, labels = (_repeated(x, len(variants)) for x in (train.masks, train.concepts))
        void = None if train.void is None else _repeated(train.void, len(variants))
        fits[condition] = [probe.fit(images, masks, labels, names=names, method=m, void=void) for m in methods]
    ordered = [fits[t][m] for m in range(len(methods)) for t in fits]
    columns = []
    for category, variant in [(ORIGINAL, test.images), *categories.items()]:
        images = test.on(variant, name=f"categories[{category!r}]")
        iou = probe.iou(ordered, images, test.masks, test.concepts, void=test.void)
        columns.append(torch.stack([iou[layer] for layer in probe.layers or ()]))  # (L, M * T, N)
    layers, first = tuple(probe.layers or ()), ordered[0]
    shape = (len(layers), len(methods), len(fits), len(test.images), len(columns))
    return ConceptTransfer(
        concepts=first.names,
        layers=layers,
        methods=tuple(methods),
        conditions=tuple(fits),
        categories=(ORIGINAL, *categories),
        labels=test.concepts.cpu().numpy(),
        iou=torch.stack(columns, -1).reshape(shape).double().numpy(),
        vectors={
            layer: torch.stack([torch.stack([fits[t][m].vectors[layer] for t in fits]) for m in range(len(methods))])
            .double()
            .numpy()
            for layer in layers
        },
        too_small=first.too_small,
    )


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat(times, *[1] * (values.ndim - 1))


def _nan_mean(values: Floats) -> Floats:
    is_known = ~np.isnan(values)
    count = is_known.sum(0)
    total = np.where(is_known, values, 0.0).sum(0)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _index_of(names: Sequence[str], name: str, what: str) -> int:
    if name not in names:
        raise ValueError(f"{what}: expected one of {', '.join(names)}, got {name!r}")
    return list(names).index(name)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            return value.tolist()
        return np.where(np.isnan(value), None, value).tolist()  # type: ignore[call-overload]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value)
