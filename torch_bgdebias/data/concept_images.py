"""``ConceptImages``: pictures with the objects of one category, from COCO, VOC or an annotation tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torch_bgdebias.checks import check_share
from torch_bgdebias.data.masked_files import Flags, Grey, MaskedFiles, as_bytes
from torch_bgdebias.data.tensors import JointTransform
from torch_bgdebias.files import first_few, image_files, open_image, same_form
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.formats.outlines import AnnotatedPicture, AnnotationError, drawn

__all__ = ["ConceptImages"]

#: a crowd, a border: neither object nor background
_VOID = "void"


class ConceptImages(MaskedFiles):
    """One item per picture and category: a dog on a sofa is there twice, once with each one's mask.

    That is what concept vectors are fitted and tested on, where a class is what a picture shows among other things. The
    mask is every object of the category; crowds and unlabelled borders are void.

    Args:
        images: folder of the pictures, such as ``val2017`` or ``VOC2012/JPEGImages``.
        annotations: ``instances_val2017.json``, a VOCdevkit (its SegmentationClass masks), or what else
            `torch_bgdebias.data.MaskedImageFolder` takes as annotations.
        classes: categories in the order of their labels; by default all that are annotated, by the alphabet.
        coverage: smallest and largest share of the picture that the objects of a category may cover, as arXiv
            2504.08602 chooses its pictures; ``None``: any.
        boxes: masks are the objects' boxes in place of their outlines, as detection data has them. Where annotations do
            not tell a category's objects apart (SegmentationClass) it is one box around all.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).
        with_void: as in `MaskedImageFolder`.

    Attributes:
        skipped: pictures about which the annotations say nothing.
        left_out: pairs of picture and category that cover too little or too much.

    Raises:
        FileNotFoundError: no picture, or no annotations.
        AnnotationError: annotations that cannot be read, or without any of the categories.
        ValueError: shares outside [0, 1], or not in order.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        classes: Sequence[str] | None = None,
        *,
        coverage: tuple[float, float] | None = (0.04, 0.64),
        boxes: bool = False,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        with_void: bool = False,
    ) -> None:
        super().__init__(size, transform, with_void)
        least, most = _checked(coverage)
        self._root, self._boxes = Path(images), boxes
        paths = image_files(self._root)
        if not paths:
            raise FileNotFoundError(f"{images}: expected pictures in it, found none")
        self._annotations = Annotations.of(Path(annotations), {same_form(path.stem) for path in paths})
        annotated = {path: self._annotations.find(self._name(path)) for path in paths}
        self.skipped = sum(picture is None for picture in annotated.values())
        names = {
            shape.label for picture in annotated.values() if picture for shape in picture.shapes if not shape.crowd
        }
        self.classes = tuple(sorted(names - {_VOID})) if classes is None else tuple(classes)
        self.has_void = self._annotations.has_void
        self.left_out = 0
        for path, picture in annotated.items():
            for label in [] if picture is None else self._labels_in(picture):
                share = float((self._drawn(path, label) == 1).mean())
                if least <= share <= most and share > 0:
                    self.images.append(path)
                    self.labels.append(label)
                else:
                    self.left_out += 1
        if not self.images:
            raise AnnotationError(
                f"{annotations}: expected objects of {first_few(self.classes)} that cover {100 * least:g} to "
                f"{100 * most:g} % of a picture, got none: {self.left_out} cover other shares, {self.skipped} of "
                f"{len(paths)} pictures have no annotations, whose labels are {first_few(sorted(names))}"
            )

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _labels_in(self, picture: AnnotatedPicture) -> list[int]:
        names = {shape.label.casefold() for shape in picture.shapes if not shape.crowd}
        return [label for label, name in enumerate(self.classes) if name.casefold() in names]

    def _drawn(self, path: Path, label: int) -> Grey:
        """0 background, 1 the category's objects, 255 void."""
        name = self._name(path)
        labels: Grey = self._annotations.mask(path, name, self.classes[label])
        if not self._boxes:
            return labels
        picture = self._annotations.find(name)
        assert picture is not None, "it is among the annotated ones"
        boxed = np.where(labels == 255, labels, 0)
        size = picture.size or open_image(path).size[::-1]
        for shape in picture.shapes:
            if shape.crowd or shape.label.casefold() != self.classes[label].casefold():
                continue
            rows, columns = np.nonzero(drawn((shape,), size) == 1)
            if len(rows):
                boxed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
        return boxed

    def _mask(self, index: int) -> Grey:
        return as_bytes(self._drawn(self.images[index], self.labels[index]) == 1)

    def _void(self, index: int) -> Flags:
        void: Flags = self._drawn(self.images[index], self.labels[index]) == 255
        return void


def _checked(coverage: tuple[float, float] | None) -> tuple[float, float]:
    least, most = (0.0, 1.0) if coverage is None else coverage
    check_share(least, name="coverage")
    check_share(most, name="coverage")
    if least > most:
        raise ValueError(f"coverage: expected two shares, the smaller one first, got {coverage!r}")
    return least, most
