"""``bgdebias masks``: makes foreground masks for a folder of pictures, or draws them from annotation files."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch_bgdebias.cli.arguments import real, require_inputs
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options

__all__ = ["add_parser", "run"]

_EPILOG = """\
makers (--with):
  grabcut             colours inside and outside of the border, or of --boxes; no weights (the default)
  boxes:FILE          boxes as they are
  onnx:FILE           a network of salient objects: IS-Net, U2-Net, BiRefNet, RMBG, ...
  rembg[:MODEL]       the same by rembg's names, which downloads them
  transformers:MODEL  by published name or folder: CLIPSeg, SAM 3 (text); SAM, SAM 2, SAM HQ (boxes); a detector and a
                      SAM (IDEA-Research/grounding-dino-tiny+facebook/sam-vit-base; text); networks of classes (text)
  torchvision:MODEL   maskrcnn_resnet50_fpn, deeplabv3_resnet50 and their kin
  package:FUNCTION    yours: images (B, 3, H, W) in [0, 1] to masks (B, H, W)

boxes (--boxes), for any maker:
  FILE or DIR         COCO, PASCAL VOC's XML, YOLO, or any outlines; CSV with a line a box below a line of names: image
                      (or file_name, filename, file, path, name), and left, top, right, bottom (or xmin, ymin, xmax,
                      ymax; x1, y1, x2, y2; x, y, width, height) in pixels, right and bottom exclusive; perhaps label
  torchvision:MODEL   the boxes in which a detector (fasterrcnn_resnet50_fpn_v2, retinanet_resnet50_fpn_v2,
                      ssdlite320_mobilenet_v3_large, ...) sees the class folder's name, or what --prompt says

examples:
  bgdebias masks data/images data/masks                       data/ then opens as MaskedImageFolder("data")
  bgdebias masks data/images data/masks --with onnx:isnet.onnx --boxes instances.json
  bgdebias masks data/images data/masks --with transformers:CIDAS/clipseg-rd64-refined --prompt "a photo of a {class}"
  bgdebias masks data/images data/masks --boxes torchvision:fasterrcnn_resnet50_fpn_v2 --on-error skip
  bgdebias masks data out --compare data/masks                measure the masks against given ones
  bgdebias masks data/images data/masks --from instances.json  outlines of COCO, CVAT, a folder of LabelMe files, ...
  bgdebias masks convert VOCdevkit --to masks                 the same for pictures that need not be there

IN may also be a folder that holds images/. Masks are 8-bit PNG of the picture's size, 255 = foreground, at OUT/<class>/
<name>.png, where IN has <class>/<name>.jpg; OUT/masks.json says who made them, under which licence, how sure of each.
What was stopped goes on where it was. No maker is always right: compare with some given masks before relying on them.
With --from and convert, masks are palette PNG: 1 object, 255 void (COCO's crowds); a class folder that is called as a
label takes that label's outlines alone.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers,
        "masks",
        about="make foreground masks for a folder of pictures",
        description="Write foreground masks for every picture in a folder.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("input", metavar="IN", type=Path, help="folder of pictures, with or without class folders")
    add("output", metavar="OUT", type=Path, help="folder for the masks")
    add("--with", dest="maker", default="grabcut", metavar="MAKER", help="who makes them, see below (%(default)s)")
    help_text = "what the object is called, {class} for its folder (default: the folder, where the maker takes text)"
    add("--prompt", metavar="TEXT", help=help_text)
    help_text = "where the objects are: annotations, or a detector (torchvision:MODEL); see below"
    add("--boxes", type=_boxes, metavar="FILE_OR_DIR", help=help_text)
    add("--boxes-checkpoint", type=Path, metavar="FILE", help="weights for the detector (default: published ones)")
    add("--threshold", type=real(0, 1), metavar="X", help="make masks hard at this share (default: they stay soft)")
    add_options(parser, "--batch-size", default=4, help="pictures of one size in a pass (default: %(default)s)")
    add_options(parser, "--device")
    add_options(parser, "--checkpoint", help="weights for torchvision's networks, rembg's custom ones")
    add_options(parser, "--mean", help="onnx: subtracted from pixels in [0, 1]")
    add_options(parser, "--std")
    add_options(parser, "--size", help="onnx: side of the pictures, where the file takes any")
    help_text = "border that is background, share of the size (%(default)s)"
    add("--margin", type=float, default=0.05, metavar="X", help=f"grabcut: {help_text}")
    add("--iterations", type=int, default=5, metavar="N", help="grabcut: how many (%(default)s)")
    help_text = "draw what LabelMe, COCO, CVAT, Label Studio, Supervisely, Datumaro, VIA, YOLO or a VOCdevkit hold"
    add("--from", dest="annotations", metavar="FILE_OR_DIR", type=Path, help=help_text)
    add("--to", metavar="DIR", type=Path, help="convert: folder for the masks")
    add("--images", metavar="DIR", type=Path, help="convert: the pictures, where annotations do not say their sizes")
    help_text = "given masks to measure against (intersection over union)"
    add("--compare", metavar="MASKS", type=Path, help=help_text)
    add_options(parser, "--on-error", help="unreadable pictures (default: %(default)s)")
    add_options(parser, "--overwrite", help="replace masks that are there (otherwise they are kept)")
    add_mask_options(parser, source=False)


def _boxes(text: str) -> Path | str:
    """A path, or a detector's name."""
    return text if text.startswith("torchvision:") else Path(text)


def _require_maker(maker: str) -> None:
    """Refuse a file of the maker that is not there."""
    family, _, file = maker.partition(":")
    if family in ("onnx", "boxes") and file and not Path(file).exists():
        raise FileNotFoundError(f"--with {maker}: there is no such file")


def run(args: argparse.Namespace) -> int:
    """Write the masks; print how many, and how they compare."""
    example = "output=FROM" if args.input == Path("convert") else "input=IN"
    require_inputs(args, example, "annotations=--from", "boxes", "boxes_checkpoint", "images", "checkpoint", "compare")
    _require_maker(args.maker)
    from torch_bgdebias.cli.masks.running import run_masks  # imports torch, which --help does without

    return run_masks(args)
