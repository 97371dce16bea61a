"""Groups of a data set's images, from a table or from folder names, in the order of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch_bgdebias.files import first_few
from torch_bgdebias.records import read_table

__all__ = ["groups_from_csv", "groups_from_folders"]


def groups_from_csv(path: str | Path, images: Any, column: str, *, image_column: str | None = None) -> list[str]:
    """The group of every image from a CSV table, for ``groups=`` and ``unit=`` of an evaluation.

    Args:
        path: a CSV file; further columns and rows are passed over.
        images: the data set (one that knows its files: ``MaskedImageFolder``, torchvision's folders, a ``Subset`` of
            them), or the N paths themselves, in the order of the data set.
        column: with the groups' names, such as ``"site"`` or ``"patient"``.
        image_column: with the images' names; the first column when ``None``. A name may be the file's alone, with or
            without its ending, or go with folders from the right (``train/cat/1.jpg``).

    Returns:
        list: N names; an empty cell is a group of that name.

    Raises:
        OSError: no such file.
        TypeError: a data set that does not say which files it reads.
        ValueError: a column is missing, images have no row (the first few are listed), two rows disagree about an
            image, or one row's name fits several images.
    """
    columns, lines = read_table(path)
    key_column = columns[0] if image_column is None and columns else image_column
    for needed in (key_column, column):
        if needed not in columns:
            raise ValueError(f"{path}: expected a column {needed!r}, got {columns}")
    groups: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        name, group = _posix((line[str(key_column)] or "").strip()), (line[column] or "").strip()
        if groups.setdefault(name, group) != group:
            raise ValueError(
                f"{path}, row {number}: {name!r} is in {groups[name]!r} in an earlier row, in {group!r} here"
            )
    return _matched(image_paths(images), groups, str(path))


def groups_from_folders(images: Any, level: int = 1) -> list[str]:
    """The group of every image from the name of one of its parent folders.

    Args:
        images: the data set or the N paths, as for `groups_from_csv`.
        level: 1 is the folder that the image lies in, 2 the one above it.

    Raises:
        TypeError: a data set that does not say which files it reads.
        ValueError: a level below 1, or a path that has no such folder.

    Example:
        >>> groups_from_folders(["hospital_a/cat/1.png", "hospital_b/cat/2.png"], level=2)
        ['hospital_a', 'hospital_b']
    """
    if level < 1:
        raise ValueError(f"level: expected 1 (the folder that the image lies in) or more, got {level}")
    groups = []
    for path in image_paths(images):
        parts = PurePosixPath(_posix(str(path))).parts
        if len(parts) <= level:
            raise ValueError(f"level: expected a folder {level} above every image, got {path}")
        groups.append(parts[-1 - level])
    return groups


def image_paths(images: Any) -> list[Path]:
    """The files of a data set in its order, or the paths themselves.

    Raises:
        TypeError: the data set does not say which files it reads.
    """
    indices = getattr(images, "indices", None)
    if indices is not None and hasattr(images, "dataset"):  # torch.utils.data.Subset
        inner = image_paths(images.dataset)
        return [inner[index] for index in indices]
    entries = images
    for name in ("samples", "images", "paths", "files"):
        if isinstance(getattr(images, name, None), Sequence):
            entries = getattr(images, name)
            break
    if isinstance(entries, Sequence) and not isinstance(entries, str):
        paths = [_path_of(entry) for entry in entries]
        if paths and all(path is not None for path in paths):
            return [path for path in paths if path is not None]
    raise TypeError(
        f"images: expected a data set that lists its files (samples, images, paths or files), or their paths, got "
        f"{type(images).__name__}; pass the paths in the order of the data set"
    )


def _path_of(entry: Any) -> Path | None:
    """A path from itself, from ``item.image``, or from the beginning of a tuple."""
    entry = getattr(entry, "image", entry)
    if isinstance(entry, tuple) and entry:
        entry = entry[0]
    return Path(entry) if isinstance(entry, str | Path) else None


def _matched(paths: Sequence[Path], groups: dict[str, str], table: str) -> list[str]:
    owner: dict[str, Path] = {}
    matched: list[str] = []
    missing = []
    for path in paths:
        name = next((name for name in _spellings(path) if name in groups), None)
        if name is None:
            missing.append(str(path))
            continue
        if owner.setdefault(name, path) != path:
            raise ValueError(
                f"{table}: {name!r} fits several images, {owner[name]} and {path}; write their folders into the table"
            )
        matched.append(groups[name])
    if missing:
        raise ValueError(f"{table}: no row for {len(missing)} of {len(paths)} images: {first_few(missing)}")
    return matched


def _spellings(path: Path) -> list[str]:
    """The names that a table may have for a file: all its folders, ever fewer, each with and without its ending."""
    parts = PurePosixPath(_posix(str(path))).parts
    endings = [PurePosixPath(*parts[start:]) for start in range(len(parts))]
    return [str(name) for ending in endings if ending.name for name in (ending, ending.with_suffix(""))]


def _posix(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")
