"""``bgdebias backgrounds``: generates backgrounds, and filters out those that show unwanted objects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli.arguments import require_inputs, whole, writable
from torch_bgdebias.cli.options import Subparsers, add_command, add_options
from torch_bgdebias.cli.progress import note

if TYPE_CHECKING:
    from torch_bgdebias.backgrounds.folder import ImageFiles
    from torch_bgdebias.backgrounds.screening.filter import Screening

__all__ = ["SCHEMA", "add_parser", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.backgrounds/1"

_EPILOG = """\
examples:
  bgdebias backgrounds generate scenes --source scenes -n 200
  bgdebias backgrounds generate synthetic -n 500 --option num_inference_steps=12
  bgdebias backgrounds filter synthetic --model timm:resnet50 --pretrained --forbidden ostrich,n02129165 --move rejected

bgdebias backgrounds generate --help and bgdebias backgrounds filter --help say what each takes.
"""

_GENERATE_EPILOG = """\
sources:
  wuerstchen     text-to-image with Wuerstchen (downloads it; needs the extra diffusers), the default
  NAME or DIR    any text-to-image pipeline: its name on the Hugging Face hub, or a folder of save_pretrained
  noise          uniform noise, no model
  scenes         drawn scenes of ten kinds, no model

Pictures go to OUT/<category>/<number>.png; OUT/backgrounds.jsonl says with which prompt, seed and versions each was
made. Call it again to go on after an interruption, or with a larger -n for more. No picture is made twice.

examples:
  bgdebias backgrounds generate synthetic -n 500
  bgdebias backgrounds generate synthetic -n 50 --categories desert,ocean --seed 1
  bgdebias backgrounds generate snow -n 50 --prompt "snow=a photo of a snowfield, nothing else" --size 512
  bgdebias backgrounds generate quick -n 50 --source stabilityai/sd-turbo --option num_inference_steps=1
  bgdebias backgrounds generate scenes -n 200 --source scenes --categories sky,sea --json
"""

_FILTER_EPILOG = """\
IN has <category>/x.jpg, or pictures without categories. A picture is dropped when a forbidden class is among the K best
classes that the model sees in it. Without --move or --copy nothing is touched: the command says what it would drop.

forbidden classes, separated by commas: numbers of the model's outputs (9), ranges (151-268, ImageNet's dogs), names
(ostrich), WordNet ids (n01518878). Names are ImageNet's where the model has its 1000 outputs; else --class-names.

