"""The folders of classes: which there are and in which order, and what a path is that has none."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch_bgdebias.files import EXTENSIONS, category_folders, first_few, folder_listing, image_files

__all__ = ["class_names", "folder_names", "no_images_text", "pictures_root", "warn_of_order"]

#: names of the parts of a data set, one folder above its classes
_SPLITS = frozenset(("dev", "test", "testing", "train", "training", "trainval", "val", "valid", "validation"))
_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")
_TABLES = (".arrow", ".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv")
_READ_SHARDS = "webdataset's shards are read in Python: MaskedStream of torch_bgdebias.data, whose items are fields"
_READ_TABLES = (
    "tables and lists of files are read in Python: MaskedItems of torch_bgdebias.data, whose items are fields"
)


def pictures_root(root: Path, *, masks_elsewhere: bool) -> Path:
    """The folder of the classes' folders.

    Args:
        root: the data set's folder.
        masks_elsewhere: masks are said to lie elsewhere or beside the images: without ``images`` the classes may then
            lie in ``root`` itself, as torchvision's ``ImageFolder`` has them.

    Returns:
        ``root/images``, or ``root``.
    """
    images = root / "images"
    if not masks_elsewhere or images.is_dir() or not root.is_dir():
        return images
    return root if any(_holds_pictures(folder) for folder in category_folders(root)) else images


def folder_names(images: Path, masks: Path | None = None) -> list[str]:
    """The names of the classes' folders, in label order.

    Args:
        images: the folder that they lie in.
        masks: where masks or annotations are: neither their folder nor one that holds nothing else is a class.
    """
    there = category_folders(images)
    if masks is not None:
        place = masks.resolve()
        there = [path for path in there if not _holds_masks_alone(path, place)]
    return [path.name for path in there]


def _holds_masks_alone(folder: Path, masks: Path) -> bool:
    own = folder.resolve()
    if own == masks or own not in masks.parents:
        return own == masks
    return all(masks in path.resolve().parents for path in image_files(folder))


def class_names(
    root: Path,
    wanted: Sequence[str] | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
) -> list[str]:
    """The classes of ``root/images`` in label order: by name; by number where all names are whole numbers.

    Args:
        root: the data set's folder.
        wanted: the classes to take, in their order; a name may hold slashes (``"a/abbey"``).
        images: the folder of the classes, where it is another one.
        masks: as in `folder_names`.

    Raises:
        FileNotFoundError: no ``images`` folder, or none in it.
        TypeError: wanted classes that are no names.
        ValueError: wanted classes that are not there or come twice, folders whose names look alike, or parts in place
            of classes.
    """
    images = root / "images" if images is None else images
    if not images.is_dir():
        raise FileNotFoundError(f"{root}: {no_images_text(root)}")
    there = folder_names(images, masks)
    if not there:
        raise FileNotFoundError(f"{images}: expected one folder per class, found none{_pictures_themselves(images)}")
    if wanted is not None:
        if isinstance(wanted, str) or not all(isinstance(name, str | int) for name in wanted):
            raise TypeError(f"classes: expected a list of names of folders, got {wanted!r}")
        chosen = [str(name) for name in wanted]
        if twice := [name for name, times in Counter(chosen).items() if times > 1]:
            raise ValueError(f"classes: expected each name once, got {first_few(twice)} more often")
        absent = [name for name in chosen if not (images / name).is_dir()]
        if absent:
            raise ValueError(f"classes: {first_few(absent)} not in {images}, which has {first_few(there, 20)}")
        return chosen
    parts = [name for name in there if name.lower() in _SPLITS]
    if len(parts) > 1 or parts == there:
        raise ValueError(
            f"{images}: expected one folder per class, got the parts {first_few(parts)} of a data set; give each part "
            f"a folder of its own: {parts[0]}/images/<class>/ and {parts[0]}/masks/<class>/ (or say classes=)"
        )
    warn_of_order(images, there)
    return there


def warn_of_order(images: Path, names: Sequence[str]) -> None:
    """Warn where a number of a class may not be what a model's output has.

    Args:
        images: the folder of the classes' folders, for messages.
        names: of these, in label order.
    """
    names = list(names)
    if names != sorted(names):
        warnings.warn(
            f"{images}: the classes are numbers and are taken in their order, {first_few(names, 3)}; torchvision's "
            "ImageFolder sorts them as text (10 before 2): for a model trained with that, pass classes= in its order",
            stacklevel=4,
        )
    elif (natural := sorted(names, key=_in_numbers)) != names:
        warnings.warn(
            f"{images}: the classes come in the order of their names as text, {first_few(names, 3)}, as torchvision's "
            f"ImageFolder has them, and not by their numbers, {first_few(natural, 3)}; pass classes= for another order",
            stacklevel=4,
        )
    elif all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        if numbers not in (list(range(len(names))), list(range(1, len(names) + 1))):
            warnings.warn(
                f"{images}: the classes are the numbers {first_few(names)}, and class {names[0]} has label 0; if a "
                "model's outputs have these numbers, say so with labels",
                stacklevel=4,
            )
    alike = Counter(name.lower().strip() for name in names)
    if twins := [repr(name) for name in names if alike[name.lower().strip()] > 1]:
        warnings.warn(
            f"{images}: the classes {first_few(twins)} differ in capitals or blanks only; are they one?", stacklevel=4
        )


def _in_numbers(name: str) -> list[tuple[int, str]]:
    """A key that takes runs of digits for numbers: class_2 before class_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def no_images_text(root: Path) -> str:
    """The error text for a path without ``images/``: what it is, and what to do."""
    expected = "expected images/<class>/ and masks/<class>/ in it"
    if root.is_file():
        kind, advice = "a file", "give the folder that it lies in"
        if root.suffix.lower() in _ARCHIVES:
            kind, advice = "an archive", f"unpack it; {_READ_SHARDS}"
        elif root.suffix.lower() in _TABLES:
            kind, advice = "a table", _READ_TABLES
        return f"{expected}, got {kind}; {advice}"
    listed = folder_listing(root)
    expected += f", found no folder {root / 'images'}; it holds {first_few(listed, 8)}"
    return expected + _advice(root, [root / name for name in listed])


