"""``Annotations``: annotation files of a folder's pictures, as one mask each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.class_names import plain_name
from torch_bgdebias.files import first_few, open_image, orientation, same_form
from torch_bgdebias.masks.formats.notice import annotation_kind
from torch_bgdebias.masks.formats.outlines import AnnotatedPicture, Outline, Shape, drawn
from torch_bgdebias.masks.formats.reading import AnnotationError, read_annotations
from torch_bgdebias.masks.formats.voc import read_voc, voc_folders

__all__ = ["KINDS", "Annotations"]

#: how many times a picture's sides outlines may reach beyond it
_BEYOND = 1.05
#: tools that write a file for each picture
_ONE_A_PICTURE = ("LabelMe", "Supervisely", "YOLO")
#: what is read, for messages
KINDS = "LabelMe, COCO, CVAT, Label Studio, Supervisely, Datumaro, VIA, YOLO or a VOCdevkit"


class Annotations:
    """Annotations by picture.

    Args:
        pictures: by file name with folders, in one Unicode form.
        files: the file that says so, by the same names.
    """

    def __init__(self, pictures: Mapping[str, AnnotatedPicture], files: Mapping[str, Path] | None = None) -> None:
        self.pictures = dict(pictures)
        self.files = dict(files or {})
        self._by_name: dict[str, list[str]] = {}
        for key in self.pictures:
            self._by_name.setdefault(key.rsplit("/", 1)[-1], []).append(key)
        self.labels = {plain_name(shape.label) for picture in self.pictures.values() for shape in picture.shapes}

    @classmethod
    def of(cls, place: Path, stems: Collection[str] | None = None) -> Annotations:
        """Read one file, all in a folder, or the masks of a VOCdevkit.

        Args:
            place: the file or folder.
            stems: names without folder and ending; of a VOCdevkit these alone are read.

        Raises:
            FileNotFoundError: there is none.
            AnnotationError: one cannot be read, or two say what is in one picture.
        """
        if folders := voc_folders(place):
            read = (entry for folder in folders for entry in read_voc(folder, stems))
            return cls._of_named((path, picture.name, picture) for path, picture in read)
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if annotation_kind(path))
        if not files:
            raise FileNotFoundError(f"{place}: expected annotations of {KINDS}, found none")

        def named(path: Path) -> Iterator[tuple[str, AnnotatedPicture]]:
            # some write one file a picture, in its folder; the others name folders themselves
            one_picture = annotation_kind(path) in _ONE_A_PICTURE and path != place
            folder = path.parent.relative_to(place).as_posix() if one_picture else "."
            for picture in read_annotations(path):
                yield picture.name if folder == "." else f"{folder}/{picture.name}", picture

        return cls._of_named((path, *pair) for path in files for pair in named(path))

    @classmethod
    def _of_named(cls, entries: Iterable[tuple[Path, str, AnnotatedPicture]]) -> Annotations:
        """Of files, the pictures' names and what the files say of them."""
        pictures: dict[str, AnnotatedPicture] = {}
        sources: dict[str, Path] = {}
        for path, name, picture in entries:
            key = same_form(name)
            if key in pictures:
                raise AnnotationError(f"{path}: expected each picture once, got {key} again; take one file away")
            pictures[key], sources[key] = picture, path
        return cls(pictures, sources)

    @property
    def has_void(self) -> bool:
        """Whether some of them mark what is neither object nor background."""
        return any(shape.crowd for picture in self.pictures.values() for shape in picture.shapes)

    def file_of(self, name: str) -> Path | None:
        """The file that says what is in a picture."""
        key = self.key_of(name)
        return None if key is None else self.files.get(key)

    def find(self, name: str) -> AnnotatedPicture | None:
        """What is known of a picture, by its name with folders, of which one side may know more than the other."""
        key = self.key_of(name)
        return None if key is None else self.pictures[key]

    def key_of(self, name: str) -> str | None:
        """Under which name the annotations have a picture."""
        name = same_form(name)
        return self._key(name) or self._key(name.rsplit(".", 1)[0])  # YOLO's and VOC's have no ending

    def _key(self, name: str) -> str | None:
        if name in self.pictures:
            return name
        keys = self._by_name.get(name.rsplit("/", 1)[-1], [])
        fitting = [key for key in keys if f"/{key}".endswith(f"/{name}") or f"/{name}".endswith(f"/{key}")]
        return fitting[0] if len(fitting) == 1 else None

    def mask(self, path: Path, name: str, category: str | None = None) -> NDArray[np.uint8]:
        """The mask of a picture, (H, W): 1 object, 0 background, 255 void.

        Where the picture's class is called as a label is, that label's shapes are its object, else all are. The mask
        has the picture's size as it is shown; where the annotations are of the pixels as stored, which a camera's flag
        turns, the size as stored.

        Args:
            path: the picture.
            name: the picture's name with folders.
            category: its class; by default the first of its folders.

        Raises:
            KeyError: nothing is said about it.
            AnnotationError: it has another size than the annotations say.
            UnreadableImageError: the picture cannot be decoded.
        """
        picture = self.find(name)
        if picture is None:
            raise KeyError(f"{name}: expected annotations, found none")
        width, height = open_image(path).size
        shown_size, size = (height, width), picture.size or (height, width)
        if size != shown_size and not (size == shown_size[::-1] and orientation(path) > 4):
            raise AnnotationError(f"{path}: expected the size {size} (H, W) of its annotations, got {shown_size}")
        if picture.size is None:
            _require_within(picture.shapes, shown_size, path)
        try:
            return drawn(self.meant(picture, name, category), size)
        except ValueError as error:
            raise AnnotationError(f"{path}: {error}") from error

    def drawn_alone(self, name: str) -> NDArray[np.uint8]:
        """The mask of a picture that need not be there, in the size that its annotations say.

        Raises:
            AnnotationError: they do not say any.
        """
        picture = self.pictures[name]
        if picture.size is None:
            raise AnnotationError(f"{name}: expected annotations that say the picture's size; give --images IMAGES")
        try:
            return drawn(self.meant(picture, name, None), picture.size)
        except ValueError as error:
            raise AnnotationError(f"{self.files.get(name, name)}: {error}") from error

    def meant(self, picture: AnnotatedPicture, name: str, category: str | None) -> tuple[Shape, ...]:
        """The shapes that are a picture's object: its class's own where the class is called as a label is, else all."""
        label = self.label_of(category or (name.split("/", 1)[0] if "/" in name else ""))
        if label is None:
            return picture.shapes
        return tuple(shape for shape in picture.shapes if shape.crowd or plain_name(shape.label) == label)

    def label_of(self, category: str) -> str | None:
        """The label that is called as a class is, or as the last of its folders; ``None`` where none is."""
        categories = (plain_name(category), plain_name(category.rsplit("/", 1)[-1]))
        return next((word for word in categories if word in self.labels), None)

    def require(self, names: Sequence[str], place: Path) -> None:
        """Raise AnnotationError that lists pictures about which nothing is said, or the same as about another."""
        of = {name: self.find(name) for name in names}
        if missing := [name for name, picture in of.items() if picture is None]:
            raise AnnotationError(
                f"{place}: {len(missing)} of {len(names)} pictures have no annotations: {first_few(missing)}; it has "
                f"{first_few(self.pictures)}"
            )
        owner: dict[int, str] = {}
        for name, picture in of.items():
            if (first := owner.setdefault(id(picture), name)) != name:
                raise AnnotationError(f"{place}: expected names with folders, got one that fits {first} and {name}")


def _require_within(shapes: Sequence[Shape], size: tuple[int, int], path: Path) -> None:
    """Raise AnnotationError where outlines in pixels reach far beyond a picture of which they say no size."""
    outlines = [(shape, outline) for shape in shapes if not shape.relative for outline in shape.polygons if outline]
    points = [point for shape, outline in outlines for point in ([_middle(outline)] if shape.is_round else outline)]
    x, y = (max((point[axis] for point in points), default=0.0) for axis in (0, 1))
    if x > _BEYOND * size[1] or y > _BEYOND * size[0]:
        raise AnnotationError(
            f"{path}: expected outlines within the picture, {size} (H, W), got some that reach to x = {x:g}, "
            f"y = {y:g}: they were drawn on a larger copy, of which they say no size; give that, or scale them"
        )


def _middle(outline: Outline) -> tuple[float, float]:
    """The mean of an outline's corners."""
    x, y = np.mean(outline, axis=0)
    return float(x), float(y)