examples:
  bgdebias backgrounds filter scenes --model timm:resnet50 --pretrained --forbidden ostrich,151-268
  bgdebias backgrounds filter scenes --model timm:resnet50 --pretrained --forbidden-file birds.txt --move rejected
  bgdebias backgrounds filter scenes --model torchvision:resnet18 --checkpoint best.pt --class-names classes.txt \\
      --forbidden cow,ship --top-k 1 --copy clean --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``backgrounds`` with its two actions to the command line."""
    parser = add_command(
        subparsers,
        "backgrounds",
        about="make backgrounds, or filter a folder of them by a classifier",
        description="Make backgrounds with a text-to-image model or without one, and filter folders by a classifier.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    parser.set_defaults(commands=actions.choices)
    _add_generate(actions)
    _add_filter(actions)


def _add_action(actions: Subparsers, name: str, about: str, epilog: str) -> argparse.ArgumentParser:
    parser = add_command(actions, name, about=about, description=f"{about[0].upper()}{about[1:]}.", epilog=epilog)
    add_options(parser, "--json", "--debug")
    return parser


def _add_generate(actions: Subparsers) -> None:
    parser = _add_action(actions, "generate", "make backgrounds into a folder", _GENERATE_EPILOG)
    add = parser.add_argument
    add("output", metavar="OUT", type=Path, help="folder for the pictures")
    add("-n", type=whole(1), default=100, metavar="N", help="pictures of each category (default: %(default)s)")
    add("--source", default="wuerstchen", metavar="SOURCE", help="what makes them (default: %(default)s)")
    add("--categories", type=_words, metavar="A,B", help="some of the source's categories (default: all)")
    add("--prompt", action="append", type=_pair, metavar="CATEGORY=TEXT", help="a category of your own; repeatable")
    add("--negative-prompt", metavar="TEXT", help="what must not be seen")
    add_options(parser, "--seed")
    add_options(parser, "--size", help="side of the pictures (default: the pipeline's; 224 without a model)")
    add_options(parser, "--batch-size", default=4)
    add("--option", action="append", type=_pair, metavar="NAME=VALUE", help="of the pipeline's call; repeatable")
    add("--revision", metavar="REV", help="of the weights on the hub")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="of the weights (default: float16 on a GPU)")
    add_options(parser, "--device")


def _add_filter(actions: Subparsers) -> None:
    parser = _add_action(actions, "filter", "drop backgrounds in which a classifier sees a class", _FILTER_EPILOG)
    add = parser.add_argument
    add("input", metavar="IN", type=Path, help="folder of backgrounds")
    add_options(parser, "--model", "--checkpoint", "--pretrained")
    add("--class-names", type=Path, metavar="FILE", help="names of the model's outputs, one a line")
    add("--forbidden", type=_words, default=[], metavar="A,B", help="classes that must not be seen")
    add("--forbidden-file", type=Path, metavar="FILE", help="more of them, one a line")
    add("--top-k", type=whole(1), default=5, metavar="K", help="how many best classes count as seen (default: 5)")
    add("--move", type=Path, metavar="DIR", help="move dropped pictures into DIR/<category>/")
    add("--copy", type=Path, metavar="DIR", help="copy the other pictures into DIR/<category>/")
    add_options(parser, "--size", "--batch-size")
    add("--cache", type=Path, metavar="DIR", help="where to keep what was seen (default: the user's cache folder)")
    add("--no-cache", action="store_true", help="keep nothing")
    add_options(parser, "--on-error", help="unreadable pictures (default: %(default)s)")
    add_options(parser, "--device")


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return _generate(args) if args.action == "generate" else _filter(args)


def _generate(args: argparse.Namespace) -> int:
    import torch

    from torch_bgdebias.backgrounds import BACKGROUND_PROMPTS, write_backgrounds
    from torch_bgdebias.data import SCENE_CATEGORIES, paint_scenes

    free = args.source in ("noise", "scenes")
    prompts_by_name: dict[str, str] = dict(BACKGROUND_PROMPTS)
    if free:
        prompts_by_name = {name: name for name in (SCENE_CATEGORIES if args.source == "scenes" else ("noise",))}
        for flag in ("prompt", "negative_prompt", "option", "revision", "dtype", "device"):
            if getattr(args, flag) is not None:
                raise ValueError(f"--{flag.replace('_', '-')}: expected none with --source {args.source}")
    prompts = dict(args.prompt or [])
    if not prompts or args.categories:
        if unknown := [name for name in args.categories or [] if name not in prompts_by_name]:
            raise ValueError(f"--categories: expected some of {', '.join(prompts_by_name)}, got {', '.join(unknown)}")
        prompts = {name: prompts_by_name[name] for name in args.categories or prompts_by_name} | prompts
    writable(args.output, name="OUT")
    summary = write_backgrounds(
        args.output,
        args.n,
        paint_scenes if args.source == "scenes" else args.source,
        prompts,
        seed=args.seed,
        size=args.size,
        batch_size=args.batch_size,
        device=args.device,
        dtype=None if args.dtype is None else getattr(torch, args.dtype),
        negative_prompt=args.negative_prompt,
        revision=args.revision,
        options={name: _value(text) for name, text in args.option or []},
    )
    counts = {"made": summary.made, "kept": summary.kept, "repeated": summary.repeated}
    if args.json:
        record = {"schema": SCHEMA, "action": "generate", "out": str(summary.root), "categories": list(prompts)}
        print(json.dumps({**record, **counts, "size": list(summary.size)}, indent=1))
        return 0
    thrown = f", {summary.repeated} thrown away (repeated or of one colour)" if summary.repeated else ""
    already = f", {summary.kept} were there" if summary.kept else ""
    print(f"{summary.made} pictures of {len(prompts)} categories made in {summary.root}{already}{thrown}")
    note(f"open them with BackgroundBank.from_folder({str(summary.root)!r}, size)")
    return 0


def _filter(args: argparse.Namespace) -> int:
    options = [f"{name}=--{name.replace('_', '-')}" for name in ("checkpoint", "class_names", "forbidden_file")]
    require_inputs(args, "input=IN", *options)
    from torch_bgdebias.backgrounds.screening.filter import FilterStep

    forbidden = [entry for argument in [*args.forbidden, *_lines(args.forbidden_file)] for entry in _classes(argument)]
    if not forbidden:
        raise ValueError("--forbidden: expected at least one class, here or in --forbidden-file, got none")
    if args.model.startswith(("timm:", "torchvision:")) and not (args.pretrained or args.checkpoint):
        raise ValueError("--model: expected --pretrained or --checkpoint: random weights see nothing")
    for name in ("move", "copy"):
        if getattr(args, name) is not None:
            _require_apart(args.input, getattr(args, name), f"--{name}")
    files, readable, screening = _screened(args, forbidden)
    classes = screening.names.find(forbidden)
    hits = screening.hits(classes).tolist()
    step = FilterStep(args.model, args.top_k, len(hits), sum(hits), screening.by_class(classes))
    dropped = {files.paths[i]: row for row, (i, hit) in enumerate(zip(readable, hits, strict=True)) if hit}
    if step.dropped == step.before and args.copy is not None:
        raise ValueError(f"--copy: no background is left: {step}")
    _place_files(args, files, readable, dropped, screening, classes)
    if args.json:
        rows = [[screening.names[i] for i in screening.seen[row].tolist() if i in classes] for row in dropped.values()]
        by_file = {str(path.relative_to(args.input)): seen for path, seen in zip(dropped, rows, strict=True)}
        unreadable = len(files.paths) - len(hits)
        record = {"schema": SCHEMA, "action": "filter", "in": str(args.input), "unreadable": unreadable}
        print(json.dumps({**record, **step.to_dict(), "files": by_file}, indent=1))
        return 0
    fate = "moved" if args.move else "dropped" if args.copy else "would be dropped (nothing touched: --move or --copy)"
    print(f"{step.dropped} of {step.before} pictures {fate}: {args.model}, top {args.top_k}")
    for name, count in sorted(step.by_class.items(), key=lambda item: -item[1]):
        if count:
            print(f"  {name:32} {count}")
    return 0


def _screened(args: argparse.Namespace, forbidden: list[int | str]) -> tuple[ImageFiles, list[int], Screening]:
    """The folder's files, the positions of the readable ones, and what the model saw in those."""
    from torch_bgdebias.backgrounds.folder import ImageFiles
    from torch_bgdebias.backgrounds.screening.filter import FilterSettings, screen_files
    from torch_bgdebias.cli.arguments import usable_device
    from torch_bgdebias.named_models import load_model

    names = _lines(args.class_names) or None
    device = usable_device(args.device)
    ImageFiles.scan(args.input, 1, on_error=args.on_error)  # a wrong folder is named before the weights are loaded
    outputs = len(names) if names and not args.pretrained else None
    loaded = load_model(args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained)
    preprocessing = loaded.preprocessing
    files = ImageFiles.scan(args.input, args.size or preprocessing.height_width or 224, on_error=args.on_error)
    settings = FilterSettings(
        loaded.model.to(device).eval(),
        args.top_k,
        class_names=names,
        size=files.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        batch_size=args.batch_size,
        cache=False if args.no_cache else args.cache,
        forbidden=forbidden,
    )
    readable, screening = screen_files(files, settings)
    return files, readable, screening


