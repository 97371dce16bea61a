"""Derives sub-seeds: many independent random streams from one user's seed."""

from __future__ import annotations

import random

__all__ = ["derive_seed"]


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits for one use of a seed, such as ``derive_seed(seed, "weights")``.

    The parts are hashed (SHA-512 of their text), so neighbouring seeds and steps give unrelated streams, and no two
    uses share one by accident, which ``seed + 1`` and ``seed * n + i`` do.

    Five places draw otherwise, since what they drew is in people's folders and published figures:
    `torch_bgdebias.data.draw_scenes` and `torch_bgdebias.data.example_folder`, whose pictures they are,
    `torch_bgdebias.data.CorrelatedBackgrounds`, `torch_bgdebias.audit.audit`, and
    `torch_bgdebias.backgrounds.generate_backgrounds`, whose manifests hold the seeds. Draws that belong to an image
    hash its content (`torch_bgdebias.probe`).

    Args:
        parts: the seed and what its numbers are for: whole numbers and names, in any order that is always the same.

    Raises:
        TypeError: a part that is neither, such as a float, or no part.

    Example:
        >>> derive_seed(0, "weights") == derive_seed(0, "weights")
        True
        >>> derive_seed(0, "weights") == derive_seed(1, "weights")
        False
    """
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"parts: expected whole numbers and names, got {part!r}")
    if not parts:
        raise TypeError("parts: expected a seed and what its numbers are for, got nothing")
    # names are told from numbers, and a blank inside one from the blanks between: no two lists of parts read alike
    return random.Random(" ".join(map(_text, parts))).getrandbits(63)


def _text(part: int | str) -> str:
    if isinstance(part, int):
        return str(part)
    escaped = part.replace("\\", "\\\\").replace(" ", "\\_")
    return f"\\{escaped}" if not escaped or escaped.lstrip("-").isdigit() else escaped
