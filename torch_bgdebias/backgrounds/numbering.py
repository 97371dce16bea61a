"""A bank's categories in the numbering of the images' classes: by their names, where both have some."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch_bgdebias.backgrounds.pool import Pool
from torch_bgdebias.class_names import plain_name

__all__ = ["numbered_as"]


def numbered_as(pool: Pool, names: Sequence[str], needed: Sequence[str], *, option: str, stacklevel: int) -> Pool:
    """The pool in the numbering of the images' classes, if both have names.

    Warns where some class, or none, is called like a category, and where a category's name cannot be compared.

    Args:
        pool: the backgrounds.
        names: of the images' labels 0, 1, ...; empty where nobody says.
        needed: variants that need the class of every background.
        option: how a caller says what the classes are called, for the message.
        stacklevel: of the warning.
    """
    if pool.labels is None or pool.classes is None:
        return pool
    if needed and (message := _said_of(pool.classes, names, needed, option)):
        warnings.warn(message, stacklevel=stacklevel + 1)
    return pool.in_classes(names) if names else pool


def _said_of(categories: Sequence[str], names: Sequence[str], needed: Sequence[str], option: str) -> str:
    """What to say of names that do not fit; by the names alone, since reading labels would wait for the device."""
    by_number = "If category 0 goes with class 0, 1 with 1 and so on, pass background_labels=bank.labels, or a bank "
    by_number += "without names: BackgroundBank(bank.images, bank.labels)"
    variants = " and ".join(needed)
    if not names:
        return (
            f"backgrounds: the bank's categories have names ({_some_of(categories)}) and the images' classes none, so "
            f"category 0 counts as class 0, 1 as 1 and so on, for {variants}; pass {option} to go by names. {by_number}"
        )
    known = {plain_name(category) for category in categories}
    lacking = [name for name in names if plain_name(name) not in known]
    if len(lacking) == len(names):
        return (
            f"backgrounds: none of the bank's categories ({_some_of(categories)}) is called like a class of the data "
            f"({_some_of(names)}), so none is an object's own background: {variants} are left out, and with them the "
            f"BG-Gap. {by_number}"
        )
    if lacking:
        return (
            f"backgrounds: {len(lacking)} of {len(names)} classes ({_some_of(lacking)}) are called like none of the "
            f"bank's categories ({_some_of(categories)}): their images have no background of their own, and the "
            f"BG-Gap is over the images of the other {len(names) - len(lacking)} alone"
        )
    return ""


def _some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
