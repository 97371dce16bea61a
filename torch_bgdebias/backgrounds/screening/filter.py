"""Filtering of banks: what a classifier sees in the backgrounds, and which of them must go."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.folder import ImageFiles
from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.screening.classes import ClassNames
from torch_bgdebias.backgrounds.screening.seen import SeenCache, cache_folder, content_keys
from torch_bgdebias.backgrounds.screening.viewer import Classifier, Viewer
from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank

if TYPE_CHECKING:
    from torch_bgdebias.backgrounds.bank import BackgroundBank

__all__ = ["FilterRequest", "FilterStep", "Screening", "filter_bank", "screen", "screen_files"]

#: classes kept in the cache for each image, so that a larger top_k does not need another look
_DEPTH = 20
#: batches between two writes of the cache
_WRITE_EVERY = 200


@dataclasses.dataclass(frozen=True)
class FilterStep:
    """What one call of `BackgroundBank.filter` did.

    Attributes:
        classifier: its name.
        top_k: how many classes counted as seen.
        before: images that it looked at.
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
        most = sorted(self.by_class.items(), key=lambda item: -item[1])
        seen = ", ".join(f"{name} in {count}" for name, count in most[:5] if count)
        more = f" and {len(most) - 5} more classes" if len(most) > 5 else ""
        removed = f"removed {self.dropped} of {self.before}"
        if self.by_foreground:
            removed = "keeps " + ", ".join(f"class {c} from {n}" for c, n in list(self.by_foreground.items())[:5])
            removed += f" of {self.before}"
        return f"{self.classifier} (top {self.top_k}) {removed} ({seen or 'none seen'}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class FilterRequest:
    """The arguments of `BackgroundBank.filter`; ``view`` holds size, mean, std and class_names."""

    classifier: Classifier
    forbidden: Sequence[int | str] | Mapping[int, Sequence[int | str]]
    top_k: int
    view: dict[str, Any]
    batch_size: int
    device: torch.device | str
    cache: Path | bool | None


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
    """Look at batches of images (B, C, H, W) and note each one's ``top_k`` best classes.

    Arguments as `BackgroundBank.filter`; ``check`` lists classes that must exist, asked after the first image already.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k: expected a whole number of at least 1, got {top_k!r}")
    viewer = Viewer(classifier, size=size, mean=mean, std=std, device=device)
    folder = None if cache is False or viewer.identity is None else cache_folder() if cache in (None, True) else cache
    kept = SeenCache(folder if isinstance(folder, Path) else None, viewer.identity or "callable")
    seen: list[Tensor] = []
    names: ClassNames | None = None
    try:
        for number, images in enumerate(batches, start=1):
            if names is None:
                count = kept.num_classes or viewer.logits(images[:1]).shape[1]
                kept.num_classes = count
                if top_k > count:
                    raise ValueError(f"top_k: expected in [1, {count}], the classifier's classes, got {top_k}")
                names = ClassNames(count, class_names)
                for entries in check:
                    names.find(entries)
            seen.append(_best(images, viewer, kept, top_k))
            if number % _WRITE_EVERY == 0:
                kept.write()
    finally:
        kept.write()
    if names is None:
        raise ValueError("images: expected at least one image to look at, got none")
    return Screening(viewer.name, torch.cat(seen), names)


def _best(images: Tensor, viewer: Viewer, kept: SeenCache, top_k: int) -> Tensor:
    """(B, top_k) best classes; the classifier looks at those that are not known yet."""
    keys = content_keys(images)
    new = [place for place, key in enumerate(keys) if kept.get(key, top_k) is None]
    if new:
        logits = viewer.logits(images if len(new) == len(images) else images[torch.tensor(new, device=images.device)])
        best = logits.topk(min(max(top_k, _DEPTH), logits.shape[1])).indices.cpu()
        for place, classes in zip(new, best, strict=True):
            kept.put(keys[place], classes)
    found = [kept.get(key, top_k) for key in keys]
    return torch.stack([classes for classes in found if classes is not None])


def screen_files(
    files: ImageFiles, classifier: Classifier, top_k: int = 5, *, batch_size: int = 64, **view: Any
) -> tuple[list[int], Screening]:
    """`screen` for image files: the positions of those that can be read, and what was seen in them."""
    positions: list[int] = []

    def batches() -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        for position, image in files.readable():
            positions.append(position)
            waiting.append(image)
            if len(waiting) == batch_size:
                yield torch.stack(waiting)
                waiting.clear()
        if waiting:
            yield torch.stack(waiting)

    screening = screen(batches(), classifier, top_k, **view)
    return positions, screening


def filter_bank(bank: BackgroundBank, request: FilterRequest) -> BackgroundBank:
    """See `BackgroundBank.filter`."""
    lists = _lists(request.forbidden)
    view = {"device": request.device, "cache": request.cache, "check": list(lists.values()), **request.view}
    earlier = bank.filters
    if isinstance(bank, StreamedBackgroundBank):
        options = {"batch_size": request.batch_size, **view}
        positions, screening = screen_files(bank.files, request.classifier, request.top_k, **options)
        if len(positions) < len(bank.files.paths):
            bank = _subset(bank, torch.tensor(positions))
    else:
        screening = screen(torch.split(bank.images, request.batch_size), request.classifier, request.top_k, **view)
    found = {label: screening.names.find(entries) for label, entries in lists.items()}
    classes = list(dict.fromkeys(index for indices in found.values() for index in indices))
    hits = {label: screening.hits(indices) for label, indices in found.items()}
    about = (screening.classifier, request.top_k, len(screening.seen))
    by_class = screening.by_class(classes)
    if None in hits:
        step = FilterStep(*about, int(hits[None].sum()), by_class)
        if step.dropped == step.before:
            raise ValueError(f"forbidden: no background is left: {_told(earlier, step)}")
        new = _subset(bank, (~hits[None]).nonzero().flatten())
    else:
        by_label = {label: hit for label, hit in hits.items() if label is not None}
        counts = {label: int(hit.sum()) for label, hit in by_label.items()}
        step = FilterStep(*about, 0, by_class, counts)
        new = _restricted(bank, ForbiddenPairs.of(by_label), lambda: _told(earlier, step))
    new.filters = (*earlier, step)
    return new


def _told(earlier: Sequence[FilterStep], step: FilterStep) -> str:
    return "; then ".join(str(one) for one in (*earlier, step))


def _lists(forbidden: Sequence[int | str] | Mapping[int, Sequence[int | str]]) -> dict[int | None, Sequence[int | str]]:
    if not isinstance(forbidden, Mapping):
        lists: dict[int | None, Sequence[int | str]] = {None: forbidden}
    else:
        for label in forbidden:
            if isinstance(label, bool) or not isinstance(label, int):
                raise TypeError(f"forbidden: expected foreground classes as whole numbers, got {label!r}")
        lists = {label: forbidden[label] for label in forbidden}
    if not any(isinstance(entries, str) or len(entries) for entries in lists.values()):
        raise ValueError("forbidden: expected at least one class, got none")
    return lists


def _subset(bank: BackgroundBank, kept: Tensor) -> BackgroundBank:
    """The bank's images (a streamed bank's files) at ``kept``, with the lists by foreground class that it had."""
    from torch_bgdebias.backgrounds.bank import BackgroundBank

    if isinstance(bank, StreamedBackgroundBank):
        streamed = bank.over(bank.files.only(kept.tolist()))
        if bank.file_pairs is not None:
            streamed.forbid_files(bank.file_pairs.select(kept))
        return streamed
    place = kept.to(bank.device)
    labels = None if bank.labels is None else bank.labels[place]
    smaller = BackgroundBank(bank.images[place], labels, mean=bank.mean, std=bank.std, classes=bank.classes)
    if bank.forbidden_pairs is not None:
        smaller.forbid(bank.forbidden_pairs.select(kept))
    return smaller


def _restricted(bank: BackgroundBank, pairs: ForbiddenPairs, told: Callable[[], str]) -> BackgroundBank:
    """The same images with more lists by foreground class."""
    total = len(bank.files.paths) if isinstance(bank, StreamedBackgroundBank) else len(bank)
    earlier = bank.file_pairs if isinstance(bank, StreamedBackgroundBank) else bank.forbidden_pairs
    pairs = pairs if earlier is None else pairs.joined(earlier)
    left_out = pairs.labels[pairs.counts() == total].tolist()
    if left_out:
        raise ValueError(f"forbidden: no background is left for foreground class(es) {left_out[:8]}: {told()}")
    if isinstance(bank, StreamedBackgroundBank):
        fresh = bank.over(bank.files)
        fresh.forbid_files(pairs)
        return fresh
    same = copy.copy(bank)
    same.forbid(pairs)
    return same
