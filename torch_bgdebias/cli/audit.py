"""``bgdebias audit``: can the classes of a data set be predicted from the background, before any training?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from torch_bgdebias.cli.arguments import labels, real, refuse_results, require_inputs, whole, writable
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options, mask_options

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
How much of the class can be read off what is not the object? Simple learners are tested on the background, the border,
the corners, the object's box, size, compression and EXIF fields of files, and on names and columns that say where
pictures come from; audit.html and audit.json are written into --out. Nothing is downloaded, and no weights are needed.
"""

_EPILOG = """\
data:
  images/<class>/x.jpg with masks/<class>/x.png, or images/<class>/ or <class>/ without masks: then a ring along the
  border stands for the background, and the object's middle is not looked at.

examples:
  bgdebias audit data/train
  bgdebias audit data/train --table data/index.csv --columns site,camera
  bgdebias audit data/train --groups '^[^/]+/(patient\\d+)_'      pictures of one patient are never on both sides
  bgdebias audit data/train --backbone timm:resnet18 --pretrained
  bgdebias audit data/train --images 20000 --json | python -m json.tool
"""

_GROUPS_HELP = "pattern that takes what belongs together from a file's path below the classes' folder, or a column"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``audit`` to the command line."""
    parser = add_command(
        subparsers,
        "audit",
        about="find what gives the classes away, before any training",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of pictures by class, with or without masks")
    add_options(parser, "--classes A,B")
    add("--table", type=Path, metavar="CSV", help="a line a picture, its file in the first column or one called image")
    add("--columns", type=labels, default=[], metavar="A,B", help="of the table: each is a cue (site, camera, ...)")
    add("--groups", metavar="REGEX", help=_GROUPS_HELP)
    add_options(parser, "--images")
    add("--permutations", type=whole(99), default=999, metavar="N", help="shuffled labellings (default: 999)")
    add("--level", type=real(0.001, 0.5), default=0.05, metavar="P", help="chance of any false alarm (default: 0.05)")
    add("--backbone", metavar="MODEL", help="timm:NAME, torchvision:NAME or package:attribute: its embedding as well")
    add_options(parser, "--pretrained")
    add_options(parser, "--checkpoint", help="weights of the backbone")
    add_options(parser, "--seed", help="of pictures, folds and shuffles (default: 0)")
    add_options(parser, "--out", default=Path("bgdebias-audit"))
    add_options(parser, "--json", "--overwrite")
    add_mask_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look, write the page, print what was seen."""
    require_inputs(args, "data", "table", "checkpoint", "masks")
    from torch_bgdebias.audit import AuditSettings, audit
    from torch_bgdebias.audit.pictures import as_source
    from torch_bgdebias.data import FolderSettings
    from torch_bgdebias.preprocessing import Preprocessing
    from torch_bgdebias.writing import marked_folder

    settings = AuditSettings(
        images=args.images or None,
        permutations=args.permutations,
        level=args.level,
        seed=args.seed,
        backbone=args.backbone,
        pretrained=args.pretrained,
        checkpoint=args.checkpoint,
    )
    table = _table(args.table) if args.table else {}
    if missing := [name for name in args.columns if name not in table]:
        raise ValueError(
            f"columns: expected some of {', '.join(table) or 'those of --table'}, got {', '.join(missing)}"
        )
    masks = FolderSettings(classes=args.classes or None, **mask_options(args))
    as_source(
        args.data, masks=masks, spec=None, restored=Preprocessing()
    )  # a wrong folder is named before results that are there already
    refuse_results(args.out, ("audit.html", "audit.json"), overwrite=args.overwrite)
    writable(args.out, name="--out")
    report = audit(
        args.data,
        groups=table.get(args.groups, args.groups),
        columns={name: table[name] for name in args.columns},
        masks=masks,
        settings=settings,
        say=lambda text: print(f"bgdebias audit: {text}", file=sys.stderr),
    )
    with marked_folder(args.out):
        report.to_html(args.out / "audit.html", title=f"Audit of {args.data.resolve().name}")
        report.to_json(args.out / "audit.json")
    if args.json:
        print(json.dumps(report.to_dict(), indent=1, allow_nan=False, default=str))
    else:
        print(f"{report.summary()}\n\nOpen {args.out / 'audit.html'}")
    return 0


def _table(path: Path) -> dict[str, dict[str, str]]:
    """Column -> file -> value."""
    from torch_bgdebias.records import read_table

    names, rows = read_table(path)
    if not rows:
        raise ValueError(f"table: expected a line a picture below a line of names in {path}, found none")
    key = "image" if "image" in names else names[0]
    return {name: {row[key]: row[name] for row in rows} for name in names if name != key}
