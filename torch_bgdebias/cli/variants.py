"""``bgdebias variants``: write the ImageNet-9 variants of a masked folder as image folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli.arguments import choices, require_inputs, writable
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options, mask_options
from torch_bgdebias.cli.progress import note, progress
from torch_bgdebias.names import VARIANTS

if TYPE_CHECKING:
    from torch import Tensor

    from torch_bgdebias.backgrounds.pool import Pool
    from torch_bgdebias.data import MaskedImageFolder, MaskedTensors, Variant

__all__ = ["NAMES", "add_parser", "run"]

NAMES = ("original", *VARIANTS)

_EPILOG = """\
IN has images/<class>/x.jpg with masks/<class>/x.png (255 = foreground). Pictures go to OUT/<variant>/<class>/x.png,
which torchvision's ImageFolder opens. Backgrounds of the mixed variants are the folder's own pictures with their
foreground tiled over, never a picture's own. The same folder, size and seed give the same files, whichever variants
are named.

examples:
  bgdebias variants data out
  bgdebias variants data out --names mixed_same,mixed_rand --size 224 --seed 1
  bgdebias variants data out --names only_fg --on-error skip --overwrite
"""

_BATCH = 64


def add_parser(subparsers: Subparsers) -> None:
    """Add ``variants`` to the command line."""
    parser = add_command(
        subparsers,
        "variants",
        about="write a masked folder with other backgrounds, as image folders",
        description="Write the variants of Noise or Signal (ImageNet-9) of your own masked pictures.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("input", metavar="IN", type=Path, help="masked folder")
    add("output", metavar="OUT", type=Path, help="folder for the variants")
    add("--names", type=choices(NAMES), default=list(NAMES[1:]), metavar="A,B", help=f"of {', '.join(NAMES)}")
    add_options(parser, "--size", default=224, help="side of the pictures (default: %(default)s)")
    add_options(parser, "--seed", help="of the choice of backgrounds (default: 0)")
    add_options(parser, "--on-error")
    add_options(parser, "--overwrite", help="write into variants' folders that are there already")
    add_mask_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the variants; print how many of each."""
    require_inputs(args, "input=IN", "masks")
    import torch

    from torch_bgdebias.data import MaskedImageFolder
    from torch_bgdebias.writing import is_unfinished, marked_folder

    if not args.names:
        raise ValueError(f"--names: expected some of {', '.join(NAMES)}, got none")
    data = MaskedImageFolder(
        args.input, size=args.size, on_error=args.on_error, with_void=False, **mask_options(args)
    )  # what is void is asked for beside the tensors
    targets = _targets(data)
    writable(args.output, name="OUT")
    for name in args.names:
        folder = args.output / name
        if folder.is_dir() and any(folder.iterdir()) and not (args.overwrite or is_unfinished(folder)):
            raise FileExistsError(f"OUT: {folder} is there already; pass --overwrite to write into it")
    tensors = data.tensors()
    voids = torch.stack([data.void(i) for i in range(len(data))]) if data.has_void else None
    pool = _pool(tensors, voids) if any(name.startswith("mixed") for name in args.names) else None
    for name in args.names:
        with marked_folder(args.output / name):
            n_written, left_out = _write(name, data, tensors, voids, pool, targets, args)
        reason = f", {left_out} left out (no foreground, or no background of the class)" if left_out else ""
        print(f"{name}: {n_written} pictures in {args.output / name}{reason}")
    note("open them with torchvision.datasets.ImageFolder")
    return 0


def _targets(data: MaskedImageFolder) -> list[Path]:
    """<class>/<name>.png of every sample; two pictures with one name would be one file."""
    owner: dict[Path, Path] = {}
    for sample in data.samples:
        target = sample.image.relative_to(data.image_root).with_suffix(".png")
        if target in owner:
            raise ValueError(f"{owner[target]} and {sample.image} would both become {target}: rename one")
        owner[target] = sample.image
    return list(owner)


def _pool(tensors: MaskedTensors, voids: Tensor | None) -> Pool:
    """The folder's own backgrounds with their foreground tiled over; those that are all foreground are not usable."""
    import torch

    from torch_bgdebias.backgrounds.pool import Pool
    from torch_bgdebias.compositing import fills_image, tile_fill, without_void

    filled, usable = [], []
    for start in range(0, len(tensors.images), _BATCH):
        part = slice(start, start + _BATCH)
        image, mask = tensors.images[part].float(), tensors.masks[part]
        share = mask.float() / 255
        image = without_void(image, share, None if voids is None else voids[part])
        filled.append(tile_fill(image, share).round().to(torch.uint8))
        usable.append(~fills_image(share))
    return Pool(torch.cat(filled), tensors.labels, usable=torch.cat(usable))


def _write(
    name: str,
    data: MaskedImageFolder,
    tensors: MaskedTensors,
    voids: Tensor | None,
    pool: Pool | None,
    targets: list[Path],
    args: argparse.Namespace,
) -> tuple[int, int]:
    import torch

    from torch_bgdebias.seeds import derive_seed
    from torch_bgdebias.writing import save_png

    generator = torch.Generator().manual_seed(derive_seed(args.seed, name))
    n_written = 0
    starts = range(0, len(targets), _BATCH)
    for start in progress(starts, total=len(starts), label=name):
        part = slice(start, start + _BATCH)
        variant = _make_batch(name, tensors, voids, part, pool, len(data.classes), generator)
        pixels = (variant.image.clamp(0, 1) * 255).round().to(torch.uint8)
        for target, picture, valid in zip(targets[part], pixels, variant.valid.tolist(), strict=True):
            if valid:
                save_png(picture, args.output / name / target)
                n_written += 1
    return n_written, len(targets) - n_written


def _make_batch(
    name: str,
    tensors: MaskedTensors,
    voids: Tensor | None,
    part: slice,
    pool: Pool | None,
    classes: int,
    generator: Any,
) -> Variant:
    import torch

    from torch_bgdebias.data import Variant, make_variant

    image, label = tensors.images[part].float() / 255, tensors.labels[part]
    mask = tensors.masks[part].float() / 255
    void = None if voids is None else voids[part]
    if name == "original":
        return Variant(image, label, torch.ones_like(label, dtype=torch.bool))
    if pool is None or not name.startswith("mixed"):
        return make_variant(image, mask, label, name, void=void)
    return make_variant(
        image,
        mask,
        label,
        name,
        backgrounds=pool,
        exclude=torch.arange(len(tensors.labels))[part],
        num_classes=classes,
        generator=generator,
        void=void,
    )
