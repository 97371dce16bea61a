"""Pictures and masks with an EXIF orientation flag: which are rotated, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_bgdebias.data.pairing import MaskedSample
from torch_bgdebias.files import orientation, spread

__all__ = ["fitting_turn", "said_of_turned"]

#: so many pictures, and masks, are looked into
_LOOK_AT = 500
_NO_FLAGS = (".bmp", ".gif", ".npy", ".npz", ".pgm", ".ppm")
#: what undoes a turn of 90 degrees; the others undo themselves
_BACK = {6: 8, 8: 6}


def fitting_turn(image: Path, mask: Path | None) -> int:
    """The turn that makes a mask fit which lies across its picture.

    Args:
        image: the picture's file.
        mask: the mask's, ``None`` where there is none. A flag of its own has been followed, and goes before the
            picture's: it was copied from the picture together with everything else that is not pixels.
    """
    mask_turn = 1 if mask is None or mask.suffix.lower() in _NO_FLAGS else orientation(mask)
    return _BACK.get(mask_turn, mask_turn) if mask_turn > 4 else orientation(image)


def said_of_turned(samples: Sequence[MaskedSample], *, annotated: bool) -> Iterator[str]:
    """What nothing shows: whether a mask was drawn before or after a turn by 180 degrees, or of a square picture.

    Args:
        samples: pictures and masks.
        annotated: the masks' files are lists of outlines.
    """
    suffixes = {sample.image: sample.image.suffix.lower() for sample in samples}
    may_have = [path for path, suffix in suffixes.items() if suffix not in (*_NO_FLAGS, ".png")]
    flagged = [(path, turn) for path in spread(may_have, _LOOK_AT) if (turn := orientation(path)) > 1]
    if flagged:
        path, turn = flagged[0]
        yield (
            f"{len(flagged)} pictures ({path.name}: EXIF orientation {turn}) were stored turned and are read upright; "
            "their masks must be drawn on the upright picture (a mask of the stored size turns with it)"
        )
    if annotated:
        return
    masks = spread([sample for sample in samples if sample.mask.suffix.lower() not in _NO_FLAGS], _LOOK_AT // 5)
    masks_turned_otherwise = [
        (mask, turn) for image, mask, _ in masks if (turn := orientation(mask)) not in (1, orientation(image))
    ]
    if masks_turned_otherwise:
        path, turn = masks_turned_otherwise[0]
        yield (
            f"{len(masks_turned_otherwise)} masks ({path.name}: EXIF orientation {turn}) say that they are turned "
            "otherwise than their pictures, and are read so; where they do not lie on their objects, save them without "
            "the flag"
        )
