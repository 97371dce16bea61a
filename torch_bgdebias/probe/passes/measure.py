"""One model on batches: backgrounds gathered, variants made, predictions and embeddings noted image by image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_finite, check_image, check_label, check_mask, check_option, describe
from torch_bgdebias.compositing import FOREGROUND_THRESHOLD, paste
from torch_bgdebias.data.variants import VARIANTS, make_variant
from torch_bgdebias.metrics.functional import cosine_similarity
from torch_bgdebias.metrics.pixel_ratio import pixel_ratio
from torch_bgdebias.models import LayerTap, LogitsKey, find_head, get_layer, logits_of, tap
from torch_bgdebias.probe.passes.attributions import Attribution, run_attribution
from torch_bgdebias.probe.passes.examples import ExampleKeeper
from torch_bgdebias.probe.passes.gathering import MIXED, BackgroundPool, Gatherer
from torch_bgdebias.probe.passes.loading import fingerprints
from torch_bgdebias.probe.results.measurement import ImageResults

__all__ = ["Evaluation", "ImageScore", "Made", "merge", "ratio_of"]

#: a further score per image: (model, image, mask, label) -> (B,) float, NaN where it is undefined
ImageScore: TypeAlias = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class Made(NamedTuple):
    """A variant of a batch: images (B, C, H, W), classes of the backgrounds (B,) or -1, and which are there (B,)."""

    image: Tensor
    background_label: Tensor
    valid: Tensor


class Evaluation:
    """One model, one set of variants: gathers backgrounds from batches, and results from batches and backgrounds.

    The steps of :func:`evaluate_background_bias`, apart, for those who bring the batches themselves (a callback on
    several processes). Arguments as there. Call the methods under ``eval_mode`` and ``no_grad``.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: BatchSpec,
        variants: Sequence[str],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        forward: Callable[[nn.Module, Tensor], Any] | None = None,
        logits: LogitsKey = None,
        layer: str | None = None,
        embeddings: bool = True,
        scores: Mapping[str, ImageScore] | None = None,
        attributions: Mapping[str, Attribution] | None = None,
        explain: str = "predicted",
        ready: int | str | None = None,
        num_classes: int | None = None,
        examples: int = 0,
    ) -> None:
        for variant in variants:
            check_option(variant, VARIANTS, name="variants")
        if spec.mask is None:
            raise ValueError("mask: expected foreground masks in every batch; pass BatchSpec(mask=...) saying where")
        if seed < 0:
            raise ValueError(f"seed: expected a number of at least 0, got {seed}")
        if (mean is None) != (std is None):
            raise ValueError(f"mean, std: expected both or none, got only {'mean' if std is None else 'std'}")
        check_option(explain, ("predicted", "label"), name="explain")
        self.model, self.spec, self.seed, self.ready = model, spec, seed, ready
        self.variants = tuple(dict.fromkeys(variants))
        self.mixed = [v for v in self.variants if v in MIXED]
        self.mean, self.std = mean, std
        self.device = _device(model, device)
        self.scores, self.attributions, self.explain = dict(scores or {}), dict(attributions or {}), explain
        if twice := [name for name in self.attributions if ratio_of(name) in self.scores]:
            raise ValueError(f"scores: {ratio_of(twice[0])!r} is what attributions measure; give it one name only")
        self.num_classes = num_classes
        self.examples = ExampleKeeper(examples, mean, std)
        self._forward, self._logits = forward, logits
        #: why feature consistency cannot be measured, for whoever wants to tell
        self.no_embedding = ""
        self._layer: str | None = None
        if embeddings and self.mixed:
            self._layer, self.no_embedding = _embedding_layer(model, layer, num_classes)
        self.without_foreground = 0

    def gather(self, share: Iterable[Any], max_backgrounds: int) -> Gatherer:
        """First pass: the backgrounds of the images themselves."""
        gatherer = Gatherer(max_backgrounds, self.seed)
        for number, (_, counted, batch) in enumerate(share):
            image, label, mask = self._read(batch, number)
            gatherer.add_batch(fingerprints(image[counted]), image[counted], label[counted], mask[counted])
        return gatherer

    def collect(self, share: Iterable[Any], pool: BackgroundPool | None) -> ImageResults | None:
        """Second pass: what the model says about every image in every variant; ``None`` when there was no image."""
        self.without_foreground = 0
        parts: list[ImageResults] = []
        with ExitStack() as stack:
            seen = None if self._layer is None else stack.enter_context(tap(self.model, [self._layer]))
            for number, (places, counted, batch) in enumerate(share):
                image, label, mask = (x[counted] for x in self._read(batch, number))
                if len(image):
                    made = self._ready_of(batch, counted, image, number)
                    parts.append(self._one_batch(image, label, mask, places[counted], pool, made, seen, number))
        return merge(parts) if parts else None

    def counts(self, images: ImageResults, pool: BackgroundPool | None) -> dict[str, int]:
        """What was there and what was left out, for the report."""
        counts = {"backgrounds": 0 if pool is None else len(pool), "without_foreground": self.without_foreground}
        if pool is None:
            del counts["backgrounds"]
        for name in self.mixed:
            missing = int((~images.valid(name)).sum()) - (0 if self.ready is not None else self.without_foreground)
            if missing:
                counts[f"without_partner_{name}"] = missing
        return counts

    def settings(self) -> dict[str, Any]:
        """How it was measured, for the report."""
        return {
            "variants": list(self.variants),
            "seed": self.seed,
            "embedding_layer": self._layer,
            "mean": None if self.mean is None else [float(x) for x in self.mean],
            "std": None if self.std is None else [float(x) for x in self.std],
            "device": str(self.device),
            "batch": dataclasses.asdict(self.spec),
            "scores": list(self.scores),
            "attributions": list(self.attributions),
            "explained_class": self.explain if self.attributions else None,
            "variants_are": "as given" if self.ready is not None else "made here",
        }

    def class_names(self, given: Sequence[str] | None, loader: Any) -> list[str]:
        """Names of the model's K classes."""
        count = self.num_classes or 0
        names = given
        if names is None:
            found = getattr(getattr(loader, "dataset", None), "classes", None)
            names = found if isinstance(found, (list, tuple)) and len(found) == count else None
        elif len(names) != count:
            raise ValueError(f"class_names: expected {count} names, one per output of the model, got {len(names)}")
        return [str(i) for i in range(count)] if names is None else [str(x) for x in names]

    def _read(self, batch: Any, number: int) -> tuple[Tensor, Tensor, Tensor]:
        image = check_image(self.spec.image_of(batch).to(self.device))
        mask = check_mask(self.spec.mask_of(batch).to(self.device), image)
        label = check_label(self.spec.label_of(batch).to(self.device), len(image))
        if len(label) and int(label.min()) < 0:
            raise ValueError(f"label: expected classes of at least 0, got {int(label.min())} in batch {number}")
        return image, label, mask

    def _ready_of(self, batch: Any, counted: NDArray[np.bool_], image: Tensor, number: int) -> dict[str, Made] | None:
        """The variants that the batch brings along; ``None`` where they are to be made."""
        if self.ready is None:
            return None
        held = batch[self.ready]
        if not isinstance(held, Mapping) or (lacking := [name for name in self.variants if name not in held]):
            got = f"without {', '.join(lacking)}" if isinstance(held, Mapping) else describe(held)
            raise KeyError(f"ready: expected a dict of variants at {self.ready!r} of batch {number}, got {got}")
        return {name: _made_of(name, held[name], counted, image) for name in self.variants}

    def _one_batch(
        self,
        image: Tensor,
        label: Tensor,
        mask: Tensor,
        places: NDArray[np.int64],
        pool: BackgroundPool | None,
        ready: dict[str, Made] | None,
        seen: LayerTap | None,
        number: int,
    ) -> ImageResults:
        ids = fingerprints(image)
        original, embedding = self._run(image, seen, "original", number)
        self._check_classes(label, original, number)
        result = ImageResults(ids, label.cpu().numpy(), {}, {}, position=places)
        everywhere = torch.ones(len(image), dtype=torch.bool, device=image.device)
        _note(result, "original", original, everywhere)
        foreground = (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)
        self.without_foreground += int((~foreground).sum())
        made_images = {"original": image}
        for name in self.variants:
            if ready is not None:
                made, background_label, valid = ready[name]
            elif name in MIXED:
                made, background_label, valid = self._mixed(name, image, label, mask, ids, pool)
            else:
                made, background_label, valid = make_variant(image, mask, label, name, mean=self.mean, std=self.std)
            if name in MIXED:
                result.background_label[name] = torch.where(valid, background_label, -1).cpu().numpy()
            output, moved = self._run(made, seen, name, number)
            _note(result, name, output, valid)
            if name in MIXED and embedding is not None and moved is not None:
                cosine = cosine_similarity(embedding, moved).float()
                result.cosine[name] = torch.where(valid, cosine, math.nan).cpu().numpy()
            if self.examples.size:
                made_images[name] = made
        for name, score in self.scores.items():
            result.scores[name] = self._score(name, score, image, mask, label)
        target = label if self.explain == "label" else original.argmax(1).to(label.device)
        heatmaps = {}
        for name, attribution in self.attributions.items():
            heatmaps[name] = run_attribution(name, attribution, self.model, image, target)
            result.scores[ratio_of(name)] = _finite(pixel_ratio(heatmaps[name], mask))
        self.examples.add(result, made_images, heatmaps, mask)
        return result

    def _mixed(
        self,
        name: str,
        image: Tensor,
        label: Tensor,
        mask: Tensor,
        ids: NDArray[np.uint64],
        pool: BackgroundPool | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert pool is not None, "mixed variants have a pool"
        count = self.num_classes or 0
        rows = pool.choose(name, ids, label.tolist(), num_classes=count, seed=self.seed)
        foreground = (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)
        valid = torch.from_numpy(rows >= 0).to(image.device) & foreground
        if not len(pool):
            return image, torch.full_like(label, -1), valid
        background_label = torch.from_numpy(pool.labels[np.maximum(rows, 0)]).to(image.device)
        made = paste(image, mask, pool.take(rows, image))
        return torch.where(valid[:, None, None, None], made, image), background_label, valid

    def _run(self, image: Tensor, seen: LayerTap | None, variant: str, number: int) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K) float32 and embeddings (B, D) or None."""
        output = self.model(image) if self._forward is None else self._forward(self.model, image)
        found = logits_of(output, self._logits)
        if found.ndim != 2 or len(found) != len(image) or found.shape[1] < 2:
            hint = "pass logits= to say where logits of at least two classes are"
            raise ValueError(f"model output: expected logits ({len(image)}, K), K > 1, got {describe(found)}; {hint}")
        found = check_finite(found.float().cpu(), name=f"logits ({variant}, batch {number})")
        if seen is None or self._layer is None:
            return found, None
        calls = seen.inputs[self._layer]
        embedding = calls[-1] if calls else None
        for kept in (*seen.inputs.values(), *seen.outputs.values()):
            kept.clear()
        if not isinstance(embedding, Tensor) or embedding.ndim < 2 or len(embedding) != len(image):
            kind = "nothing" if embedding is None else describe(embedding)
            raise ValueError(f"layer {self._layer!r}: expected one embedding an image as its input, got {kind}")
        return found, embedding.flatten(1)

    def _check_classes(self, label: Tensor, logits: Tensor, number: int) -> None:
        count = logits.shape[1]
        if self.num_classes is None:
            self.num_classes = count
        if count != self.num_classes:
            raise ValueError(f"num_classes: expected {self.num_classes} outputs of the model, got {count}")
        largest = int(label.max())
        if largest >= count:
            raise ValueError(
                f"label: expected classes in [0, {count - 1}], the model's outputs, got {largest} in batch {number}"
            )

    def _score(self, name: str, score: ImageScore, image: Tensor, mask: Tensor, label: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(False), torch.no_grad():  # a score may take gradients: give it ordinary tensors
            values = score(self.model, image.clone(), mask.clone(), label.clone())
        if not isinstance(values, Tensor) or values.shape != (len(image),):
            raise ValueError(f"scores[{name!r}]: expected one number an image ({len(image)},), got {describe(values)}")
        return _finite(values)


def merge(parts: Sequence[ImageResults]) -> ImageResults:
    """Results of several batches or processes as one, sorted by fingerprint (then label and position)."""
    id, label = np.concatenate([p.id for p in parts]), np.concatenate([p.label for p in parts])
    position = np.concatenate([p.position for p in parts if p.position is not None])
    order = np.lexsort((position, label, id))

    def columns(name: str) -> dict[str, NDArray[Any]]:
        first = getattr(parts[0], name)
        return {key: np.concatenate([getattr(p, name)[key] for p in parts])[order] for key in first}

    names = ("prediction", "confidence", "cosine", "background_label", "scores")
    return ImageResults(id[order], label[order], **{n: columns(n) for n in names}, position=position[order])


def ratio_of(attribution: str) -> str:
    """What the pixel ratio of an attribution is called."""
    return f"pixel_ratio/{attribution}"


def _finite(values: Tensor) -> NDArray[np.float32]:
    numbers = values.detach().float().cpu().numpy()
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def _made_of(name: str, given: Any, counted: NDArray[np.bool_], image: Tensor) -> Made:
    """One variant from a batch: images (B, C, H, W), alone or with background classes (B,) and which are there (B,)."""
    picture, *rest = given if isinstance(given, (tuple, list)) else (given,)
    check_image(picture, name=f"ready[{name!r}]")
    made = picture.to(image.device)[counted]
    if made.shape != image.shape:
        raise ValueError(f"ready[{name!r}]: expected images {tuple(image.shape)}, got {describe(made)}")
    everywhere = torch.ones(len(image), dtype=torch.bool, device=image.device)
    unknown = torch.full((len(image),), -1, device=image.device)
    label = rest[0].to(image.device)[counted] if rest else unknown
    return Made(made.to(image.dtype), label, rest[1].to(image.device)[counted] if len(rest) > 1 else everywhere)


def _note(result: ImageResults, name: str, logits: Tensor, valid: Tensor) -> None:
    confidence, prediction = logits.softmax(1).max(1)
    kept = valid.cpu()
    result.prediction[name] = torch.where(kept, prediction, -1).numpy()
    result.confidence[name] = torch.where(kept, confidence, math.nan).numpy()


def _device(model: nn.Module, wanted: torch.device | str | None) -> torch.device:
    first = next((x.device for x in (*model.parameters(), *model.buffers())), None)
    if wanted is None:
        return first or torch.device("cpu")
    device = torch.device(wanted)
    if first is not None and (first.type != device.type or (device.index is not None and first.index != device.index)):
        raise ValueError(
            f"device: expected where the model is ({first}), got {device}; call model.to({str(device)!r}) first"
        )
    return device if first is None else first


def _embedding_layer(model: nn.Module, layer: str | None, num_classes: int | None) -> tuple[str | None, str]:
    """The layer whose input is the embedding, or why there is none."""
    if layer is not None:
        get_layer(model, layer)
        return layer, ""
    try:
        return find_head(model, num_classes=num_classes)[0], ""
    except LookupError as error:
        return None, f"feature consistency is left out, pass layer= to have it: {error}"
