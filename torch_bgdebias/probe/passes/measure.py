"""One model on batches: gathers backgrounds, makes variants, records predictions and embeddings per image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torch_bgdebias.checks import describe
from torch_bgdebias.compositing import FOREGROUND_THRESHOLD, paste
from torch_bgdebias.data.variants import make_variant
from torch_bgdebias.metrics.functional import cosine_similarity
from torch_bgdebias.metrics.pixel_ratio import pixel_ratio
from torch_bgdebias.models import LayerTap, device_of
from torch_bgdebias.names import MIXED_VARIANTS
from torch_bgdebias.probe.passes.attributions import run_attribution
from torch_bgdebias.probe.passes.examples import ExampleKeeper
from torch_bgdebias.probe.passes.gathering import BackgroundPool, Gatherer
from torch_bgdebias.probe.passes.grouping import names_of_images
from torch_bgdebias.probe.passes.labels import codes_of_answers
from torch_bgdebias.probe.passes.outputs import log_odds_of
from torch_bgdebias.probe.passes.pictures import Twins, object_shares
from torch_bgdebias.probe.passes.reading import LabelledImages, VariantImages, read_batch, ready_variants
from torch_bgdebias.probe.passes.running import ModelRun
from torch_bgdebias.probe.passes.settings import EvaluationSettings, ImageScore, ratio_name
from torch_bgdebias.probe.results.images import ImageResults

__all__ = ["Batches", "Collected", "Evaluation", "checked_device", "joined", "merge"]

#: batches with the positions (B,) of their images and which of them count (B,)
Batches: TypeAlias = Iterable[tuple[NDArray[np.int64], NDArray[np.bool_], Any]]

#: batches whose results are laid together: many small columns among the batches' large tensors would keep the memory of
#: those from being used again (10 KB an image of a thousand classes)
_TOGETHER = 16
#: log odds beyond this are written down as this: a report holds finite numbers
_SUREST = 1e30


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a pass over images gave.

    Attributes:
        images: what the model said about each.
        num_classes: K, as many as its outputs.
        without_foreground: images whose mask is empty.
        examples: the images that a new background hurt most.
        layer: whose input was read as the embedding; ``None`` for none.
        no_embedding: why there is none although one was asked for.
        probabilities: whether the model's outputs were probabilities.
        sigmoids: whether the model takes a sigmoid of each class's logit.
        in_unit, in_per_cent: whether outputs lie in [0, 1], or in [0, 100], as `ModelRun` says.
        soft: whether labels were shares of classes, of which the largest counts.
        doubt: what in the first images speaks against their units; empty where nothing does.
        object_share: mean share of the picture that the masks call object, of images with one; NaN without any.
        object_edge_share: the same of the picture's outermost pixels.
        mask_peak: the largest value of any mask.
        fits: (N,) how well each mask's edges fit its picture's (`edge_fits`), NaN where that was not looked at.
        twins: which pictures are there more than once.
    """

    images: ImageResults
    num_classes: int
    without_foreground: int
    examples: ExampleKeeper
    layer: str | None
    no_embedding: str
    probabilities: bool
    soft: bool = False
    doubt: str = ""
    object_share: float = math.nan
    object_edge_share: float = math.nan
    sigmoids: bool = False
    in_unit: bool = False
    in_per_cent: bool = False
    mask_peak: float = math.nan
    fits: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    twins: Twins = dataclasses.field(default_factory=Twins)

    def counts(self, settings: EvaluationSettings, pool: BackgroundPool | None) -> dict[str, int]:
        """The counts of what was measured and what was left out, for the report."""
        counts = {} if pool is None else {"backgrounds": len(pool)}
        counts["without_foreground"] = self.without_foreground
        for name in settings.mixed:
            missing = int((~self.images.valid(name)).sum())
            missing -= 0 if settings.ready is not None else self.without_foreground
            if missing:
                counts[f"without_partner_{name}"] = missing
        return counts


