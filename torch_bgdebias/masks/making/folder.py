"""``make_masks``: a folder of masks for a folder of pictures; an interrupted run is resumed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from torch_bgdebias._version import __version__
from torch_bgdebias.checks import check_count, check_option, check_share
from torch_bgdebias.files import UnreadableImageError, decoded, first_few, image_files, read_image
from torch_bgdebias.masks.formats.boxes import BoxFile
from torch_bgdebias.masks.formats.outlines import AnnotationError
from torch_bgdebias.masks.making.detecting import BoxDetector
from torch_bgdebias.masks.making.in_boxes import InBoxes
from torch_bgdebias.masks.making.protocol import Hints, MaskMaker, MaskMakingError, checked_masks
from torch_bgdebias.names import ON_ERROR
from torch_bgdebias.records import parse_json
from torch_bgdebias.writing import marked_folder, whole_file, write_text

__all__ = ["MANIFEST", "SCHEMA", "MadeFolder", "MakingSettings", "make_masks", "targets_of"]

#: the file in the masks' folder that says how they came about
MANIFEST = "masks.json"
#: name and version of its layout
SCHEMA = "torch_bgdebias.masks/1"
_CONFIDENCE = "confidence"
#: less than this is nothing: a network's noise over the whole picture would hide that 0 is background
_FAINT = 0.02


@dataclasses.dataclass(frozen=True)
class MakingSettings:
    """How a folder's masks are made, with any maker.

    Args:
        prompt: what the object is called, ``{class}`` for its class's folder; by default the folder's name, where there
            are class folders and the maker takes text. ``""``: nothing is said.
        boxes: file or folder of boxes: COCO, PASCAL VOC, YOLO, CSV, or any outlines; or a detector, which looks for
            what the prompt, or the folder's name, says.
        batch_size: pictures of one size at a time.
        threshold: masks become hard at this share; ``None``: they stay soft.
        overwrite: make existing masks again.
        on_error: ``"raise"``, or ``"skip"`` pictures that cannot be read or of which no mask comes.

    Raises:
        ValueError: an option that does not exist, or a number out of range.
    """

    prompt: str | None = None
    boxes: Path | BoxDetector | None = None
    batch_size: int = 4
    threshold: float | None = None
    overwrite: bool = False
    on_error: str = "raise"

    def __post_init__(self) -> None:
        check_count(self.batch_size, name="batch_size")
        check_option(self.on_error, ON_ERROR, name="on_error")
        if self.threshold is not None:
            check_share(self.threshold, name="threshold", kind="a share")

    def described(self) -> dict[str, Any]:
        """The settings that determine how a mask looks."""
        return {
            "prompt": self.prompt,
            "boxes": None if self.boxes is None else getattr(self.boxes, "name", None) or str(self.boxes),
            "threshold": self.threshold,
        }


@dataclasses.dataclass
class MadeFolder:
    """The outcome of `make_masks` for a folder's pictures.

    Attributes:
        written: masks made by this run.
        unchanged: existing masks.
        confidence: by mask, as far as masks say it.
        empty: masks without an object.
        skipped: pictures without a mask, with the reason.
    """

    written: int = 0
    unchanged: int = 0
    confidence: dict[str, float] = dataclasses.field(default_factory=dict)
    empty: list[str] = dataclasses.field(default_factory=list)
    skipped: list[tuple[Path, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """A picture that has been read."""

    path: Path
    target: Path
    image: Tensor
    text: str | None
    boxes: Tensor | None


def make_masks(
    folder: str | Path,
    out: str | Path,
    maker: MaskMaker,
    *,
    settings: MakingSettings | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> MadeFolder:
    """Write a mask for every picture of a folder: 8-bit PNG of its size, 255 = object, in the same subfolders.

    A mask is written whole or not at all, and one that is there is kept: a run that was stopped goes on. ``masks.json``
    says how they came about: maker, licence, settings, confidences, what was left out. The pictures are only read.

    Args:
        folder: pictures, with or without class folders.
        out: where the masks go; another folder.
        maker: makes them.
        settings: how; the default one when ``None``.
        progress: ``progress(pictures, total=..., label=...)`` wraps the walk.

    Raises:
        FileNotFoundError: no pictures, no boxes. FileExistsError: ``out`` holds masks of another maker or settings.
        MaskMakingError: what the maker gave is no mask, or a picture lacks what it needs.
        UnreadableImageError: a picture cannot be decoded.
    """
    options = MakingSettings() if settings is None else settings
    root, target_root = Path(folder), Path(out)
    targets = targets_of(root, target_root)
    boxes = BoxFile.of(options.boxes) if isinstance(options.boxes, Path) else options.boxes
    if boxes is not None and "boxes" not in maker.takes:
        maker = InBoxes(maker)
    identity = {"maker": maker.name, "licence": dataclasses.asdict(maker.licence), "settings": options.described()}
    if isinstance(boxes, BoxDetector):
        identity["boxes_licence"] = dataclasses.asdict(boxes.licence)
    _refuse_others(target_root, identity, targets, options)
    summary = MadeFolder()
    work = _Work(root, maker, boxes, options, summary)
    if options.on_error == "raise":
        work.require_hints(list(targets))
    pending = [(path, target) for path, target in targets.items() if options.overwrite or not target.exists()]
    summary.unchanged = len(targets) - len(pending)
    with marked_folder(target_root):
        _write_manifest(target_root, identity, None)
        walk = pending if progress is None else progress(pending, total=len(pending), label="masks")
        for batch in work.batches(walk):
            work.make(batch)
        _summarise(summary, targets, target_root)
        _write_manifest(target_root, identity, summary)
    return summary


def targets_of(root: Path, out: Path) -> dict[Path, Path]:
    """Every picture of a folder with the file of its mask.

    Raises:
        FileNotFoundError: no pictures. ValueError: two with one mask, or a mask in a picture's place.
    """
    inside = out.resolve()
    if inside == root.resolve():
        raise ValueError(
            f"OUT: expected another folder than IN, whose pictures masks would lie among; got {out} for both"
        )
    pictures = [path for path in image_files(root) if inside not in path.resolve().parents]
    if not pictures:
        raise FileNotFoundError(f"{root}: expected a folder with pictures, found none")
    owners: dict[Path, Path] = {}
    for path in pictures:
        target = (out / path.relative_to(root)).with_suffix(".png")
        if target in owners:
            raise ValueError(f"{owners[target]} and {path} would both have the mask {target}: rename one")
        if target == path or target.resolve() == path.resolve():
            raise ValueError(f"OUT: expected another folder than IN, or {path} would be replaced by its mask")
        owners[target] = path
    return {path: target for target, path in owners.items()}


class _Work:
    """Pictures read, gathered by size, and handed to the maker."""

    def __init__(
        self,
        root: Path,
        maker: MaskMaker,
        boxes: BoxFile | BoxDetector | None,
        options: MakingSettings,
        summary: MadeFolder,
    ) -> None:
        self.root, self.maker, self.boxes, self.options, self.result = root, maker, boxes, options, summary

    def require_hints(self, pictures: Sequence[Path]) -> None:
        """Raise MaskMakingError before any work where pictures lack what the maker needs."""
        if "text" in self.maker.needs and (lacking := [path for path in pictures if not self._text(path)]):
            raise MaskMakingError(
                f"{self.maker.name}: expected what the object is called, for {len(lacking)} of {len(pictures)} "
                f"pictures nobody says: give --prompt, or class folders ({first_few(path.name for path in lacking)})"
            )
        if "boxes" in self.maker.needs and self.boxes is None:
            raise MaskMakingError(
                f"{self.maker.name}: expected boxes; give --boxes FILE (COCO, PASCAL VOC, CSV) or a detector"
            )
        if isinstance(self.boxes, BoxFile):
            annotations = self.boxes.annotations
            lacking = [
                path for path in pictures if not getattr(annotations.find(self._relative_name(path)), "shapes", ())
            ]
            if lacking:
                raise MaskMakingError(
                    f"{self.boxes.place}: {len(lacking)} of {len(pictures)} pictures have no box: "
                    f"{first_few(map(self._relative_name, lacking))}; it has {first_few(annotations.pictures)}; "
                    "--on-error skip leaves them out"
                )

    def batches(self, walk: Iterable[tuple[Path, Path]]) -> Iterator[list[_Waiting]]:
        """Batches of pictures of one size; few wait at a time."""
        pending: dict[tuple[int, ...], list[_Waiting]] = {}
        for path, target in walk:
            picture = self._read(path, target)
            if picture is None:
                continue
            size = tuple(picture.image.shape)
            pending.setdefault(size, []).append(picture)
            if len(pending[size]) == self.options.batch_size:
                yield pending.pop(size)
            elif sum(map(len, pending.values())) > 4 * self.options.batch_size:
                yield pending.pop(max(pending, key=lambda size: len(pending[size])))
        yield from pending.values()

    def make(self, batch: Sequence[_Waiting]) -> None:
        """Make and write a batch's masks; where that fails and may be skipped, one by one."""
        images = torch.stack([picture.image for picture in batch])
        hints = Hints([picture.text for picture in batch], [picture.boxes for picture in batch])
        try:
            masks, confidences = checked_masks(self.maker(images, hints), images, self.maker.name)
        except MaskMakingError as error:
            if self.options.on_error == "raise":
                raise MaskMakingError(f"{first_few(picture.path for picture in batch)}: {error}") from error
            if len(batch) > 1:
                for picture in batch:
                    self.make([picture])
            else:
                self.result.skipped.append((batch[0].path, str(error)))
            return
        for picture, mask, confidence in zip(batch, masks, confidences.tolist(), strict=True):
            _write(picture.target, mask, confidence, self.options.threshold)
            self.result.written += 1

    def _read(self, path: Path, target: Path) -> _Waiting | None:
        try:
            image = read_image(path).float() / 255
            boxes = self._boxes(path, image)
        except (UnreadableImageError, AnnotationError, MaskMakingError) as error:
            if self.options.on_error == "raise":
                raise
            self.result.skipped.append((path, str(error)))
            return None
        return _Waiting(path, target, image, self._text(path), boxes)

    def _boxes(self, path: Path, image: Tensor) -> Tensor | None:
        if isinstance(self.boxes, BoxDetector):
            text = self._category_of(path)
            detected = self.boxes.find(image, text)
            if detected is None:
                score_text = f"scored {self.boxes.least_score:g} or more"
                raise MaskMakingError(f"{path}: {self.boxes.name} saw no {text or 'object'} that it {score_text}")
            return detected
        size = (image.shape[1], image.shape[2])
        boxes = None if self.boxes is None else self.boxes.find(self._relative_name(path), None, size)
        if boxes is None and ("boxes" in self.maker.needs or self.boxes is not None):
            raise MaskMakingError(f"{path}: expected a box, found none")
        return boxes

    def _text(self, path: Path) -> str | None:
        return self._category_of(path) if "text" in self.maker.takes else None

    def _category_of(self, path: Path) -> str | None:
        """The name of the picture's object."""
        if self.options.prompt == "":
            return None
        parts = path.relative_to(self.root).parts
        category = parts[0].replace("_", " ") if len(parts) > 1 else None
        if self.options.prompt is None:
            return category
        if "{class}" in self.options.prompt:
            return None if category is None else self.options.prompt.replace("{class}", category)
        return self.options.prompt

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _refuse_others(out: Path, identity: dict[str, Any], targets: dict[Path, Path], options: MakingSettings) -> None:
    """Refuse a folder that another maker, or other settings, have begun."""
    if not (out / MANIFEST).is_file() or options.overwrite:
        return
    try:
        former = parse_json(out / MANIFEST)
    except ValueError:
        return
    n_existing = sum(target.exists() for target in targets.values())
    if n_existing and isinstance(former, dict) and any(former.get(key) != value for key, value in identity.items()):
        raise FileExistsError(
            f"OUT: {out} holds {n_existing} of {len(targets)} masks by {former.get('maker')} with "
            f"{former.get('settings')}; pass --overwrite, or another folder"
        )


