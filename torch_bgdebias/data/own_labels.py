"""What to do where pictures of a class hold labels of other objects, too, as VOC's do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch_bgdebias.data.pairing import MaskedSample
from torch_bgdebias.files import first_few, spread
from torch_bgdebias.masks.encodings import Label, MaskEncodingError
from torch_bgdebias.masks.reading import MaskReader
from torch_bgdebias.masks.several import own_labels, shared_labels

__all__ = ["look_at_labels"]

#: masks that are read, of a class at most and at least, and of all at most where there are not too many classes
_OF_A_CLASS, _LEAST, _OF_ALL = 12, 2, 600
#: so many classes' labels are listed in a message
_LISTED = 40


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
    example, labels = masks.several
    is_coloured = any(isinstance(label, tuple) for label in labels)
    all_option = f'encoding="{"colour" if is_coloured else "index"}"'
    opening = f"{root}: masks hold several labels in a picture ({example.parent.name}/{example.name}: {_listed(labels)}"
    look_at = max(_LEAST, min(_OF_A_CLASS, _OF_ALL // max(1, len(classes))))
    of_class = [[sample.mask for sample in samples if sample.label == label] for label in range(len(classes))]
    by_class = [[masks.labels_of(path) for path in spread(paths, look_at)] for paths in of_class]
    own = own_labels(by_class)
    others = shared_labels(by_class, own)
    if sum(map(bool, own)) < 2 or not others:
        warnings.warn(
            f"{opening}): all but background and void are taken for one object; say {all_option} if that is right, or "
            "foreground=[...] with the labels that are object",
            stacklevel=3,
        )
        return
    with_own = [(name, of_one) for name, of_one in zip(classes, own, strict=True) if of_one]
    without = [name for name, of_one in zip(classes, own, strict=True) if not of_one]
    options = {name: [_plain(label) for label in of_one] for name, of_one in with_own[:_LISTED]}
    words = ",".join(f"{name}={','.join(map(str, of_one))}" for name, of_one in options.items())
    rest = f" and of {first_few(without)}, which have none that all their masks hold" if without else ""
    raise MaskEncodingError(
        f"{opening}), and nearly all masks of a class hold one of its own: is what is beside it ({_listed(others)}) "
        f"part of the object, or another one? Say {all_option} if all is one object, or with each class's own labels "
        f"foreground={json.dumps(options, ensure_ascii=False)} (--foreground '{words}'){rest}"
    )


def _listed(labels: frozenset[Label]) -> str:
    return first_few((str(_plain(label)) for label in sorted(labels, key=_order)), 6)


def _order(label: Label) -> tuple[bool, tuple[int, ...]]:
    return isinstance(label, tuple), label if isinstance(label, tuple) else (label,)


def _plain(label: Label) -> int | str:
    return "#{:02x}{:02x}{:02x}".format(*label) if isinstance(label, tuple) else label
