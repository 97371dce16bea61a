"""``bgdebias probe``: a checkpoint and a masked folder in, a report on background bias out."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch_bgdebias.cli.arguments import choices, real, require_inputs, whole
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options
from torch_bgdebias.names import ATTRIBUTIONS, CONCEPT_METHODS, VARIANTS

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


_GROUPS_HELP = (
    "what divides the pictures (site, camera): a column of a table in --data, FILE.csv:COLUMN, FILE.csv or folder:LEVEL"
)


_QUALITY_HELP = "measure again with worse masks too; IOU: how yours overlap with drawn ones (bgdebias masks --compare)"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``probe`` to the command line."""
    parser = add_command(
        subparsers,
        "probe",
        about="measure a checkpoint's background bias on a masked folder",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_options(parser, "--model", action="append", help=_MODEL_HELP)
    add_options(parser, "--checkpoint", action="append", metavar="FILE|DIR", help=_CHECKPOINT_HELP)
    add_options(parser, "--pretrained", "--classes N", "--channels", "--logits", "--data", "--layout", "--labels")
    add_options(parser, "--score", "--on-error", "--size", "--mean", "--std")
    add("--variants", type=choices(VARIANTS), metavar="A,B", help=f"of {', '.join(VARIANTS)} (default: all)")
    add("--remake", action="store_true", help="imagenet9: make the variants anew from originals and masks")
    add("--attributions", type=choices(ATTRIBUTIONS), default=["grad_cam"], metavar="A,B", help=_ATTRIBUTIONS_HELP)
    add("--target", choices=("predicted", "label"), default="predicted", help="class that is explained (%(default)s)")
    add("--shap-samples", type=whole(2), default=1000, metavar="N", help="coalitions of kernel_shap (default: 1000)")
    add("--groups", action="append", metavar="COLUMN|CSV", help=_GROUPS_HELP)
    add_options(parser, "--unit")
    add("--adversarial", type=whole(1), metavar="N", help="also try every object on N pictures' backgrounds")
    add("--examples", type=whole(0), default=12, metavar="N", help="worst pictures to show (default: 12)")
    add_options(parser, "--batch-size")
    add("--max-batches", type=whole(1), metavar="N", help="so many batches, spread over the classes")
    add_options(parser, "--workers", "--device")
    add_options(parser, "--seed", help="of backgrounds and coalitions (default: 0)")
    add_options(parser, "--name", action="append")
    add_options(parser, "--out", default=Path("bgdebias-probe"))
    add("--parquet", action="store_true", help="write report.parquet instead of report.json: for huge sets")
    add_options(parser, "--json", help="print the headline figures as JSON instead of text")
    add_options(parser, "--overwrite")
    add_mask_options(parser)
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
    help_text = "net2vec: one vector for all pictures; loce: the mean of one a picture (default: net2vec)"
    add("--concept-method", choices=CONCEPT_METHODS, default="net2vec", help=help_text)
    add("--concept-images", type=whole(2), default=50, metavar="N", help="of each class, half to fit (default: 50)")