def _advice(root: Path, there: Sequence[Path]) -> str:
    for path in there:
        if path.is_dir() and path.name.strip().lower() == "images":
            return f"; {path.name!r} differs from 'images' in capitals or blanks only: rename it"
    if parts := [path for path in there if path.name.lower() in _SPLITS and (path / "images").is_dir()]:
        return f"; give one of its parts: {parts[0]}"
    if root.name == "images" or (root.parent / "masks").is_dir():
        return f"; if it is the folder of images itself, give {root.parent}"
    if any(path.suffix.lower() in _ARCHIVES for path in there):
        return f"; unpack it; {_READ_SHARDS}"
    if any(path.suffix.lower() in _TABLES for path in there):
        return f"; {_READ_TABLES}"
    if classes := [path.name for path in there if path.is_dir() and _holds_pictures(path)]:
        name = classes[0]
        return (
            f"; if {first_few(classes, 3)} are classes, say masks= (--masks) where their masks are, MASKS/{name}/x.png "
            f"for {root / name}/x.jpg, or move them into a folder {root / 'images'}, with masks in {root / 'masks'}"
        )
    return ""


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())


def _pictures_themselves(images: Path) -> str:
    """A warning about pictures that lie in no folder of a class; empty where there are none."""
    names = [path.name for path in sorted(images.iterdir()) if path.suffix.lower() in EXTENSIONS]
    if not names:
        return ""
    if any("\\" in name for name in names):
        return (
            f", but {len(names)} pictures whose names hold backslashes ({first_few(names, 2)}): they were unpacked by "
            "a program that takes folders for parts of names; unpack them again with another"
        )
    beside = [path.name for place in (images, images.parent) for path in place.iterdir()]
    tables = sorted(name for name in beside if Path(name).suffix.lower() in _TABLES)
    table = f"; {tables[0]} may have their classes: {_READ_TABLES}" if tables else ""
    advice = f"move them into folders of classes, images/<class>/{table}"
    return f", but {len(names)} pictures ({first_few(names, 2)}): {advice}"