class Evaluation:
    """A model on a device, as some settings say; the passes of `torch_bgdebias.probe.evaluate_background_bias`.

    For those who bring the batches themselves, such as a callback on several processes. Call the methods under
    ``eval_mode`` and ``no_grad``.

    Args:
        model: the model.
        settings: how it is measured.
        device: where; by default where its parameters are.

    Raises:
        ValueError: the model is on another device.
        LookupError: it has no layer of the name that the settings give.
    """

    def __init__(
        self, model: nn.Module, settings: EvaluationSettings, *, device: torch.device | str | None = None
    ) -> None:
        self.model, self.settings = model, settings
        self.device = checked_device(model, device)
        #: the model's logits and embeddings; says why there are no embeddings, if so
        self.run = ModelRun(model, settings)

    def gather(self, batches: Batches) -> Gatherer:
        """First pass: the backgrounds of the images themselves."""
        gatherer = Gatherer(self.settings.max_backgrounds, self.settings.seed)
        for number, (positions, counted, batch) in enumerate(batches):
            images = read_batch(batch, positions, counted, number, self.settings, self.device)
            gatherer.add_batch(images.ids, images.image, images.label, images.mask, images.void)
        return gatherer

    def collect(self, batches: Batches, pool: BackgroundPool | None) -> Collected | None:
        """Second pass: what the model says about every image in every variant; ``None`` when there was no image."""
        settings, run = self.settings, self.run
        keeper = ExampleKeeper(settings.examples, settings.mean, settings.std)
        parts: list[ImageResults] = []
        together: list[ImageResults] = []
        num_classes, soft = settings.num_classes, False
        shares, twins = list[NDArray[np.float64]](), list[Twins]()
        with run.watching() as layer_tap:
            for number, (positions, counted, batch) in enumerate(batches):
                images = read_batch(batch, positions, counted, number, settings, self.device)
                if not len(images.image):
                    continue
                logits, embedding = run(images.image, layer_tap, variant="original", number=number)
                num_classes = _checked_classes(images, logits, num_classes, number)
                ready = ready_variants(batch, counted, images.image, number, settings)
                current = _Batch(images, number, num_classes, positions[counted], logits, embedding)
                result = self._one_batch(current, layer_tap, pool, ready, keeper)
                parts.append(self._grouped(result, batch, positions, counted))
                if len(parts) == _TOGETHER:
                    together.append(merge(parts))
                    parts.clear()
                soft |= images.soft
                shares.append(object_shares(images.mask, images.image if number < _TOGETHER else None))
                twins.append(Twins.of(images.image, images.label, images.mask))
        if num_classes is None or not (together or parts):
            return None
        images_seen = merge([*together, *parts])
        if run.no_embedding:
            images_seen.cosine.clear()
        covered = np.concatenate(shares)
        objects = covered[covered[:, 0] > 0]
        share, edge, *_ = objects.mean(0).tolist() if len(objects) else (math.nan,) * 2
        return Collected(
            images=images_seen,
            num_classes=num_classes,
            without_foreground=len(covered) - len(objects),
            examples=keeper,
            layer=run.layer,
            no_embedding=run.no_embedding,
            probabilities=run.probabilities,
            soft=soft,
            doubt=run.doubt or "",
            object_share=share,
            object_edge_share=edge,
            sigmoids=run.sigmoids,
            in_unit=run.in_unit,
            in_per_cent=run.in_per_cent,
            mask_peak=float(covered[:, 2].max()),
            fits=covered[:, 3],
            twins=Twins.joined(twins),
        )

    def _grouped(
        self, result: ImageResults, batch: Any, positions: NDArray[np.int64], counted: NDArray[np.bool_]
    ) -> ImageResults:
        """The same with the images' groups and units."""
        for name, source in self.settings.group_sources.items():
            result.groups[name] = names_of_images(source, batch, positions, counted, name=f"groups[{name!r}]")
        if self.settings.unit is not None:
            result.unit = names_of_images(self.settings.unit, batch, positions, counted, name="unit")
        return result

    def _one_batch(
        self,
        current: _Batch,
        layer_tap: LayerTap | None,
        pool: BackgroundPool | None,
        ready: dict[str, VariantImages] | None,
        keeper: ExampleKeeper,
    ) -> ImageResults:
        run = self.run
        image, label, mask, void = current.images.image, current.images.label, current.images.mask, current.images.void
        result = ImageResults(current.images.ids, label.cpu().numpy(), {}, {}, position=current.places)
        if current.images.targets is not None:
            result.targets = current.images.targets.cpu().numpy().astype(np.uint8)
        self._record_answers(result, "original", current.logits, torch.ones(len(image), dtype=torch.bool))
        pictures = {"original": image}
        for name in self.settings.variant_names:
            picture, background_label, valid = self._variant(name, current, pool, ready)
            if name in MIXED_VARIANTS:
                result.background_label[name] = torch.where(valid, background_label, -1).cpu().numpy()
            logits, embedding = run(picture, layer_tap, variant=name, number=current.number)
            self._record_answers(result, name, logits, valid)
            if name in MIXED_VARIANTS and current.embedding is not None and embedding is not None:
                cosine = cosine_similarity(current.embedding, embedding).float()
                result.cosine[name] = torch.where(valid, cosine, math.nan).cpu().numpy()
            if self.settings.examples:
                pictures[name] = picture
        prepared = run.prepared(image)
        for name, score in self.settings.scores.items():
            result.scores[name] = self._score(name, score, prepared, mask, current.images.given_label)
        heatmaps = {}
        target = label if self.settings.explain == "label" else current.logits.argmax(1).to(label.device)
        for name, attribution in self.settings.attribution_functions.items():
            heatmaps[name] = run_attribution(name, attribution, self.model, prepared, target)
            result.scores[ratio_name(name)] = _finite(pixel_ratio(heatmaps[name], mask, void))
        keeper.add(result, pictures, heatmaps, mask)
        return result

    def _record_answers(self, result: ImageResults, name: str, logits: Tensor, valid: Tensor) -> None:
        """Write down what the model says, and how sure it is."""
        has_variant = valid.cpu()
        if self.settings.task == "multilabel":
            confidence = logits.abs().sigmoid().prod(1)
            prediction = torch.from_numpy(codes_of_answers((logits > 0).numpy()))
        else:
            confidence, prediction = logits.softmax(1).max(1)
        result.prediction[name] = torch.where(has_variant, prediction, -1).numpy()
        result.confidence[name] = torch.where(has_variant, confidence, math.nan).numpy()
        if self.settings.keeps_log_odds(logits.shape[1]):
            odds = log_odds_of(logits, self.settings.task).clamp(-_SUREST, _SUREST)
            result.log_odds[name] = torch.where(has_variant[:, None], odds, math.nan).numpy()

    def _variant(
        self, name: str, current: _Batch, pool: BackgroundPool | None, ready: dict[str, VariantImages] | None
    ) -> VariantImages:
        if ready is not None:
            return ready[name]
        image, label, mask, ids, void = current.images[:5]
        if name not in MIXED_VARIANTS:
            mean, std = self.settings.mean, self.settings.std
            variant = make_variant(image, mask, label, name, mean=mean, std=std, void=void)
            return VariantImages(*variant)
        assert pool is not None, "mixed variants have a pool"
        rows = pool.choose(name, ids, label.tolist(), num_classes=current.num_classes, seed=self.settings.seed)
        if name == "mixed_rand" and pool.only_class is not None and self.settings.spec.label is not None:
            rows = np.where(label.cpu().numpy() == pool.only_class, -1, rows)  # it would be mixed_same once more
        valid = torch.from_numpy(rows >= 0).to(image.device) & _has_foreground(mask)
        if not len(pool):
            return VariantImages(image, torch.full_like(label, -1), valid)
        numbers = pool.labels[np.maximum(rows, 0)]
        if self.settings.task != "multilabel":
            numbers = np.where(numbers < current.num_classes, numbers, -1)  # a category that is none of the classes
        background_label = torch.from_numpy(numbers).to(image.device)
        pasted = paste(image, mask, pool.take(rows, image))
        picture = torch.where(valid.view(-1, *[1] * (image.ndim - 1)), pasted, image)
        return VariantImages(picture, background_label, valid)

    def _score(self, name: str, score: ImageScore, image: Tensor, mask: Tensor, label: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(False), torch.no_grad():  # a score may take gradients: give it ordinary tensors
            values = score(self.model, image.clone(), mask.clone(), label.clone())
        if not isinstance(values, Tensor) or values.shape != (len(image),):
            raise ValueError(f"scores[{name!r}]: expected one number an image ({len(image)},), got {describe(values)}")
        return _finite(values)


@dataclasses.dataclass(frozen=True)
class _Batch:
    """A batch with what the model says about its originals."""

    images: LabelledImages
    number: int
    num_classes: int
    places: NDArray[np.int64]
    logits: Tensor
    embedding: Tensor | None


def joined(parts: Sequence[Collected | None]) -> Collected:
    """What several processes collected, as one.

    Raises:
        ValueError: none of them had an image.
    """
    nonempty = [part for part in parts if part is not None]
    if not nonempty:
        raise ValueError("loader: expected at least one batch with an image, got none")
    first = nonempty[0]
    examples = ExampleKeeper(first.examples.size, None, None)
    examples.join([part.examples for part in nonempty])
    no_embedding = next((part.no_embedding for part in nonempty if part.no_embedding), "")
    images = merge([part.images for part in nonempty])
    if no_embedding:
        images.cosine.clear()
    return Collected(
        images=images,
        num_classes=max(part.num_classes for part in nonempty),
        without_foreground=sum(part.without_foreground for part in nonempty),
        examples=examples,
        layer=None if no_embedding else first.layer,
        no_embedding=no_embedding,
        probabilities=any(part.probabilities for part in nonempty),
        soft=any(part.soft for part in nonempty),
        doubt=next((part.doubt for part in nonempty if part.doubt), ""),
        object_share=_mean_over_images(nonempty, "object_share"),
        object_edge_share=_mean_over_images(nonempty, "object_edge_share"),
        sigmoids=any(part.sigmoids for part in nonempty),
        in_unit=all(part.in_unit for part in nonempty),
        in_per_cent=all(part.in_per_cent for part in nonempty),
        mask_peak=max(part.mask_peak for part in nonempty),
        fits=np.concatenate([part.fits for part in nonempty]),
        twins=Twins.joined([part.twins for part in nonempty]),
    )


def merge(parts: Sequence[ImageResults]) -> ImageResults:
    """Results of several batches or processes as one, sorted by id (then label and position)."""
    id, label = np.concatenate([p.id for p in parts]), np.concatenate([p.label for p in parts])
    position = np.concatenate([p.position for p in parts if p.position is not None])
    order = np.lexsort((position, label, id))

    def columns(name: str) -> dict[str, NDArray[Any]]:
        tables: list[dict[str, NDArray[Any]]] = [getattr(p, name) for p in parts]
        shared = [key for key in tables[0] if all(key in table for table in tables)]
        return {key: np.concatenate([table[key] for table in tables])[order] for key in shared}

    names = ("prediction", "confidence", "cosine", "background_label", "scores", "log_odds", "groups")
    targets = [p.targets for p in parts if p.targets is not None]
    units = [p.unit for p in parts if p.unit is not None]
    return ImageResults(
        id[order],
        label[order],
        **{n: columns(n) for n in names},
        position=position[order],
        targets=np.concatenate(targets)[order] if targets else None,
        unit=np.concatenate(units)[order] if units else None,
    )


def _checked_classes(images: LabelledImages, logits: Tensor, expected: int | None, number: int) -> int:
    """K, the same in every batch."""
    count = logits.shape[1]
    if expected is not None and count != expected:
        raise ValueError(f"num_classes: expected {expected} outputs of the model, got {count}")
    if images.targets is not None:
        if images.targets.shape[1] != count:
            columns = images.targets.shape[1]
            raise ValueError(f"label: expected {count} labels an image, one an output, got {columns} in batch {number}")
        return count
    largest = int(images.label.max())
    if largest >= count:
        raise ValueError(
            f"label: expected classes in [0, {count - 1}], the model's outputs, got {largest} in batch {number}"
        )
    return count


def _has_foreground(mask: Tensor) -> Tensor:
    return (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)


def _mean_over_images(parts: Sequence[Collected], name: str) -> float:
    """The mean over all processes' images with an object."""
    weighed = [(len(part.images) - part.without_foreground, getattr(part, name)) for part in parts]
    weighed = [(count, share) for count, share in weighed if count]
    return sum(count * share for count, share in weighed) / sum(c for c, _ in weighed) if weighed else math.nan


def _finite(values: Tensor) -> NDArray[np.float32]:
    numbers = values.detach().float().cpu().numpy()
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def checked_device(model: nn.Module, asked_device: torch.device | str | None) -> torch.device:
    """Where to evaluate: where the model is.

    Raises:
        ValueError: another device was asked for.
    """
    device = None if asked_device is None else torch.device(asked_device)
    model_device = device_of(model, "cpu" if device is None else device)
    if device is not None and (
        model_device.type != device.type or (device.index is not None and model_device.index != device.index)
    ):
        raise ValueError(
            f"device: expected where the model is ({model_device}), got {device}; call model.to({str(device)!r}) first"
        )
    return model_device
