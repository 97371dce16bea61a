"""``bgdebias masks --compare``: the overlap of masks with reference masks."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from torch_bgdebias.data.own_labels import said_of_several
from torch_bgdebias.data.reading import MaskSizeError
from torch_bgdebias.files import EXTENSIONS, as_tensor, image_files
from torch_bgdebias.masks.contents import MASK_EXTENSIONS
from torch_bgdebias.masks.encodings import MaskEncoding, mask_encoding
from torch_bgdebias.masks.reading import MaskReader, read_mask

__all__ = ["compare"]


def compare(args: argparse.Namespace, targets: Mapping[Path, Path]) -> None:
    """Print the intersection over union of masks with the given ones of the same names, by class."""
    given_masks = _given_masks(args.compare, args.mask_suffix)
    reader = MaskReader.of_folder(list(given_masks.values()), mask_encoding(args.encoding, args.foreground, args.void))
    if note := said_of_several(reader):
        print(f"bgdebias masks: note: {args.compare}: {note}", file=sys.stderr)
    scores: dict[str, list[float]] = {}
    for target in targets.values():
        name = target.relative_to(args.output)
        if name.with_suffix("") in given_masks and target.exists():
            score = _overlap(target, given_masks[name.with_suffix("")], reader)
            scores.setdefault(name.parent.as_posix(), []).append(score)
    _report(scores, len(targets))


def _given_masks(folder: Path, suffix: str) -> dict[Path, Path]:
    files = image_files(folder, extensions=EXTENSIONS | MASK_EXTENSIONS)
    return {path.relative_to(folder).with_name(path.stem.removesuffix(suffix)): path for path in files}


def _overlap(drawn_file: Path, given_file: Path, reader: MaskReader) -> float:
    """Intersection over union of two mask files where the given one is not void; 1 where both are empty."""
    truth = reader.open(given_file)
    a, b = read_mask(drawn_file, encoding=_encoding_of_written(drawn_file)) > 127, as_tensor(truth.foreground) > 127
    if a.shape != b.shape:
        raise MaskSizeError(
            f"mask {given_file}: expected the size {tuple(a.shape[1:])} of {drawn_file}, got {tuple(b.shape[1:])}"
        )
    if truth.void is not None:
        a = a & (as_tensor(truth.void) == 0)
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _encoding_of_written(path: Path) -> MaskEncoding:
    """Grey files are shares, whatever values one of them holds; palette files say by themselves what they are."""
    with Image.open(path) as picture:
        return MaskEncoding("soft" if picture.mode == "L" else "auto")


def _report(scores: dict[str, list[float]], pictures: int) -> None:
    flat = [score for values in scores.values() for score in values]
    if not flat:
        raise ValueError(f"--compare: no given mask has the name of any of the {pictures} pictures")
    low, _, high = statistics.quantiles(flat, n=4) if len(flat) > 1 else (flat[0],) * 3
    good = sum(score > 0.5 for score in flat) / len(flat)
    print(
        f"intersection over union with {len(flat)} given masks: mean {statistics.mean(flat):.3f}, median "
        f"{statistics.median(flat):.3f}, middle half {low:.3f} to {high:.3f}; above 0.5: {good:.0%}"
    )
    if len(scores) > 1:
        for name, values in sorted(scores.items(), key=lambda item: -statistics.mean(item[1])):
            print(f"  {name:24} {statistics.mean(values):.3f}  ({len(values)})")
