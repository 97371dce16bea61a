"""PASCAL VOC's folders with masks: SegmentationClass or SegmentationObject beside Annotations, as in VOCdevkit."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from torch_bgdebias.files import UnreadableImageError, first_few, same_form
from torch_bgdebias.masks.contents import Colour, MaskContents, load_mask, voc_palette
from torch_bgdebias.masks.formats.outlines import AnnotatedPicture, AnnotationError, Flags, Shape, run_lengths_of_plane

__all__ = ["VOC_CLASSES", "read_voc", "voc_folders", "voc_objects"]

#: by the indices 1 to 20 of the published label maps
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_VOID = 255
_VOID_COLOUR: Colour = (224, 224, 192)


def voc_folders(place: Path) -> list[Path]:
    """The folders of this layout that hold masks: ``place`` itself, or the years in a VOCdevkit."""
    candidates = [place, *sorted(place.glob("VOC*")), *sorted(place.glob("VOCdevkit/VOC*"))] if place.is_dir() else []
    return [
        folder
        for folder in candidates
        if (folder / "SegmentationClass").is_dir() or (folder / "SegmentationObject").is_dir()
    ]


def read_voc(folder: Path, stems: Collection[str] | None = None) -> Iterator[tuple[Path, AnnotatedPicture]]:
    """Each mask's file with what it says; pictures are called by their names without ending.

    Label maps of classes are taken where there are some; numbers of objects get their labels from the XML beside them.

    Args:
        folder: one of `voc_folders`.
        stems: read these alone.

    Raises:
        AnnotationError: a mask that cannot be read, or objects without labels.
    """
    classes = folder / "SegmentationClass"
    by_class = classes.is_dir() and any(classes.glob("*.png"))
    names = _label_colours(folder)
    for path in sorted((classes if by_class else folder / "SegmentationObject").glob("*.png")):
        if stems is not None and same_form(path.stem) not in stems:
            continue
        try:
            contents = load_mask(path)
        except UnreadableImageError as error:
            raise AnnotationError(str(error)) from error
        planes = _classes_in(contents, names) if by_class else _objects_in(contents, folder)
        shapes = [
            Shape(label, runs=run_lengths_of_plane(plane), crowd=label == "void") for label, plane in planes.items()
        ]
        yield path, AnnotatedPicture(path.stem, contents.size, tuple(shapes))


def voc_objects(path: Path) -> tuple[str, tuple[int, int] | None, list[tuple[str, tuple[float, ...]]]]:
    """A VOC XML file's picture, its size (H, W), and its objects: label and box (xmin, ymin, xmax, ymax), from 1.

    Raises:
        AnnotationError: a damaged file, or a box that is none.
    """
    try:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8-sig"))
        name = root.findtext("filename") or path.with_suffix(".jpg").name
        sides = [root.findtext(f"size/{side}") for side in ("height", "width")]
        size = (int(sides[0] or 0), int(sides[1] or 0))
        objects = []
        for element in root.iter("object"):
            edges = [float(element.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")]
            objects.append((str(element.findtext("name")), tuple(edges)))
    except (ElementTree.ParseError, ValueError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: expected PASCAL VOC's XML, got a damaged file ({error})") from error
    return name, size if min(size) > 0 else None, objects


def _label_colours(folder: Path) -> Mapping[Colour, str]:
    """Labels by the colours of their masks: those of a ``labelmap.txt``, as exporters write it, else VOC's own."""
    label_map = folder / "labelmap.txt"
    if not label_map.is_file():
        return {_colour(index): name for index, name in enumerate(VOC_CLASSES, start=1)}
    colours: dict[Colour, str] = {}
    try:
        lines = label_map.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{label_map}: expected text in UTF-8, got other bytes ({error})") from error
    for row, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, values = line.partition(":")
        channels = values.split(":")[0].split(",")
        if len(channels) != 3 or not all(channel.strip().isdecimal() for channel in channels):
            raise AnnotationError(f"{label_map}: line {row}: expected label:red,green,blue:parts:actions, got {line!r}")
        red, green, blue = (int(channel) for channel in channels)
        colours[red, green, blue] = name.strip()
    return {colour: name for colour, name in colours.items() if name != "background" and any(colour)}


def _colour(index: int) -> Colour:
    red, green, blue = voc_palette()[index].tolist()
    return red, green, blue


def _classes_in(contents: MaskContents, names: Mapping[Colour, str]) -> dict[str, Flags]:
    """The area of each label of a label map; what no label list has is called by its colour."""
    colours = contents.as_colours() if contents.values.ndim == 3 or contents.palette is not None else None
    if colours is None:  # indices as grey values
        colours = voc_palette()[contents.values.astype(np.uint8)]
    packed = colours.astype(np.int64) @ np.array([65536, 256, 1])
    planes: dict[str, Flags] = {}
    for value in np.unique(packed).tolist():
        colour = (value >> 16, value >> 8 & 255, value & 255)
        if not any(colour):
            continue
        label = "void" if colour == _VOID_COLOUR else names.get(colour, "#{:02x}{:02x}{:02x}".format(*colour))
        planes[label] = (packed == value) | planes.get(label, False)
    return planes


def _objects_in(contents: MaskContents, folder: Path) -> dict[str, Flags]:
    """The area of each label of a map of object numbers: number i is the i-th object of the picture's XML."""
    path = folder / "Annotations" / f"{contents.path.stem}.xml"
    if contents.values.ndim != 2:
        raise AnnotationError(f"{contents.path}: expected numbers of objects (a palette file), got {contents.mode}")
    if not path.is_file():
        raise AnnotationError(f"{contents.path}: expected its objects' labels in {path}, which is not there")
    labels = [label for label, _ in voc_objects(path)[2]]
    planes: dict[str, Flags] = {}
    for number in np.unique(contents.values).tolist():
        if number == 0:
            continue
        if number != _VOID and number > len(labels):
            raise AnnotationError(
                f"{contents.path}: has object {number}, and {path} lists {len(labels)} ({first_few(labels)})"
            )
        label = "void" if number == _VOID else labels[int(number) - 1]
        plane = contents.values == number
        planes[label] = planes[label] | plane if label in planes else plane
    return planes
