"""``mask_sensitivity``: repeats a measurement with damaged masks, to see how good masks must be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec, value_at
from torch_bgdebias.checks import check_count, check_image, check_mask
from torch_bgdebias.compositing import fills_image, tile_fill, without_void
from torch_bgdebias.masks.damage import Damage, Made, default_damages, overlap
from torch_bgdebias.metrics.adversarial import adversarial_background_accuracy
from torch_bgdebias.models import LogitsKey
from torch_bgdebias.probe.evaluation import evaluate_background_bias
from torch_bgdebias.probe.passes.identity import fingerprints
from torch_bgdebias.probe.passes.loading import rng_untouched
from torch_bgdebias.probe.passes.settings import EvaluationSettings, ImageScore
from torch_bgdebias.probe.report import BackgroundBiasReport
from torch_bgdebias.probe.results.comparison import compare_models
from torch_bgdebias.probe.results.sensitivity import MaskRow, MaskSensitivity
from torch_bgdebias.probe.results.spelling import interval_of

__all__ = ["mask_sensitivity"]

_SPEC = BatchSpec(image="image", label="label", mask="mask")
_VARIANTS = ("mixed_same", "mixed_rand")


def mask_sensitivity(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    settings: EvaluationSettings | None = None,
    damages: Sequence[Damage] | None = None,
    adversarial: int = 0,
    quality: float | None = None,
    device: torch.device | str | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> MaskSensitivity:
    """Repeat the BG-Gap measurement with masks grown, shrunk, shifted, boxed or exchanged, or from another maker.

    Images, backgrounds and draws stay what they were, so what moves is the masks' doing: what is cut out, and what of
    the objects stays in the backgrounds. Each way of being wrong is one measurement of three passes.

    Args:
        model: as in `evaluate_background_bias`.
        loader: the same, with masks that pass for right; it yields the same images each time.
        settings: how it is measured; attributions add their pixel ratios. Variants, examples, groups and units of it
            are not used.
        damages: ways of being wrong (`torch_bgdebias.masks.damage`); by default thirteen of five kinds.
        adversarial: also try every object on so many of the loader's backgrounds; 0: not.
        quality: how far the masks that are meant overlap with right ones on average (``bgdebias masks --compare``).
        device: where to evaluate.
        progress: ``progress(damages, total=..., label=...)`` wraps the measurements.

    Raises:
        KeyError, TypeError, ValueError: as `evaluate_background_bias`; published variants, which have no masks.
    """
    options = EvaluationSettings() if settings is None else settings
    if options.ready is not None:
        raise ValueError("ready: expected variants that are made here, got published ones, which no mask changes")
    if options.spec.label is None or options.task != "multiclass":
        raise ValueError("mask_sensitivity: expected one class an image, which the BG-Gap needs")
    check_count(adversarial, name="adversarial", least=0)
    damaged_settings = dataclasses.replace(
        options, spec=_SPEC, ids="id", variants=_VARIANTS, embeddings=False, examples=0, groups=None, unit=None
    )
    tried: list[Damage | None] = [None, *(default_damages() if damages is None else damages)]
    walk = tried if progress is None else progress(tried, total=len(tried), label="masks")
    rows: list[MaskRow] = []
    first: BackgroundBiasReport | None = None
    for damage in walk:
        damaged = _DamagedLoader(loader, options, damage)
        report = _measure(model, damaged, damaged_settings, adversarial, device)
        name = "as given" if damage is None else damage.name
        overlaps = torch.cat(damaged.overlaps)
        chance = _half_interval_of_change(first, report)
        rows.append(MaskRow(name, float(overlaps.mean()), len(report.images), _figures(report), chance))
        first = report if first is None else first
    return MaskSensitivity(tuple(rows), quality=quality)


def _half_interval_of_change(first: BackgroundBiasReport | None, report: BackgroundBiasReport) -> float:
    """Half of the paired interval of the gap's change."""
    comparison = None if first is None else compare_models([first, report])[0]
    change = None if comparison is None else comparison.figures.get("bg_gap")
    ends = None if change is None else interval_of(change.difference)
    return math.nan if ends is None else (ends[1] - ends[0]) / 2


def _measure(
    model: nn.Module,
    damaged: _DamagedLoader,
    settings: EvaluationSettings,
    adversarial: int,
    device: torch.device | str | None,
) -> BackgroundBiasReport:
    if adversarial:
        score = _adversarial_score(damaged.backgrounds(adversarial), settings.logits)
        settings = dataclasses.replace(settings, scores={**settings.scores, "adversarial_accuracy": score})
    return evaluate_background_bias(model, damaged, settings=settings, device=device)


