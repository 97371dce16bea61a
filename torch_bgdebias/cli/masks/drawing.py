"""``bgdebias masks --from`` and ``convert``: annotation files drawn as mask files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from torch_bgdebias.cli.progress import progress
from torch_bgdebias.files import UnreadableImageError, first_few
from torch_bgdebias.masks.contents import voc_palette
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.making.folder import MadeFolder, targets_of
from torch_bgdebias.writing import marked_folder, whole_file

__all__ = ["convert", "draw"]


def draw(args: argparse.Namespace, root: Path, targets: Mapping[Path, Path]) -> MadeFolder:
    """The masks of a folder's pictures, of their annotations."""
    annotations = Annotations.of(args.annotations, {path.stem for path in targets})
    names = {path: path.relative_to(root).as_posix() for path in targets}
    annotations.require(list(names.values()), args.annotations)
    summary = MadeFolder()
    folder = args.output if args.to is None else args.to
    with marked_folder(folder):
        for path, target in progress(targets.items(), total=len(targets), label="masks"):
            if target.exists() and not args.overwrite:
                summary.unchanged += 1
                continue
            try:
                _write(annotations.mask(path, names[path]), target)
                summary.written += 1
            except UnreadableImageError as error:
                if args.on_error == "raise":
                    raise
                summary.skipped.append((path, str(error)))
    return summary


def convert(args: argparse.Namespace) -> int:
    """``bgdebias masks convert FROM --to DIR``: a mask for every picture that annotations speak of."""
    if args.to is None or args.input != Path("convert"):
        raise ValueError("expected: bgdebias masks convert FROM --to DIR [--images IMAGES]")
    args.annotations = args.output
    if args.images is not None:
        root = args.images / "images" if (args.images / "images").is_dir() else args.images
        summary = draw(args, root, targets_of(root, args.to))
    else:
        summary = _draw_alone(args, Annotations.of(args.annotations))
    remaining = f", {summary.unchanged} kept as they were" if summary.unchanged else ""
    print(f"{summary.written} masks written to {args.to}{remaining}")
    if summary.empty:
        print(f"{len(summary.empty)} of them hold no object: {first_few(summary.empty, 3)}")
    return 0


def _draw_alone(args: argparse.Namespace, annotations: Annotations) -> MadeFolder:
    summary = MadeFolder()
    targets: dict[Path, str] = {}
    for name in annotations.pictures:
        inside = Path(*[part for part in Path(name).parts if part not in ("..", "/", ".")])  # never out of the folder
        target = (args.to / inside).with_suffix(".png") if inside.suffix else args.to / f"{inside}.png"
        if target in targets:
            raise ValueError(f"{targets[target]} and {name} would both have the mask {target}: convert with --images")
        targets[target] = name
    with marked_folder(args.to):
        for target, name in progress(targets.items(), total=len(targets), label="masks"):
            if target.exists() and not args.overwrite:
                summary.unchanged += 1
                continue
            labels = annotations.drawn_alone(name)
            _write(labels, target)
            summary.written += 1
            if not (labels == 1).any():
                summary.empty.append(name)
    return summary


def _write(labels: Any, target: Path) -> None:
    """A label map with VOC's palette, which viewers show and every reader of masks knows."""
    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette().ravel().tolist())
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="PNG")
