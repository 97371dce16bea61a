"""The run of ``bgdebias masks``: makes or draws masks, and reports how good they are."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch

from torch_bgdebias.cli.arguments import usable_device
from torch_bgdebias.cli.masks.comparing import compare
from torch_bgdebias.cli.masks.drawing import convert, draw
from torch_bgdebias.cli.progress import note, progress
from torch_bgdebias.files import category_folders, first_few
from torch_bgdebias.masks.formats.notice import RUN_LENGTH_TABLE, RUN_LENGTHS, annotation_files
from torch_bgdebias.masks.making.detecting import BoxDetector
from torch_bgdebias.masks.making.folder import MadeFolder, MakingSettings, make_masks, targets_of
from torch_bgdebias.masks.making.named import licence_of, mask_maker

__all__ = ["run_masks"]

#: below it a mask is worth a look
_DOUBTFUL = 0.5


def run_masks(args: argparse.Namespace) -> int:
    """Make or draw the masks and print a summary."""
    if args.to is not None or args.input == Path("convert"):
        return convert(args)
    root = args.input / "images" if (args.input / "images").is_dir() else args.input
    targets = targets_of(root, args.output)
    if args.compare is not None and not args.compare.is_dir():
        raise FileNotFoundError(f"--compare: expected a folder of masks, found no folder {args.compare}")
    summary = draw(args, root, targets) if args.annotations is not None else _make(args, root, list(targets))
    remaining = f", {summary.unchanged} kept as they were" if summary.unchanged else ""
    print(f"{summary.written} masks written to {args.output}{remaining}")
    if summary.skipped:
        print(f"{len(summary.skipped)} pictures skipped: {first_few((reason for _, reason in summary.skipped), 3)}")
    _print_doubts(summary)
    if args.compare is not None:
        compare(args, targets)
    note(_next(root, args.output))
    return 0


def _next(root: Path, masks: Path) -> str:
    """The next step with the masks."""
    if root.name != "images":
        sort = f"move pictures and masks into folders of classes, {root}/CLASS and {masks}/CLASS; "
        first = "" if category_folders(root) else sort
        return f"{first}measure a model on them: bgdebias probe --model MODEL --data {root} --masks {masks}"
    beside = "" if masks.resolve() == (root.parent / "masks").resolve() else f" --masks {masks}"
    return f"measure a model on them: bgdebias probe --model MODEL --data {root.parent}{beside}"


def _make(args: argparse.Namespace, root: Path, pictures: list[Path]) -> MadeFolder:
    if args.maker == "grabcut":
        _note_annotations(root, pictures)
    licence = licence_of(args.maker)
    if licence is not None:  # before the weights are downloaded
        print(f"bgdebias masks: licence of {args.maker}: {licence}", file=sys.stderr)
    family, _, model_name = args.maker.partition(":")
    boxes = Path(model_name) if family == "boxes" and args.boxes is None else args.boxes
    device = usable_device(args.device)
    if isinstance(boxes, str):
        boxes = _detector(boxes, args.boxes_checkpoint, device)
    elif args.boxes_checkpoint is not None:
        raise ValueError("boxes_checkpoint: expected none without a detector as --boxes")
    settings = MakingSettings(
        args.prompt, boxes, args.batch_size, args.threshold, overwrite=args.overwrite, on_error=args.on_error
    )
    maker = mask_maker(
        args.maker,
        device=device,
        checkpoint=args.checkpoint,
        mean=args.mean,
        std=args.std,
        size=args.size,
        iterations=args.iterations,
        margin=args.margin,
    )
    if licence is None or licence.name != maker.licence.name:
        print(f"bgdebias masks: licence of {maker.name}: {maker.licence}", file=sys.stderr)
    return make_masks(root, args.output, maker, settings=settings, progress=progress)


def _detector(name: str, checkpoint: Path | None, device: torch.device) -> BoxDetector:
    """The detector; the licence of its published weights is printed before they are downloaded."""
    if checkpoint is None:
        print(f"bgdebias masks: licence of {name}: {licence_of(name)}", file=sys.stderr)
    detector = BoxDetector(name, checkpoint=checkpoint, device=device)
    if checkpoint is not None:
        print(f"bgdebias masks: licence of {name}: {detector.licence}", file=sys.stderr)
    return detector


def _print_doubts(summary: MadeFolder) -> None:
    """Print the pictures of which a maker was not sure, and masks that hold nothing."""
    if summary.empty:
        print(f"{len(summary.empty)} masks are empty: {first_few(summary.empty, 3)}")
    if summary.confidence:
        doubtful = sorted((share, name) for name, share in summary.confidence.items() if share < _DOUBTFUL)
        median = statistics.median(summary.confidence.values())
        print(f"confidence: median {median:.2f}, below {_DOUBTFUL}: {len(doubtful)}")
        if doubtful:
            print(f"  look at these first: {first_few((f'{name} {share:.2f}' for share, name in doubtful), 4)}")


def _note_annotations(root: Path, pictures: list[Path]) -> None:
    """Point out existing annotations: they are better than GrabCut's masks."""
    noticed = annotation_files(
        [*sorted({path.parent for path in pictures}), root, root.parent, root.parent / "annotations"]
    )
    if noticed:
        kinds = ", ".join(dict.fromkeys(kind for _, kind in noticed))
        files = first_few((path.name for path, _ in noticed), 3)
        advice = "draw their outlines with --from, or give their boxes with --boxes"
        if all(kind in (RUN_LENGTHS, RUN_LENGTH_TABLE) for _, kind in noticed):
            advice = "they are not read either, but better than any guess: draw them into PNG"
        print(
            f"bgdebias masks: note: there are annotations ({kinds}: {files}), which GrabCut does not use: {advice}",
            file=sys.stderr,
        )
