"""What to do where pictures of a class hold labels of other objects, too, as VOC's do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch_bgdebias.data.pairing import MaskedSample
from torch_bgdebias.files import first_few, spread
from torch_bgdebias.masks.encodings import Label, MaskEncodingError
from torch_bgdebias.masks.reading import MaskReader
from torch_bgdebias.masks.several import own_labels, shared_labels

__all__ = ["look_at_labels", "masks_by_class", "said_of_several"]

#: masks that are read, of a class at most and at least, and of all at most where there are not too many classes
_OF_A_CLASS, _LEAST, _OF_ALL = 12, 2, 600
#: so many classes' labels are listed in a message
_LISTED = 40


def masks_by_class(samples: Iterable[MaskedSample], n_classes: int) -> list[list[Path]]:
    """Of each class the masks."""
    masks: list[list[Path]] = [[] for _ in range(n_classes)]
    for sample in samples:
        masks[sample.label].append(sample.mask)
    return masks


def look_at_labels(masks: MaskReader, samples: Sequence[MaskedSample], classes: Sequence[str], root: Path) -> None:
    """Warn where masks hold several labels in a picture, which all count as one object.

    Args:
        masks: read as nobody said that they be.
        samples: all of the folder.
        classes: their names.
        root: the folder, for messages.

    Raises:
        MaskEncodingError: classes have labels of their own, and others beside them are objects of other classes.
    """
    if masks.several is None:
        return
    look_at = max(_LEAST, min(_OF_A_CLASS, _OF_ALL // max(1, len(classes))))
    of_class = masks_by_class(samples, len(classes))
    by_class = [[masks.labels_of(path) for path in spread(paths, look_at)] for paths in of_class]
    own = own_labels(by_class)
    others = shared_labels(by_class, own)
    if sum(map(bool, own)) < 2 or not others:
        warnings.warn(f"{root}: {said_of_several(masks)}", stacklevel=3)
        return
    with_own = [(name, of_one) for name, of_one in zip(classes, own, strict=True) if of_one]
    without = [name for name, of_one in zip(classes, own, strict=True) if not of_one]
    options = {name: [_plain(label) for label in of_one] for name, of_one in with_own[:_LISTED]}
    words = ",".join(f"{name}={','.join(map(str, of_one))}" for name, of_one in options.items())
    rest = f", and of {len(with_own) - _LISTED} classes more" if len(with_own) > _LISTED else ""
    rest += f" and of {first_few(without)}, which have none that all their masks hold" if without else ""
    raise MaskEncodingError(
        f"{root}: {_opening(masks)}, and nearly all masks of a class hold one of its own: is what is beside it "
        f"({_listed(others)}) part of the object, or another one? Say {_all_option(masks)} if all is one object, or "
        f"with each class's own labels foreground={json.dumps(options, ensure_ascii=False)} (--foreground "
        f"'{words}'){rest}"
    )


def said_of_several(masks: MaskReader) -> str:
    """What to say of masks with several labels in a picture that count as one object; empty where there are none."""
    if masks.several is None:
        return ""
    return (
        f"{_opening(masks)}: all but background and void are taken for one object; say {_all_option(masks)} if that is "
        "right, or foreground=[...] with the labels that are object"
    )


def _opening(masks: MaskReader) -> str:
    assert masks.several is not None
    example, labels = masks.several
    return f"masks hold several labels in a picture ({example.parent.name}/{example.name}: {_listed(labels)})"


def _all_option(masks: MaskReader) -> str:
    assert masks.several is not None
    return f'encoding="{"colour" if any(isinstance(label, tuple) for label in masks.several[1]) else "index"}"'


def _listed(labels: frozenset[Label]) -> str:
    return first_few((str(_plain(label)) for label in sorted(labels, key=_order)), 6)


def _order(label: Label) -> tuple[bool, tuple[int, ...]]:
    return isinstance(label, tuple), label if isinstance(label, tuple) else (label,)


def _plain(label: Label) -> int | str:
    return "#{:02x}{:02x}{:02x}".format(*label) if isinstance(label, tuple) else label
