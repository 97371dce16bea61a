"""``bgdebias probe``: a checkpoint and a masked folder in, a report on background bias out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch_bgdebias.cli.arguments import (
    add_mask_arguments,
    add_overwrite_argument,
    choices,
    real,
    require_inputs,
    whole,
)
from torch_bgdebias.names import ATTRIBUTIONS, CONCEPT_METHODS, ON_ERROR, SUPERCLASS_SCORES, VARIANTS

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Does the model look at the background, how much, and at which classes? Classifies every picture as it is and with other
backgrounds, asks attributions where the evidence lies, and writes report.html and report.json into --out.
"""

_EPILOG = """\
models:
  timm:NAME                a timm model, its own input size and normalisation
  torchvision:NAME         a torchvision classifier, the size and normalisation of its published weights
  package.module:attribute a torch.nn.Module, or a class or function that makes one without arguments; pictures are
                           in [0, 1] unless --mean and --std say otherwise

data:
  --layout folder     images/<class>/x.jpg with masks/<class>/x.png (bgdebias masks makes masks); what the masks' values
                      mean is found out, or asked for with --encoding, --foreground, --void
  --layout imagenet9  the Background Challenge's release: original/val/00_dog/..., mixed_same/val/..., fg_mask/val/...;
                      the published variants are classified as they are, so that the challenge's own figures come out;
                      models of 9 classes, or of ImageNet's 1000, whose answers are mapped as in the challenge
  --layout voc        a folder with VOCdevkit (PASCAL VOC 2012 segmentation)
  Class folders are the model's outputs by name where the checkpoint or the published weights know names, else in
  alphabetical order 0, 1, ... Where neither fits, --labels names a JSON file {"class folder": output, ...}, or
  {"class folder": [output, output, ...], ...} for a network that splits the data's classes further; what is answered
  outside of them counts as wrong.

examples:
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data data/test
  bgdebias probe --model timm:vit_small_patch16_224 --pretrained --data animals --labels animals.json
  bgdebias probe --model my_project.nets:make_net --checkpoint last.ckpt --data data/test --size 64
  bgdebias probe --model timm:resnet50 --pretrained --data bg_challenge --layout imagenet9 --attributions grad_cam,lrp
  bgdebias probe --model torchvision:resnet50 --pretrained --data bg_challenge --layout imagenet9 --adversarial 4050
  bgdebias probe --model torchvision:resnet18 --checkpoint before.pt --checkpoint after.pt --data data/test
  bgdebias probe --model torchvision:resnet18 --checkpoint runs/checkpoints --data data/test     all of them, one page
  bgdebias probe --model timm:resnet18 --checkpoint xray.pt --data chest --channels 1
  bgdebias probe --model timm:resnet18 --checkpoint xray.pt --data chest --groups sites.csv:hospital --unit patient
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data data/test --json | python -m json.tool
"""


_ATTRIBUTIONS_HELP = (
    f"of {', '.join(ATTRIBUTIONS)}, or '' for none (default: grad_cam); kernel_shap takes minutes on a CPU"
)


_MODEL_HELP = "timm:NAME, torchvision:NAME or package.module:attribute; several are compared with the first"
_CHECKPOINT_HELP = "state dict or training checkpoint, one a model, or several of one model: files, or a folder of them"
_SCORE_HELP = "several outputs a class: by the best of them, or by their summed probability (default: best)"


_GROUPS_HELP = (
    "what divides the pictures (site, camera): a column of a table in --data, FILE.csv:COLUMN, FILE.csv or folder:LEVEL"
)


_QUALITY_HELP = "measure again with worse masks too; IOU: how yours overlap with drawn ones (bgdebias masks --compare)"


