"""``AnnotatedMasks``: annotation files in place of a folder of masks."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from torch_bgdebias.files import EXTENSIONS, first_few, image_files, same_form
from torch_bgdebias.masks.contents import MASK_EXTENSIONS
from torch_bgdebias.masks.encodings import MaskEncodingError
from torch_bgdebias.masks.formats.converting import KINDS, Annotations
from torch_bgdebias.masks.formats.notice import annotation_kind
from torch_bgdebias.masks.formats.outlines import AnnotationError
from torch_bgdebias.masks.formats.voc import voc_folders
from torch_bgdebias.masks.reading import MaskPicture

__all__ = ["AnnotatedMasks", "holds_annotations"]

#: files of a folder that are opened to find out what it holds
_LOOK_AT = 200


def holds_annotations(place: Path) -> bool:
    """Whether a path is an annotation file or a folder of them, rather than a folder of mask files.

    Raises:
        FileNotFoundError: it is not there, or is neither.
    """
    if place.is_file() or voc_folders(place):
        return True
    if not place.is_dir():
        raise FileNotFoundError(f"masks: expected a folder of masks, or annotations of {KINDS}, found no {place}")
    candidates = sorted(path for path in place.rglob("*") if path.suffix.lower() in (".json", ".txt", ".xml"))
    if any(annotation_kind(path) for path in candidates[:_LOOK_AT]):
        return True
    if image_files(place, extensions=EXTENSIONS | MASK_EXTENSIONS):
        return False
    raise FileNotFoundError(f"masks: expected masks, or annotations of {KINDS}, in {place}, found neither")


class AnnotatedMasks:
    """The masks of a data set's pictures, drawn from annotations whenever one is read.

    Args:
        annotations: by picture.
        names: of each picture its name with folders and its class.
    """

    def __init__(self, annotations: Annotations, names: Mapping[Path, tuple[str, str]]) -> None:
        self.annotations, self._names = annotations, dict(names)

    @classmethod
    def of(cls, place: Path, names: Mapping[Path, tuple[str, str]]) -> AnnotatedMasks:
        """Read the annotations of these pictures.

        Raises:
            FileNotFoundError, AnnotationError: as `Annotations.of`.
        """
        stems = {same_form(picture.stem) for picture in names}
        return cls(Annotations.of(place, stems), names)

    @property
    def has_void(self) -> bool:
        """Whether some of them mark what is neither object nor background."""
        return self.annotations.has_void

    def file_of(self, picture: Path) -> Path | None:
        """The annotation file of a picture; ``None`` if it has none."""
        return self.annotations.file_of(self._names[picture][0])

    def shared(self) -> list[tuple[Path, Path]]:
        """Pictures about which the annotations say the same thing, since names without folders fit both."""
        owner: dict[int, Path] = {}
        twins = []
        for picture, (name, _) in self._names.items():
            annotation = self.annotations.find(name)
            if annotation is not None and (first := owner.setdefault(id(annotation), picture)) != picture:
                twins.append((first, picture))
        return twins

    def open(self, picture: str | Path) -> MaskPicture:
        """The mask of a picture.

        Raises:
            AnnotationError: it has another size than its annotations say, or they cannot be drawn.
            UnreadableImageError: the picture cannot be decoded.
        """
        labels = self._labels(Path(picture))
        void = labels == 255
        return MaskPicture(
            Image.fromarray((labels == 1).astype(np.uint8) * np.uint8(255)),
            Image.fromarray(void.astype(np.uint8) * np.uint8(255)) if void.any() else None,
        )

    def digest(self, picture: Path) -> str:
        """A hash of a picture's mask, 32 hexadecimal digits."""
        labels = self._labels(picture)
        return hashlib.blake2b(np.array(labels.shape).tobytes() + labels.tobytes(), digest_size=16).hexdigest()

    def require_objects(self, pictures: Sequence[Path], place: Path) -> None:
        """Raise MaskEncodingError where none of these pictures has an object."""
        for picture in pictures:
            try:
                if (self._labels(picture) == 1).any():
                    return
            except (AnnotationError, OSError, ValueError):
                return  # named when the sample is read
        classes = sorted({self._names[picture][1] for picture in pictures})
        raise MaskEncodingError(
            f"masks: {place}: expected an object in some pictures, got none in {len(pictures)} looked at; its "
            f"labels are {', '.join(sorted(self.annotations.labels)) or 'none'}, the classes {', '.join(classes)}"
        )

    def warn_of_labels(self, place: Path) -> None:
        """Say so where several things are taken for one object since no label is called as their pictures' class is."""
        nameless = {c for c in {category for _, category in self._names.values()} if not self.annotations.label_of(c)}
        joined = []
        for name, category in self._names.values():
            picture = self.annotations.find(name) if category in nameless else None
            if picture is not None and len({shape.label for shape in picture.shapes if not shape.crowd}) > 1:
                joined.append(name)
        if joined:
            labels = first_few(sorted(self.annotations.labels))
            warnings.warn(
                f"masks: {place}: no label is called {first_few(sorted(nameless))} (it has {labels}), so that all that "
                f"is outlined is the object of such a picture, in {len(joined)} of them things of several labels "
                f"({first_few(joined, 3)}); call folders as the labels of their objects if these alone are meant",
                stacklevel=3,
            )

    def _labels(self, picture: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        name, category = self._names[picture]
        return self.annotations.mask(picture, name, category)
