"""The cues that an audit tests: what each one describes, and which feature views belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_bgdebias.audit.gathering import Gathered
from torch_bgdebias.audit.learners import Floats, standardised

__all__ = ["COLUMN", "CUES", "Cue", "View", "cue_of", "views_of"]

#: what begins the name of a column that the user gave
COLUMN = "column "


@dataclass(frozen=True)
class Cue:
    """Something that a class may be read off.

    Attributes:
        name: by which findings refer to it.
        title: in a few words.
        kind: ``background`` pixels that are not the object; ``box`` the object's place and size; ``file`` what a file
            says beside its pixels; ``source`` where pictures come from; ``whole`` the picture with its object.
        unmasked: its title where there are no masks.
        views: tables of numbers that belong to it.
    """

    name: str
    title: str
    kind: str
    views: tuple[str, ...]
    unmasked: str = ""


CUES = (
    Cue("colours", "colours of the background", "background", ("colours",), "colours along the border"),
    Cue("light", "brightness and contrast of the background", "background", ("light",), "brightness along the border"),
    Cue("texture", "texture of the background", "background", ("texture",), "texture along the border"),
    Cue("kinds", "kind of scene in the background", "background", ("patches",), "kind of scene along the border"),
    Cue("sharpness", "sharpness of the background", "background", ("sharpness",), "sharpness along the border"),
    Cue("layout", "coarse layout of the background", "background", ("layout",), "coarse layout along the border"),
    Cue(
        "backbone", "background as the backbone sees it", "background", ("backbone",), "border as the backbone sees it"
    ),
    Cue("border", "strips along the border", "background", ("border",)),
    Cue("corners", "corners", "background", ("corner facts", "corner pixels")),
    Cue("places", "one place of the background", "background", ("places",), "one place along the border"),
    Cue("box", "place and size of the object", "box", ("box",)),
    Cue("size", "size of the picture", "file", ("size",)),
    Cue("compression", "file format and compression", "file", ("compression",)),
    Cue("exif", "EXIF fields", "file", ("exif",)),
    Cue("names", "names of files and folders", "source", ("names",)),
    Cue("file size", "bytes of the file, object included", "whole", ("file size",)),
    Cue(
        "whole", "brightness and sharpness of the picture, object included", "whole", ("whole light", "whole sharpness")
    ),
)


@dataclass(frozen=True)
class View:
    """Standardised numbers (N, d) of one cue; ``grouped``: pictures of one kind may share them, and few do."""

    cue: str
    name: str
    features: Floats

    @property
    def grouped(self) -> bool:
        """Whether groups of similar pictures are used as features."""
        return self.name == "patches"


def cue_of(name: str) -> Cue:
    """The cue of that name; a column of the user's own is one as well."""
    if name.startswith(COLUMN):
        return Cue(name, f"“{name.removeprefix(COLUMN)}”", "source", (name,))
    return next(cue for cue in CUES if cue.name == name)


def views_of(gathered: Gathered) -> list[View]:
    """Every view that says anything, but ``places``, which are looked at one by one.

    Where objects have boxes, what a view of the background owes to the box's place and size is taken out of it by
    regression: the hole that the object leaves must not stand for the background.
    """
    boxes = gathered.views.get("box")
    basis = None if boxes is None else _basis(boxes)
    views = []
    columns = [cue_of(name) for name in gathered.views if name.startswith(COLUMN)]
    for cue in (*CUES, *columns):
        for name in cue.views:
            if name == "places" or name not in gathered.views:
                continue
            features = standardised(gathered.views[name])
            if cue.kind == "background" and basis is not None:
                features = without(features, basis)
            if features.shape[1]:
                views.append(View(cue.name, name, features))
    return views


def without(features: Floats, basis: Floats) -> Floats:
    """Features (N, d) less what an orthonormal basis (N, r) explains of them, standardised again."""
    return standardised(features - basis @ (basis.T @ features))


def _basis(boxes: Floats) -> Floats:
    """Orthonormal columns of what boxes say, and their squares."""
    unit = standardised(boxes)
    with_squares = standardised(np.concatenate([unit, np.square(unit)], axis=1))
    vectors, singular, _ = np.linalg.svd(with_squares.astype(np.float64), full_matrices=False)
    rank_limit = max(1, len(boxes) // 20)  # of few pictures no more than a share is given up
    spanning = singular > 1e-4 * max(float(singular.max(initial=0.0)), 1e-12)
    return np.ascontiguousarray(vectors[:, spanning][:, :rank_limit], np.float32)


def place_bases(places: Floats, cells: int, basis: Floats | None) -> list[tuple[int, Floats]]:
    """The cells that at least half of the pictures show, with orthonormal columns (N, r) of what is there."""
    bases = []
    table = places.reshape(len(places), cells, -1)
    for cell in range(cells):
        if np.isfinite(table[:, cell, 0]).mean() < 0.5:
            continue
        features = standardised(table[:, cell])
        if basis is not None and features.shape[1]:
            features = without(features, basis)
        if not features.shape[1]:
            continue
        vectors, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
        spanning = singular > 1e-3 * max(float(singular.max()), 1e-12)
        bases.append((cell, np.ascontiguousarray(vectors[:, spanning], np.float32)))
    return bases


def box_basis(gathered: Gathered) -> Floats | None:
    """What is to be taken out of the background's numbers; ``None`` without boxes."""
    boxes = gathered.views.get("box")
    return None if boxes is None else _basis(boxes)
