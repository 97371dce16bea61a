"""``load_places365``: scenes of Places365 as backgrounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from torch_bgdebias.checks import check_option, check_size
from torch_bgdebias.data.scenes import Scenes
from torch_bgdebias.files import first_few, folder_listing, read_image, require_files

__all__ = ["load_places365"]


def load_places365(
    root: str | Path,
    size: int | tuple[int, int],
    *,
    split: str = "val",
    small: bool = True,
    categories: Sequence[str] | None = None,
    per_category: int | None = None,
    threads: int | None = None,
) -> Scenes:
    """Read scenes of Places365 as backgrounds, from the folders that torchvision's ``Places365`` uses.

    In ``root``: ``categories_places365.txt``, the split's list (``places365_val.txt``, ``places365_train_standard.txt``
    or ``places365_train_challenge.txt``), and the pictures in ``val_256``, ``data_256_standard``,
    ``data_256_challenge``, or the same with ``large``.

    Args:
        root: the data set's folder.
        size: (H, W) to resize to, or one int for a square.
        split: ``"val"``, ``"train-standard"`` or ``"train-challenge"``.
        small: the 256 x 256 pictures, else the large ones.
        categories: names as in the list without the leading letter (``"ocean"``, ``"forest/broadleaf"``), all when
            ``None``. Labels count them in the order given (the list's order for all).
        per_category: at most this many of each, the first in the list.
        threads: that read; by default one a core.

    Returns:
        ``Scenes(images, labels, names)``, for ``BackgroundBank(scenes.images, scenes.labels)``.

    Raises:
        FileNotFoundError: a list or pictures that are missing, by name.
        ValueError: unknown split or category.
        UnreadableImageError: a picture that cannot be decoded; names it.
    """
    check_option(split, ("val", "train-standard", "train-challenge"), name="split")
    target = check_size(size)
    lines = {
        name: Path(root) / name for name in ("categories_places365.txt", f"places365_{split.replace('-', '_')}.txt")
    }
    for path in lines.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{root}: expected {path.name} in it, found {first_few(folder_listing(Path(root)))}"
            )
    training, validation = (_numbered(path) for path in lines.values())
    index = {name.split("/", 2)[-1]: number for name, number in training}
    names = tuple(index) if categories is None else tuple(categories)
    unknown = [name for name in names if name not in index]
    if unknown:
        raise ValueError(f"categories: {first_few(unknown)} not in {lines['categories_places365.txt']}")
    width = "256" if small else "large"
    folder = Path(root) / (f"val_{width}" if split == "val" else f"data_{width}_{split.removeprefix('train-')}")
    paths: list[list[Path]] = [[] for _ in names]
    position_of = {index[name]: position for position, name in enumerate(names)}
    for name, number in validation:
        members = paths[position_of[number]] if number in position_of else None
        if members is not None and (per_category is None or len(members) < per_category):
            members.append(folder / name.lstrip("/"))
    flat = [path for members in paths for path in members]
    if not flat:
        raise ValueError(f"categories: no picture of {first_few(names)} in {lines[next(reversed(lines))]}")
    require_files(flat, root)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        images = list(pool.map(lambda path: read_image(path, target), flat))
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(members) for members in paths]))
    return Scenes(torch.stack(images), labels, names)


def _numbered(path: Path) -> list[tuple[str, int]]:
    """A name and a number in each line."""
    try:
        pairs = [line.split() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        return [(name, int(number)) for name, number in pairs]
    except ValueError as error:  # text that is none, too many words, no number
        raise ValueError(f"{path}: expected a name and a number in each line, got another file ({error})") from error
