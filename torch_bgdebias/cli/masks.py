"""``bgdebias masks``: write foreground masks for a folder of pictures, and say how good they are."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli.arguments import add_mask_arguments
from torch_bgdebias.cli.progress import note, progress

if TYPE_CHECKING:
    from torch_bgdebias.masks.reading import MaskReader

__all__ = ["add_parser", "run"]

_EPILOG = """\
examples:
  bgdebias masks data/images data/masks                       data/ then opens as MaskedImageFolder("data")
  bgdebias masks data out --compare data/masks                measure the masks against given ones
  bgdebias masks data/images data/masks --margin 0.1 --iterations 10
  bgdebias masks data/images data/masks --from instances.json  outlines of COCO, CVAT or a folder of LabelMe files

IN may also be a folder that holds images/. Masks are 8-bit PNG of the picture's size, 255 = foreground, at OUT/<class>/
<name>.png, where IN has <class>/<name>.jpg. GrabCut takes the border of the picture for background: masks of objects
that touch the border are poor, so compare with some given masks before relying on them. With --from, masks are palette
PNG: 1 object, 255 void (COCO's crowds); a class folder that is called as a label takes that label's outlines alone.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "masks",
        help="write foreground masks for a folder of pictures",
        description="Write GrabCut foreground masks for every picture in a folder (needs OpenCV).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="IN", type=Path, help="folder of pictures, with or without class folders")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder for the masks")
    parser.add_argument(
        "--compare", metavar="MASKS", type=Path, help="given masks to measure against (intersection over union)"
    )
    parser.add_argument(
        "--margin", type=float, default=0.05, help="border that is background, share of the size (%(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="annotations",
        metavar="FILE_OR_DIR",
        type=Path,
        help="draw what LabelMe, COCO, CVAT, Label Studio, Supervisely, Datumaro or YOLO hold, in place of GrabCut",
    )
    parser.add_argument("--iterations", type=int, default=5, help="of GrabCut (%(default)s)")
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="unreadable pictures (%(default)s)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace masks that are there (otherwise they are kept)"
    )
    add_mask_arguments(parser, source=False)


def run(args: argparse.Namespace) -> int:
    """Write the masks; print how many, and how they compare."""
    from torch_bgdebias.files import UnreadableImageError, first_few, image_files
    from torch_bgdebias.masks.encodings import mask_encoding
    from torch_bgdebias.masks.reading import MaskReader
    from torch_bgdebias.writing import marked_folder

    root = args.input / "images" if (args.input / "images").is_dir() else args.input
    out = args.output.resolve()
    pictures = [path for path in image_files(root) if out == root.resolve() or out not in path.resolve().parents]
    if not pictures:
        raise FileNotFoundError(f"{root}: expected a folder with pictures, found none")
    if args.compare is not None and not args.compare.is_dir():
        raise FileNotFoundError(f"--compare: expected a folder of masks, found no folder {args.compare}")
    targets = [(args.output / path.relative_to(root)).with_suffix(".png") for path in pictures]
    _require_distinct(pictures, targets)
    write = _writer(args, root, pictures)
    given = _given_masks(args.compare, args.mask_suffix)
    reader = MaskReader.of_folder(list(given.values()), mask_encoding(args.encoding, args.foreground, args.void))
    written, unchanged, skipped = 0, 0, []
    scores: dict[str, list[float]] = {}
    with marked_folder(args.output):
        for picture, target in progress(zip(pictures, targets, strict=True), total=len(pictures), label="masks"):
            name = target.relative_to(args.output)
            try:
                if target.exists() and not args.overwrite:
                    unchanged += 1
                else:
                    write(picture, target)
                    written += 1
                if name.with_suffix("") in given:
                    score = _overlap(target, given[name.with_suffix("")], reader)
                    scores.setdefault(name.parent.as_posix(), []).append(score)
            except UnreadableImageError as error:
                if args.on_error == "raise":
                    raise
                skipped.append(str(error))
    print(f"{written} masks written to {args.output}" + (f", {unchanged} kept as they were" if unchanged else ""))
    if skipped:
        print(f"{len(skipped)} pictures skipped: {first_few(skipped, 3)}")
    if args.compare is not None:
        _report(scores, len(pictures))
    note(f"open them with MaskedImageFolder, images in {root}")
    return 0