def _place_files(
    args: argparse.Namespace,
    files: ImageFiles,
    readable: list[int],
    dropped: dict[Path, int],
    screening: Screening,
    classes: list[int],
) -> None:
    """Move the dropped and copy the remaining pictures, as requested, with the manifest of generated ones."""
    from torch_bgdebias.backgrounds.generation.manifest import MANIFEST, Manifest
    from torch_bgdebias.writing import copy_file, marked_folder, move_file

    if args.copy is not None:
        writable(args.copy, name="--copy")
        with marked_folder(args.copy):
            for path in (files.paths[position] for position in readable):
                if path not in dropped:
                    copy_file(path, args.copy / path.relative_to(args.input))
    if args.move is not None:
        writable(args.move, name="--move")
        manifest = Manifest(args.input) if (args.input / MANIFEST).is_file() else None
        for path, row in dropped.items():
            name = path.relative_to(args.input)
            if manifest is not None and name.as_posix() in manifest.records:
                seen_classes = [screening.names[i] for i in screening.seen[row].tolist() if i in classes]
                manifest.add({"file": name.as_posix(), "dropped": seen_classes})
            move_file(path, args.move / name)


def _require_apart(source: Path, target: Path, flag: str) -> None:
    inside = target.resolve() == source.resolve() or source.resolve() in target.resolve().parents
    if inside:
        raise ValueError(f"{flag}: expected a folder outside of IN, or its pictures would be backgrounds: got {target}")


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, a line each, got other bytes ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name.strip(), value.strip()


def _value(text: str) -> Any:
    """A number, true, false or list where the text is one in JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _classes(text: str) -> list[int | str]:
    """Indices of a number or a range; other words are names."""
    first, dash, last = text.partition("-")
    if text.isdigit():
        return [int(text)]
    if dash and first.isdigit() and last.isdigit():
        if int(first) > int(last):
            raise ValueError(f"--forbidden: expected an ascending range, got {text}")
        return list(range(int(first), int(last) + 1))
    return [text]
