"""Renumbers a bank's categories as the images' classes, by name where both have names."""

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
        names: of the images' labels 0, 1, ...; empty if unknown.
        needed: variants that need the class of every background.
        option: how a caller says what the classes are called, for the message.
        stacklevel: of the warning.
    """
    if pool.labels is None or pool.classes is None:
        return pool
    if needed and (message := _mismatch_text(pool.classes, names, needed, option)):
        warnings.warn(message, stacklevel=stacklevel + 1)
    return pool.in_classes(names) if names else pool


def _mismatch_text(categories: Sequence[str], names: Sequence[str], needed: Sequence[str], option: str) -> str:
    """The warning about names that do not fit; by the names alone, since reading labels would wait for the device."""
    by_number = "If category 0 goes with class 0, 1 with 1 and so on, pass background_labels=bank.labels, or a bank "
    by_number += "without names: BackgroundBank(bank.images, bank.labels)"
    variants = " and ".join(needed)
    if not names:
        return (
            f"backgrounds: the bank's categories have names ({_first_names(categories)}) and the images' classes none, "
            f"so category 0 counts as class 0, 1 as 1 and so on, for {variants}; pass {option} to go by names. "
            f"{by_number}"
        )
    plain_names = {plain_name(category) for category in categories}
    lacking = [name for name in names if plain_name(name) not in plain_names]
    if len(lacking) == len(names):
        return (
            f"backgrounds: none of the bank's categories ({_first_names(categories)}) is called like a class of the "
            f"data ({_first_names(names)}), so none is an object's own background: {variants} are left out, and with "
            f"them the BG-Gap. {by_number}"
        )
    if lacking:
        return (
            f"backgrounds: {len(lacking)} of {len(names)} classes ({_first_names(lacking)}) are called like none of "
            f"the bank's categories ({_first_names(categories)}): their images have no background of their own, and "
            f"the BG-Gap is over the images of the other {len(names) - len(lacking)} alone"
        )
    return ""


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
