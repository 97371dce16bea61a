"""``MaskEncoding``: how mask files encode the object."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import numpy as np

from torch_bgdebias.checks import check_option
from torch_bgdebias.files import first_few
from torch_bgdebias.masks.contents import Colour
from torch_bgdebias.names import MASK_ENCODINGS

__all__ = ["Label", "MaskEncoding", "MaskEncodingError", "colour_of", "mask_encoding"]

#: a value, a label's number, or a colour
Label: TypeAlias = int | Colour


class MaskEncodingError(ValueError):
    """The values of masks do not determine their meaning; the message says which option settles it."""


@dataclasses.dataclass(frozen=True)
class MaskEncoding:
    """How mask files say what is object.

    Args:
        kind: ``"auto"``: found out from the files, or an error that shows what they hold. ``"binary"``: two values (or
            colours), the brighter is object. ``"index"``: label numbers (of a palette file its indices), all but 0 are
            object. ``"soft"``: grey levels up to white. ``"alpha"``: the channel of transparency. ``"colour"``: label
            colours, all but black are object.
        foreground: the values, label numbers or colours that are object, where not all are. ``[0]`` turns binary and
            soft masks round.
        void: those that are neither object nor background. ``None``: 255 beside other labels, VOC's (224, 224, 192);
            ``()``: none.
        white: the value of full foreground in binary and soft masks; ``None``: by the type of the values.

    Raises:
        ValueError: unknown kind, labels that are neither whole numbers nor colours, or given as both; ``white`` that
            is not above 0.
    """

    kind: str = "auto"
    foreground: tuple[Label, ...] | None = None
    void: tuple[Label, ...] | None = None
    white: float | None = None

    def __post_init__(self) -> None:
        check_option(self.kind, MASK_ENCODINGS, name="encoding")
        for name in ("foreground", "void"):
            value = getattr(self, name)
            if value is not None:
                labels = [value] if isinstance(value, int | str) else value
                object.__setattr__(self, name, tuple(colour_of(label, name=name) for label in labels))
        if self.white is not None and not 0 < self.white < math.inf:
            raise ValueError(f"white: expected the value of full foreground, above 0, got {self.white}")
        if self.foreground == ():
            raise ValueError("foreground: expected some labels, got none")
        in_both = set(self.foreground or ()) & set(self.void or ())
        if in_both:
            raise ValueError(
                f"void: expected other labels than foreground, got {first_few(sorted(in_both, key=str))} in both"
            )

    @property
    def by_colour(self) -> bool:
        """Whether labels are given as colours."""
        return any(isinstance(label, tuple) for label in (*(self.foreground or ()), *(self.void or ())))


def mask_encoding(
    encoding: str | MaskEncoding, foreground: Sequence[Label | str] | None, void: Sequence[Label | str] | None
) -> MaskEncoding:
    """The settings object of what was said about masks.

    Raises:
        ValueError: bad settings, or ``foreground`` or ``void`` beside a ``MaskEncoding``.
    """
    if not isinstance(encoding, MaskEncoding):
        return MaskEncoding(encoding, foreground, void)  # type: ignore[arg-type]  # which makes tuples of them
    if foreground is not None or void is not None:
        raise ValueError("encoding: expected foreground and void inside the MaskEncoding, got them beside it")
    return encoding


def colour_of(label: object, *, name: str) -> Label:
    """A label as whole number, or as colour from (r, g, b) or ``"#rrggbb"``.

    Raises:
        ValueError: anything else.
    """
    if isinstance(label, str) and len(label) == 7 and label[0] == "#":
        try:
            return int(label[1:3], 16), int(label[3:5], 16), int(label[5:7], 16)
        except ValueError:
            pass
    if isinstance(label, str) and label.strip().isdecimal():
        return int(label)
    if isinstance(label, tuple | list) and len(label) == 3 and all(_is_whole(part) and part <= 255 for part in label):
        return int(label[0]), int(label[1]), int(label[2])
    if _is_whole(label):
        return int(label)
    raise ValueError(f"{name}: expected whole numbers from 0 or colours (r, g, b) or '#rrggbb', got {label!r}")


def _is_whole(value: object) -> TypeGuard[int | np.integer | float]:
    return isinstance(value, int | np.integer | float) and bool(0 <= value < math.inf and int(value) == value)
