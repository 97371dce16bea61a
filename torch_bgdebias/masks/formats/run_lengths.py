"""COCO's compressed run lengths, which other formats use too."""

from __future__ import annotations

__all__ = ["run_lengths_of"]


def run_lengths_of(counts: str) -> tuple[int, ...]:
    """COCO's compressed run lengths as numbers.

    Six bits a character above 48, the sixth of which says whether more follow; from the third number on the difference
    to the number two before is kept.
    """
    numbers: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value, shift = 0, 0
    return tuple(numbers)
