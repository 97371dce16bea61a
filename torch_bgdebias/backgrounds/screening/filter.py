"""Screens backgrounds with a classifier and decides which to remove or to forbid for some classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.folder import ImageFiles
from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.screening.classes import ClassNames
from torch_bgdebias.backgrounds.screening.seen import SeenCache, cache_folder, content_keys
from torch_bgdebias.backgrounds.screening.viewer import Classifier, Viewer
from torch_bgdebias.checks import check_count
from torch_bgdebias.subsets import batched

__all__ = [
    "FilterSettings",
    "FilterStep",
    "Screening",
    "Verdict",
    "ViewSettings",
    "decide",
    "screen",
    "screen_files",
    "screen_images",
    "screened",
]

#: classes kept in the cache for each image, so that a larger top_k does not need another look
_DEPTH = 20
#: batches between two writes of the cache
_WRITE_EVERY = 200


@dataclasses.dataclass(frozen=True)
class FilterStep:
    """The result of one call of `BackgroundBank.filter`.

    Attributes:
        classifier: its name.
        top_k: how many classes counted as seen.
        before: images before the filter.
        dropped: images that left the bank; 0 for lists by foreground class, which remove nothing.
        by_class: name of a forbidden class -> images in which it was seen (an image can count for several).
        by_foreground: foreground class -> images that it is kept from.
    """

    classifier: str
    top_k: int
    before: int
    dropped: int
    by_class: dict[str, int]
    by_foreground: dict[int, int] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        seen = {name: count for name, count in self.by_class.items() if count}
        most_frequent = sorted(seen.items(), key=lambda item: -item[1])
        class_words = ", ".join(f"{name} in {count}" for name, count in most_frequent[:5])
        more = f" and {len(seen) - 5} more classes" if len(seen) > 5 else ""
        removed = f"removed {self.dropped} of {self.before}"
        if self.by_foreground:
            removed = "keeps " + ", ".join(f"class {c} from {n}" for c, n in list(self.by_foreground.items())[:5])
            removed += f" of {self.before}"
        return f"{self.classifier} (top {self.top_k}) {removed} ({class_words or 'none seen'}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Screening:
    """What a classifier saw.

    Attributes:
        classifier: its name.
        seen: (N, k) int64, the best classes of each image, best first.
        names: of the classes.
    """

    classifier: str
    seen: Tensor
    names: ClassNames

    def hits(self, classes: Sequence[int]) -> Tensor:
        """(N,) bool: one of ``classes`` is among those seen."""
        return torch.isin(self.seen, torch.tensor(classes, dtype=torch.int64)).any(1)

    def by_class(self, classes: Sequence[int]) -> dict[str, int]:
        """Images in which each of ``classes`` was seen, by name."""
        return {self.names[index]: int((self.seen == index).any(1).sum()) for index in classes}


def screen(
    batches: Iterable[Tensor],
    classifier: Classifier,
    top_k: int = 5,
    *,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    cache: Path | bool | None = None,
    check: Sequence[Sequence[int | str]] = (),
) -> Screening:
    """Classify batches of images (B, C, H, W) and record each one's ``top_k`` best classes.

    Arguments as `BackgroundBank.filter`; ``check``: lists of classes that the classifier must
    have; one that it lacks raises at the first batch.
    """
    settings = ViewSettings(classifier, top_k, class_names, size, mean, std, device=device, cache=cache)
    return screened(batches, settings, check)


def screened(batches: Iterable[Tensor], settings: ViewSettings, check: Iterable[Sequence[int | str]] = ()) -> Screening:
    """As `screen`, with its options in one object."""
    viewer = Viewer(
        settings.classifier, size=settings.size, mean=settings.mean, std=settings.std, device=settings.device
    )
    cache, top_k = settings.cache, settings.top_k
    cache_file = SeenCache(_cache_folder(cache, viewer), viewer.identity or "callable")
    top_classes: list[Tensor] = []
    names: ClassNames | None = None
    try:
        for number, images in enumerate(batches, start=1):
            if names is None:
                count = cache_file.num_classes or viewer.logits(images[:1]).shape[1]
                cache_file.num_classes = count
                if top_k > count:
                    raise ValueError(f"top_k: expected in [1, {count}], the classifier's classes, got {top_k}")
                names = ClassNames(count, settings.class_names)
                for entries in check:
                    names.find(entries)
            top_classes.append(_top_classes(images, viewer, cache_file, top_k))
            if number % _WRITE_EVERY == 0:
                cache_file.write()
    finally:
        cache_file.write()
    if names is None:
        raise ValueError("images: expected at least one image to look at, got none")
    return Screening(viewer.name, torch.cat(top_classes), names)


def _cache_folder(cache: Path | bool | None, viewer: Viewer) -> Path | None:
    """The cache folder; ``None`` if no cache is wanted, or if the classifier cannot be identified."""
    if cache is False or viewer.identity is None:
        return None
    return cache if isinstance(cache, Path) else cache_folder()


def _top_classes(images: Tensor, viewer: Viewer, cache: SeenCache, top_k: int) -> Tensor:
    """(B, top_k) best classes; only images that are not cached are classified."""
    keys = content_keys(images)
    positions = [position for position, key in enumerate(keys) if cache.get(key, top_k) is None]
    if positions:
        logits = viewer.logits(
            images if len(positions) == len(images) else images[torch.tensor(positions, device=images.device)]
        )
        best = logits.topk(min(max(top_k, _DEPTH), logits.shape[1])).indices.cpu()
        for position, classes in zip(positions, best, strict=True):
            cache.put(keys[position], classes)
    best_classes = [cache.get(key, top_k) for key in keys]
    return torch.stack([classes for classes in best_classes if classes is not None])


def screen_files(files: ImageFiles, settings: FilterSettings) -> tuple[list[int], Screening]:
    """`screen` for image files: the positions of those that can be read, and what was seen in them."""
    positions: list[int] = []

    def batches() -> Iterator[Tensor]:
        for batch in batched(files.readable(), settings.batch_size):
            positions.extend(position for position, _ in batch)
            yield torch.stack([image for _, image in batch])

    screening = screened(batches(), settings, settings.lists().values())
    return positions, screening


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a filter decided about N images.

    Attributes:
        steps: of earlier filters and of this one.
        stay: (n,) int64, positions of the images that stay, ascending.
        forbidden: which foreground class must not get which of the images that stay, by their positions among those
            that stay; ``None``: every class may get all.
    """

    steps: tuple[FilterStep, ...]
    stay: Tensor
    forbidden: ForbiddenPairs | None


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How a classifier screens backgrounds.

    Args:
        classifier: a timm model by name (``"resnet50"``, with the weights that timm publishes), a module (used where it
            is, in evaluation mode, and given back as it was), or any callable from images (B, C, h, w) to logits
            (B, K).
        top_k: how many of the best classes count as seen.
        class_names: of the classifier's outputs; those of ImageNet by default, where it has as many.
        size: (h, w) for the classifier; a timm model's own by default, else as they are.
        mean: per channel, of the normalisation after scaling to [0, 1]; a timm model's own by default, else none.
        std: per channel; required with ``mean``.
        batch_size: images in a pass.
        device: for a classifier given by name.
        cache: folder of what was seen, a folder of the user's cache by default; ``False`` keeps nothing. Entries are
            found by the image's pixels and by the classifier's weights and settings; a callable that is no module has
            nothing to be recognised by, so nothing is kept for it.

    Raises:
        ValueError: ``top_k`` or ``batch_size`` below 1.
    """

    classifier: Classifier
    top_k: int = 5
    class_names: Sequence[str] | None = None
    size: int | tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    batch_size: int = 64
    device: torch.device | str | None = None
    cache: Path | bool | None = None

    def __post_init__(self) -> None:
        check_count(self.top_k, name="top_k")
        check_count(self.batch_size, name="batch_size")


@dataclasses.dataclass(frozen=True)
class FilterSettings(ViewSettings):
    """How a classifier screens backgrounds, and what must not be seen.

    Args:
        forbidden: classes as indices, names or WordNet ids (``[9, "ostrich", "n01518878"]``), whose images go; or a
            mapping {foreground class: classes}, whose images stay and are kept from those foregrounds.

    The others are those of `ViewSettings`.

    Raises:
        TypeError: a foreground class that is no whole number.
        ValueError: nothing forbidden, or a number below 1.
    """

    forbidden: Sequence[int | str] | Mapping[int, Sequence[int | str]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = self.lists()
        for label in lists:
            if label is not None and (isinstance(label, bool) or not isinstance(label, int)):
                raise TypeError(f"forbidden: expected foreground classes as whole numbers, got {label!r}")
        if not any(isinstance(entries, str) or len(entries) for entries in lists.values()):
            raise ValueError("forbidden: expected at least one class, got none")

    def lists(self) -> dict[int | None, Sequence[int | str]]:
        """The forbidden classes by foreground class; of all foregrounds under ``None``."""
        if isinstance(self.forbidden, Mapping):
            return {label: self.forbidden[label] for label in self.forbidden}
        return {None: self.forbidden}


def screen_images(images: Tensor, settings: FilterSettings) -> Screening:
    """Screen images (N, C, H, W) in batches."""
    return screened(torch.split(images, settings.batch_size), settings, settings.lists().values())


def decide(
    screening: Screening,
    settings: FilterSettings,
    earlier: Sequence[FilterStep] = (),
    forbidden: ForbiddenPairs | None = None,
) -> Verdict:
    """Which of the N screened images stay, and for which foreground classes they are forbidden.

    Args:
        screening: the classes seen in them.
        settings: what must not be seen.
        earlier: steps of the filters that were applied before.
        forbidden: the pairs that those found.

    Raises:
        KeyError: a class that the classifier does not have.
        ValueError: no background is left, for all or for one foreground class; the message says which filter
            removed how many.
    """
    classes = {label: screening.names.find(entries) for label, entries in settings.lists().items()}
    hits = {label: screening.hits(indices) for label, indices in classes.items()}
    total = len(screening.seen)
    by_class = screening.by_class(list(dict.fromkeys(i for indices in classes.values() for i in indices)))
    if None in hits:
        step = FilterStep(screening.classifier, settings.top_k, total, int(hits[None].sum()), by_class)
        if step.dropped == step.before:
            raise ValueError(f"forbidden: no background is left: {_history(earlier, step)}")
        stay = (~hits[None]).nonzero().flatten()
        return Verdict((*earlier, step), stay, None if forbidden is None else forbidden.select(stay))
    by_label = {label: hit for label, hit in hits.items() if label is not None}
    step = FilterStep(
        screening.classifier,
        settings.top_k,
        total,
        0,
        by_class,
        {label: int(hit.sum()) for label, hit in by_label.items()},
    )
    pairs = ForbiddenPairs.of(by_label)
    pairs = pairs if forbidden is None else pairs.joined(forbidden)
    without_backgrounds = pairs.labels[pairs.counts() == total].tolist()
    if without_backgrounds:
        classes_text = f"foreground class(es) {without_backgrounds[:8]}: {_history(earlier, step)}"
        raise ValueError(f"forbidden: no background is left for {classes_text}")
    return Verdict((*earlier, step), torch.arange(total), pairs)


def _history(earlier: Sequence[FilterStep], step: FilterStep) -> str:
    return "; then ".join(str(past_step) for past_step in (*earlier, step))