def _writer(args: argparse.Namespace, root: Path, pictures: list[Path]) -> Callable[[Path, Path], None]:
    """What writes the mask of a picture: from annotations, or GrabCut's."""
    if args.annotations is None:
        _note_annotations(root, pictures)
        return lambda picture, target: _write_grabcut(picture, target, args)
    from torch_bgdebias.masks.formats.converting import Annotations

    annotations = Annotations.of(args.annotations)
    names = {path: path.relative_to(root).as_posix() for path in pictures}
    annotations.require(list(names.values()), args.annotations)
    return lambda picture, target: _write_labels(annotations.mask(picture, names[picture]), target)


def _write_labels(labels: Any, target: Path) -> None:
    """A label map with VOC's palette, which viewers show and every reader of masks knows."""
    from PIL import Image

    from torch_bgdebias.masks.contents import voc_palette
    from torch_bgdebias.writing import whole_file

    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette().ravel().tolist())
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="PNG")


def _write_grabcut(picture: Path, target: Path, args: argparse.Namespace) -> None:
    from torch_bgdebias.files import read_image
    from torch_bgdebias.masks.grabcut import grabcut_masks
    from torch_bgdebias.writing import save_png

    mask = grabcut_masks(read_image(picture)[None], iterations=args.iterations, margin=args.margin)[0, 0]
    save_png(mask.mul(255).byte(), target)


def _note_annotations(root: Path, pictures: list[Path]) -> None:
    """Outlines that somebody drew are better than any that GrabCut finds."""
    from torch_bgdebias.files import first_few
    from torch_bgdebias.masks.formats.notice import annotation_files

    noticed = annotation_files(
        [*sorted({path.parent for path in pictures}), root, root.parent, root.parent / "annotations"]
    )
    if noticed:
        kinds = ", ".join(dict.fromkeys(kind for _, kind in noticed))
        files = first_few((path.name for path, _ in noticed), 3)
        print(
            f"bgdebias masks: note: there are annotations ({kinds}: {files}), "
            "which GrabCut does not use: draw their outlines with --from",
            file=sys.stderr,
        )


def _given_masks(folder: Path | None, suffix: str) -> dict[Path, Path]:
    from torch_bgdebias.files import EXTENSIONS, image_files
    from torch_bgdebias.masks.contents import MASK_EXTENSIONS

    if folder is None:
        return {}
    files = image_files(folder, extensions=EXTENSIONS | MASK_EXTENSIONS)
    return {path.relative_to(folder).with_name(path.stem.removesuffix(suffix)): path for path in files}


def _overlap(drawn: Path, given: Path, reader: MaskReader) -> float:
    """Intersection over union of two mask files where the given one is not void; 1 where both are empty."""
    from torch_bgdebias.data.folder import MaskSizeError
    from torch_bgdebias.files import as_tensor
    from torch_bgdebias.masks.reading import read_mask

    truth = reader.open(given)
    a, b = read_mask(drawn) > 127, as_tensor(truth.foreground) > 127
    if a.shape != b.shape:
        raise MaskSizeError(
            f"mask {given}: expected the size {tuple(a.shape[1:])} of {drawn}, got {tuple(b.shape[1:])}"
        )
    if truth.void is not None:
        a = a & (as_tensor(truth.void) == 0)
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


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


def _require_distinct(pictures: list[Path], targets: list[Path]) -> None:
    seen: dict[Path, Path] = {}
    for picture, target in zip(pictures, targets, strict=True):
        if target in seen:
            raise ValueError(f"{seen[target]} and {picture} would both have the mask {target}: rename one")
        if target == picture:
            raise ValueError(f"OUT: expected another folder than IN, or {picture} would be replaced by its mask")
        seen[target] = picture