def _write_manifest(out: Path, identity: dict[str, Any], summary: MadeFolder | None) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, **identity, "version": __version__}
    if summary is not None:
        content |= {
            "masks": {"written": summary.written, "kept": summary.unchanged},
            "confidence": {name: round(value, 4) for name, value in summary.confidence.items()},
            "empty": summary.empty,
            "skipped": {str(path): reason for path, reason in summary.skipped},
        }
    write_text(out / MANIFEST, json.dumps(content, indent=1))


def _write(target: Path, mask: Tensor, confidence: float, threshold: float | None) -> None:
    """An 8-bit PNG that notes how sure its maker was; what nowhere reaches half is empty."""
    shares = mask if threshold is None else (mask >= threshold).float()
    shares = shares * (shares.max() > 0.5)
    shares = torch.where(shares < _FAINT, 0.0, torch.where(shares > 1 - _FAINT, 1.0, shares))
    note = PngInfo()
    note.add_text(_CONFIDENCE, f"{confidence:.4f}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        Image.fromarray(shares.mul(255).round().byte().numpy()).save(file, format="PNG", pnginfo=note)


def _summarise(summary: MadeFolder, targets: dict[Path, Path], out: Path) -> None:
    """A summary of the masks' records, those of an earlier run too."""
    for target in targets.values():
        if target.exists():
            name = target.relative_to(out).as_posix()
            picture = decoded(target)
            if _CONFIDENCE in picture.info:
                summary.confidence[name] = float(picture.info[_CONFIDENCE])
            if picture.getextrema() == (0, 0):
                summary.empty.append(name)
