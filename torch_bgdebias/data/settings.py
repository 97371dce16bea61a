"""``FolderSettings``: how a masked folder is read, validated once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_bgdebias.checks import check_option, check_share, check_size
from torch_bgdebias.masks.encodings import Label, MaskEncoding, mask_encoding
from torch_bgdebias.names import INTERPOLATIONS

__all__ = ["FolderSettings"]


@dataclass(frozen=True)
class FolderSettings:
    """Options of `torch_bgdebias.data.MaskedImageFolder`, which explains them.

    ``reading`` holds ``encoding``, ``foreground`` and ``void`` in one, ``of_classes`` each class's own foreground.

    Raises:
        ValueError: an unknown option, or a number out of range.
    """

    size: int | tuple[int, int] | None = None
    on_error: str = "raise"
    min_foreground: float = 0.0
    classes: Sequence[str] | None = None
    encoding: str | MaskEncoding = "auto"
    foreground: Sequence[Label | str] | Mapping[str, Sequence[Label | str]] | None = None
    void: Sequence[Label | str] | None = None
    mask_suffix: str = ""
    white: float | None = None
    with_void: bool | None = None
    interpolation: str = "bilinear"
    masks: str | Path | None = None
    max_foreground: float = 1.0

    def __post_init__(self) -> None:
        check_size(self.size)
        check_option(self.interpolation, INTERPOLATIONS, name="interpolation")
        check_option(self.on_error, ("raise", "skip"), name="on_error")
        check_share(self.min_foreground, name="min_foreground", kind="a share")
        check_share(self.max_foreground, name="max_foreground", kind="a share")
        if self.max_foreground < self.min_foreground:
            raise ValueError(
                f"max_foreground: expected at least min_foreground ({self.min_foreground}), got {self.max_foreground}"
            )
        if (labels := self.of_classes) is not None:
            if isinstance(self.encoding, MaskEncoding) and self.encoding.foreground is not None:
                raise ValueError("foreground: expected it once, got it inside the MaskEncoding and beside it")
            for of_class in labels.values():
                MaskEncoding(foreground=of_class)  # type: ignore[arg-type]  # which makes a tuple of it
        _ = self.reading

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size as two numbers."""
        return check_size(self.size)

    @property
    def reading(self) -> MaskEncoding:
        """Encoding, void, and a foreground that is the same for all classes in one."""
        return mask_encoding(
            self.encoding, None if isinstance(self.foreground, Mapping) else self.foreground, self.void
        )

    @property
    def of_classes(self) -> Mapping[str, Sequence[Label | str]] | None:
        """Each class's own foreground, where it was given by class; YAML has numbers for names such as 1 and 2."""
        if not isinstance(self.foreground, Mapping):
            return None
        return {str(name): labels for name, labels in self.foreground.items()}