def add_parser(subparsers: Any) -> None:
    """Add ``probe`` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "probe",
        help="measure a checkpoint's background bias on a masked folder",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, action="append", metavar="MODEL", help=_MODEL_HELP)
    add("--checkpoint", type=Path, action="append", metavar="FILE|DIR", help=_CHECKPOINT_HELP)
    add("--pretrained", action="store_true", help="weights that timm or torchvision publish (downloads them)")
    add(
        "--classes",
        type=whole(2),
        metavar="N",
        help="outputs of the model (default: the checkpoint's, else the data's)",
    )
    add("--channels", type=whole(1), choices=(1, 3), help="grey or colour (default: what the first convolution takes)")
    add("--logits", metavar="KEY", help="index, key or attribute of the logits in what the model returns")
    add("--data", required=True, type=Path, metavar="DIR", help="pictures with masks")
    add("--layout", choices=("folder", "imagenet9", "voc"), default="folder", help="of --data (default: folder)")
    add("--labels", type=Path, metavar="FILE", help="JSON: the model's output, or outputs, of each class folder")
    add("--score", choices=SUPERCLASS_SCORES, default="best", help=_SCORE_HELP)
    add("--on-error", choices=ON_ERROR, default="raise", help="missing masks, unreadable files (%(default)s)")
    add("--size", type=whole(1), metavar="N", help="side of the pictures (default: the model's, else 224)")
    add("--mean", type=float, nargs="+", metavar="X", help="normalisation, one number or one a channel")
    add("--std", type=float, nargs="+", metavar="X", help="goes with --mean")
    add("--variants", type=choices(VARIANTS), metavar="A,B", help=f"of {', '.join(VARIANTS)} (default: all)")
    add("--remake", action="store_true", help="imagenet9: make the variants anew from originals and masks")
    add("--attributions", type=choices(ATTRIBUTIONS), default=["grad_cam"], metavar="A,B", help=_ATTRIBUTIONS_HELP)
    add("--target", choices=("predicted", "label"), default="predicted", help="class that is explained (%(default)s)")
    add("--shap-samples", type=whole(2), default=1000, metavar="N", help="coalitions of kernel_shap (default: 1000)")
    add("--groups", action="append", metavar="COLUMN|CSV", help=_GROUPS_HELP)
    add("--unit", metavar="COLUMN", help="pictures that are not independent, named like a group: of a patient, a film")
    add("--adversarial", type=whole(1), metavar="N", help="also try every object on N pictures' backgrounds")
    add("--examples", type=whole(0), default=12, metavar="N", help="worst pictures to show (default: 12)")
    add("--batch-size", type=whole(1), default=64, metavar="N", help="pictures in a pass (default: 64)")
    add("--max-batches", type=whole(1), metavar="N", help="stop after so many batches")
    add("--workers", type=whole(0), default=0, metavar="N", help="processes that read pictures (default: 0)")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of backgrounds and coalitions (default: 0)")
    add("--name", action="append", metavar="TEXT", help="of a model in the report (default: MODEL, or its checkpoint)")
    add(
        "--out", type=Path, default=Path("bgdebias-probe"), metavar="DIR", help="folder to write (default: %(default)s)"
    )
    add("--parquet", action="store_true", help="write report.parquet instead of report.json: for huge sets")
    add("--json", action="store_true", help="print the headline figures as JSON instead of text")
    add_overwrite_argument(parser)
    add_mask_arguments(parser)
    _add_further_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load, measure, write the report, print the summary."""
    require_inputs(args, "data", "checkpoint", "labels", "masks", "concepts")
    from torch_bgdebias.cli.probe.running import run_probe  # imports torch, which --help does without

    return run_probe(args)


def _add_further_arguments(parser: argparse.ArgumentParser) -> None:
    """Measurements that are made beside the others."""
    parser.add_argument("--mask-quality", type=real(0, 1), metavar="IOU", help=_QUALITY_HELP)
    add = parser.add_argument_group("concepts").add_argument
    add("--concepts", type=Path, metavar="DIR", help="test each class's concept vector on DIR/<category>/x.jpg")
    add("--concept-layers", nargs="+", metavar="LAYER", help="default: an early, a middle and a late one")
    about = "net2vec: one vector for all pictures; loce: the mean of one a picture (default: net2vec)"
    add("--concept-method", choices=CONCEPT_METHODS, default="net2vec", help=about)
    add("--concept-images", type=whole(2), default=50, metavar="N", help="of each class, half to fit (default: 50)")