def _figures(report: BackgroundBiasReport) -> dict[str, float]:
    gap = report.bg_gap
    figures = {"bg_gap": math.nan if gap is None else gap.value}
    figures |= {name: score.mean.value for name, score in report.scores.items()}
    return figures


class _DamagedLoader:
    """A loader's batches with other masks, and the names by which images are known with the ones they had."""

    def __init__(self, loader: Iterable[Any], settings: EvaluationSettings, damage: Damage | None) -> None:
        self.loader, self.settings, self.damage = loader, settings, damage
        #: of the last pass, (B,) a batch
        self.overlaps: list[Tensor] = []
        self._made: dict[Any, Tensor] = {}  # makers take long, and a measurement has several passes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        settings, self.overlaps = self.settings, []
        generator = torch.Generator().manual_seed(settings.seed)
        for batch in self.loader:
            image, label = settings.spec.image_of(batch), settings.spec.label_of(batch)
            original = check_mask(settings.spec.mask_of(batch), check_image(image)).cpu()
            names = self._identities(batch, image, label, original)
            mask = original
            if self.damage is not None:
                mask = self._damaged_mask(self.damage, image, original, names, generator)
            self.overlaps.append(overlap(mask, original))
            damaged_batch: dict[str, Any] = {"image": image, "label": label, "mask": mask.to(image.device)}
            if (void := settings.spec.void_of(batch)) is not None:
                damaged_batch["void"] = void
            damaged_batch["id"] = names
            yield damaged_batch

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # asked of loaders that have a length alone

    def _damaged_mask(
        self, damage: Damage, image: Tensor, original: Tensor, names: Any, generator: torch.Generator
    ) -> Tensor:
        keys = list(names) if isinstance(names, (list, tuple)) else names.tolist()
        if isinstance(damage, Made) and all(key in self._made for key in keys):
            return torch.stack([self._made[key] for key in keys]).to(original.dtype) / 255
        mask = check_mask(damage(self._as_pictures(image), original, generator), original, name=damage.name)
        if isinstance(damage, Made):
            self._made |= zip(keys, mask.mul(255).round().byte(), strict=True)
            mask = mask.mul(255).round() / 255
        return mask

    def _as_pictures(self, image: Tensor) -> Tensor:
        """Images as pictures in [0, 1], for mask makers."""
        pixels = image.detach().float().cpu()
        if self.settings.mean is not None and self.settings.std is not None:
            mean, std = (torch.tensor(x).reshape(-1, 1, 1) for x in (self.settings.mean, self.settings.std))
            pixels = pixels * std + mean
        pixels = pixels.clamp(0, 1)
        return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels

    def _identities(self, batch: Any, image: Tensor, label: Tensor, mask: Tensor) -> Any:
        if isinstance(self.settings.ids, int | str):
            return value_at(batch, self.settings.ids, name="ids")
        numbers = label.argmax(1) if label.ndim > 1 else label
        return fingerprints(image, numbers, mask, mean=self.settings.mean, std=self.settings.std)

    def backgrounds(self, count: int) -> Tensor:
        """At most so many of the images without their objects, as these masks have them; any with the same chance."""
        reservoir: list[Tensor] = []
        generator = torch.Generator().manual_seed(self.settings.seed)
        n_seen = 0
        with rng_untouched():
            for batch in self:
                image, mask = batch["image"].cpu(), batch["mask"].cpu()
                void = batch["void"].cpu() if "void" in batch else None
                filled = tile_fill(without_void(image, mask, void), mask)
                for picture in filled[~fills_image(mask)]:
                    n_seen += 1
                    full = len(reservoir) >= count
                    slot = int(torch.randint(n_seen, (), generator=generator)) if full else len(reservoir)
                    reservoir[slot : slot + 1] = [picture] if slot < count else reservoir[slot : slot + 1]
        if not reservoir:
            raise ValueError("adversarial: no image has a background beside its object")
        return torch.stack(reservoir)


def _adversarial_score(bank: Tensor, logits: LogitsKey) -> ImageScore:
    """1 where an object survives every background of the bank."""

    def robust(model: nn.Module, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        result = adversarial_background_accuracy(model, image, mask, label, bank, logits=logits)
        return torch.where(result.valid, result.robust.float(), torch.nan)

    return robust
