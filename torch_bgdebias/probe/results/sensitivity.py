"""``MaskSensitivity``: how much figures change with masks of lower quality, and what that implies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch_bgdebias.checks import check_share

__all__ = ["TOLERANCE", "MaskRow", "MaskSensitivity"]

#: how far a BG-Gap may move before it is not to be trusted
TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class MaskRow:
    """One measurement with one kind of mask damage.

    Attributes:
        name: what was done to the masks; ``"as given"`` for nothing.
        overlap: mean intersection over union with the masks as given.
        images: how many were measured.
        figures: ``bg_gap`` and the means of further scores, in fractions.
        chance: how far off the change of ``bg_gap`` may be on so few images, half of its paired interval; NaN where
            nothing is compared.
    """

    name: str
    overlap: float
    images: int
    figures: Mapping[str, float]
    chance: float = math.nan


@dataclasses.dataclass(frozen=True)
class MaskSensitivity:
    """Measurements of one model with masks of several qualities; the first uses the masks as given.

    Args:
        rows: the measurements.
        quality: overlap of the masks that are meant with right ones; ``None`` if unknown.

    Raises:
        ValueError: a quality outside of [0, 1].
    """

    rows: tuple[MaskRow, ...]
    quality: float | None = None

    def __post_init__(self) -> None:
        if self.quality is not None:
            check_share(self.quality, name="quality", kind="an intersection over union")

    def change(self, row: MaskRow, figure: str = "bg_gap") -> float:
        """The difference of a figure from that with the masks as given; NaN if either is unknown."""
        return row.figures.get(figure, math.nan) - self.rows[0].figures.get(figure, math.nan)

    def within(self, quality: float, figure: str = "bg_gap") -> float | None:
        """The largest change of a figure among masks that overlap by ``quality`` or more.

        The next worse ones that were tried count too, so that nothing is read between two of them.

        Returns:
            The largest change, without sign; ``None`` where no masks so bad were tried, or a figure is not known.
        """
        worse = [row.overlap for row in self.rows[1:] if row.overlap <= quality]
        if not worse:
            return None
        changes = [abs(self.change(row, figure)) for row in self.rows[1:] if row.overlap >= max(worse)]
        return None if any(math.isnan(change) for change in changes) else max(changes)

    def chance(self) -> str:
        """The precision of a change on these images, in words; empty if unknown."""
        chances = [row.chance for row in self.rows[1:] if math.isfinite(row.chance)]
        if not chances:
            return ""
        return f" On {self.rows[0].images} images each change is known to ± {100 * max(chances):.1f} points at worst."

    def trusted_from(self, tolerance: float = TOLERANCE, figure: str = "bg_gap") -> float | None:
        """The smallest overlap from which no figure changed by more than ``tolerance``; ``None`` if all did."""
        least = None
        for row in sorted(self.rows[1:], key=lambda row: -row.overlap):
            if not abs(self.change(row, figure)) <= tolerance:
                break
            least = row.overlap
        return least

    def sentence(self, tolerance: float = TOLERANCE) -> str:
        """What the masks' quality implies for the BG-Gap, including where it cannot be trusted."""
        points = 100 * tolerance
        if self.quality is None:
            least = self.trusted_from(tolerance)
            if least is None:
                return (
                    f"The BG-Gap moved by more than {points:g} points with the least damage to the masks that was "
                    "tried: unless the masks are right, it cannot be trusted."
                )
            return (
                f"The BG-Gap stayed within {points:g} points as long as masks overlapped with the given ones by "
                f"{least:.2f} on average: compare some with drawn ones (bgdebias masks --compare) before relying on "
                f"it.{self.chance()}"
            )
        moved = self.within(self.quality)
        if moved is None:
            return (
                f"No masks as bad as an overlap of {self.quality:.2f} were tried, or the BG-Gap is not known: with "
                "masks of this quality it cannot be trusted."
            )
        if moved > tolerance:
            return (
                f"With masks of this quality (overlap {self.quality:.2f}) the BG-Gap cannot be trusted to {points:g} "
                f"points: it moved by up to {100 * moved:.1f}.{self.chance()}"
            )
        return (
            f"With masks of this quality (overlap {self.quality:.2f}) the BG-Gap is right to ± {100 * moved:.1f} "
            f"points, as far as it moved with all masks as good that were tried.{self.chance()}"
        )

    def summary(self) -> str:
        """A table as text, and the sentence."""
        names = list(self.rows[0].figures)
        lines = [f"{'masks':<26} overlap  " + "  ".join(f"{name:>12}" for name in names)]
        for row in self.rows:
            figures = "  ".join(
                _spelled(row.figures.get(name, math.nan), name).rjust(max(12, len(name))) for name in names
            )
            lines.append(f"{row.name:<26} {row.overlap:7.2f}  {figures}")
        return "\n".join([*lines, self.sentence()])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and text; what is not known as ``None``."""
        rows = [
            {
                "name": row.name,
                "overlap": row.overlap,
                "images": row.images,
                "chance": None if math.isnan(row.chance) else row.chance,
                "figures": {name: None if math.isnan(value) else value for name, value in row.figures.items()},
            }
            for row in self.rows
        ]
        return {"quality": self.quality, "sentence": self.sentence(), "rows": rows}


def _spelled(value: float, name: str) -> str:
    """Pixel ratios as they are, all else in percent or points."""
    if math.isnan(value):
        return "not known"
    return f"{value:.3f}" if name.startswith("pixel_ratio") else f"{100 * value:.1f}"
