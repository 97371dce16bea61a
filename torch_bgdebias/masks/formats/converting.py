"""``Annotations``: what annotation tools wrote about a folder's pictures, as a mask for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_bgdebias.files import first_few, open_image, same_form
from torch_bgdebias.masks.formats.notice import annotation_kind
from torch_bgdebias.masks.formats.outlines import AnnotatedPicture, drawn
from torch_bgdebias.masks.formats.reading import AnnotationError, read_annotations

__all__ = ["Annotations"]


#: tools that write a file for each picture
_ONE_A_PICTURE = ("LabelMe", "Supervisely", "YOLO")


class Annotations:
    """Annotations by picture.

    Args:
        pictures: by file name with folders, in one Unicode form.
    """

    def __init__(self, pictures: Mapping[str, AnnotatedPicture]) -> None:
        self.pictures = dict(pictures)
        self._by_name: dict[str, list[str]] = {}
        for key in self.pictures:
            self._by_name.setdefault(key.rsplit("/", 1)[-1], []).append(key)
        self.labels = {shape.label.casefold() for picture in self.pictures.values() for shape in picture.shapes}

    @classmethod
    def of(cls, place: Path) -> Annotations:
        """Read one file, or all in a folder.

        Raises:
            FileNotFoundError: there is none.
            AnnotationError: one cannot be read, or two say what is in one picture.
        """
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if annotation_kind(path))
        if not files:
            raise FileNotFoundError(
                f"{place}: expected annotations of LabelMe, COCO, CVAT, Label Studio, Supervisely, Datumaro or YOLO, "
                "found none"
            )
        pictures: dict[str, AnnotatedPicture] = {}
        for path in files:
            # some write one file a picture, in its folder; the others name folders themselves
            alone = annotation_kind(path) in _ONE_A_PICTURE and path != place
            folder = path.parent.relative_to(place).as_posix() if alone else "."
            for picture in read_annotations(path):
                key = same_form(picture.name if folder == "." else f"{folder}/{picture.name}")
                if key in pictures:
                    raise AnnotationError(f"{path}: expected each picture once, got {key} again; take one file away")
                pictures[key] = picture
        return cls(pictures)

    def find(self, name: str) -> AnnotatedPicture | None:
        """What is known of a picture, by its name with folders, of which one side may know more than the other."""
        name = same_form(name)
        picture = self._find(name)
        return self._find(name.rsplit(".", 1)[0]) if picture is None else picture  # YOLO's have no ending

    def _find(self, name: str) -> AnnotatedPicture | None:
        if name in self.pictures:
            return self.pictures[name]
        keys = self._by_name.get(name.rsplit("/", 1)[-1], [])
        fitting = [key for key in keys if f"/{key}".endswith(f"/{name}") or f"/{name}".endswith(f"/{key}")]
        return self.pictures[fitting[0]] if len(fitting) == 1 else None

    def mask(self, path: Path, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The mask of a picture, (H, W): 1 object, 0 background, 255 void.

        Where the picture's first folder is called as a label is, that label's shapes are its object, else all are.

        Args:
            path: the picture, whose size the mask has.
            name: the picture's name with folders.

        Raises:
            KeyError: nothing is said about it.
            AnnotationError: it has another size than the annotations say.
            UnreadableImageError: the picture cannot be decoded.
        """
        picture = self.find(name)
        if picture is None:
            raise KeyError(f"{name}: expected annotations, found none")
        width, height = open_image(path).size
        if picture.size is not None and picture.size != (height, width):
            raise AnnotationError(
                f"{path}: expected the size {picture.size} (H, W) of its annotations, got {(height, width)}"
            )
        category = name.split("/", 1)[0].casefold()
        shapes = picture.shapes
        if "/" in name and category in self.labels:
            shapes = tuple(shape for shape in shapes if shape.crowd or shape.label.casefold() == category)
        try:
            return drawn(shapes, (height, width))
        except ValueError as error:
            raise AnnotationError(f"{path}: {error}") from error

    def require(self, names: Sequence[str], place: Path) -> None:
        """Raise AnnotationError that lists pictures about which nothing is said, or the same as about another."""
        of = {name: self.find(name) for name in names}
        if absent := [name for name, picture in of.items() if picture is None]:
            raise AnnotationError(
                f"{place}: {len(absent)} of {len(names)} pictures have no annotations: {first_few(absent)}; it has "
                f"{first_few(self.pictures)}"
            )
        owner: dict[int, str] = {}
        for name, picture in of.items():
            if (first := owner.setdefault(id(picture), name)) != name:
                raise AnnotationError(f"{place}: expected names with folders, got one that fits {first} and {name}")
