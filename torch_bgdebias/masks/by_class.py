"""``ClassMaskReader``: masks in which every class of pictures has labels of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_bgdebias.masks.encodings import Label, MaskEncoding
from torch_bgdebias.masks.reading import MaskPicture, MaskReader

__all__ = ["ClassMaskReader"]

#: masks that are looked at together, and of a class at least
_LOOK_AT, _LEAST = 96, 4


class ClassMaskReader(MaskReader):
    """Reads the masks of one data set, of each class with its own labels as foreground.

    Args:
        wanted: what the user said about the encoding, but for the foreground.
        readers: of each mask file its class's.
    """

    def __init__(self, wanted: MaskEncoding, readers: Mapping[Path, MaskReader]) -> None:
        super().__init__(wanted, {})
        self._readers = dict(readers)
        for reader in {id(reader): reader for reader in readers.values()}.values():
            self.has_void |= reader.has_void
            self.looked_at += reader.looked_at
            self.empty += reader.empty

    @classmethod
    def of_classes(
        cls,
        files: Mapping[str, Sequence[Path]],
        wanted: MaskEncoding,
        foreground: Mapping[str, Sequence[Label | str]],
        *,
        root: Path,
        strict: bool = True,
    ) -> ClassMaskReader:
        """Look at each class's masks together.

        Args:
            files: of each class its mask files.
            wanted: what the user said about the encoding, but for the foreground.
            foreground: of each class the labels that are its object.
            root: the data set's folder, for messages.
            strict: as in ``MaskReader.of_folder``.

        Raises:
            ValueError: labels of other classes than there are, or bad ones.
            MaskEncodingError: as ``MaskReader.of_folder``, for each class by itself.
        """
        if unlike := sorted(set(files) ^ set(foreground)):
            raise ValueError(
                f"foreground: expected labels of each class, {', '.join(files)}, got those of "
                f"{', '.join(foreground)}; not in both: {', '.join(unlike[:6])}"
            )
        readers: dict[Path, MaskReader] = {}
        for name, paths in files.items():
            encoding = dataclasses.replace(
                wanted,
                foreground=foreground[name],  # type: ignore[arg-type]  # which makes a tuple of labels, or of one
            )
            look_at = max(_LEAST, _LOOK_AT // len(files))
            reader = MaskReader.of_folder(paths, encoding, look_at=look_at, root=f"{root}: {name}", strict=strict)
            readers.update(dict.fromkeys(paths, reader))
        return cls(wanted, readers)

    def open(self, path: str | Path) -> MaskPicture:
        """Decode one mask as its class's; see ``MaskReader.open``."""
        return self._readers[Path(path)].open(path)
