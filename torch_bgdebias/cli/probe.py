"""``bgdebias probe``: a checkpoint and a masked folder in, a report on background bias out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli._arguments import choices, usable_device, whole, writable
from torch_bgdebias.cli._concepts import add_arguments, draw_concepts, measure_concepts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torch_bgdebias.cli._probe_data import ProbeData
    from torch_bgdebias.probe import BackgroundBiasReport
    from torch_bgdebias.probe.passes.measure import ImageScore

__all__ = ["ATTRIBUTIONS", "SCHEMA", "VARIANTS", "add_parser", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.probe/1"
ATTRIBUTIONS = ("grad_cam", "kernel_shap", "lrp")
#: kept here so that --help needs no torch; a test compares them with data.VARIANTS
VARIANTS = ("only_fg", "only_bg_b", "only_bg_t", "no_fg", "mixed_same", "mixed_rand", "mixed_next")

_DESCRIPTION = """\
Does the model look at the background, how much, and at which classes? Classifies every picture as it is and with other
backgrounds, asks attributions where the evidence lies, and writes report.html and report.json into --out.
"""

_EPILOG = """\
models:
  timm:NAME                a timm model, its own input size and normalisation
  torchvision:NAME         a torchvision classifier, 224 pixels, ImageNet's normalisation
  package.module:attribute a torch.nn.Module, or a class or function that makes one without arguments; pictures are
                           in [0, 1] unless --mean and --std say otherwise

data:
  --layout folder     images/<class>/x.jpg with masks/<class>/x.png, 255 = foreground (bgdebias masks makes masks)
  --layout imagenet9  the Background Challenge's release: original/val/00_dog/..., mixed_same/val/..., fg_mask/val/...;
                      the published variants are classified as they are, so that the challenge's own figures come out;
                      models of 9 classes, or of ImageNet's 1000, whose answers are mapped as in the challenge
  --layout voc        a folder with VOCdevkit (PASCAL VOC 2012 segmentation)
  Class folders in alphabetical order are the model's outputs 0, 1, ...; where the model has others, --labels names a
  JSON file {"class folder": output, ...}.

examples:
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data data/test
  bgdebias probe --model timm:vit_small_patch16_224 --pretrained --data animals --labels animals.json
  bgdebias probe --model my_project.nets:make_net --checkpoint last.ckpt --data data/test --size 64
  bgdebias probe --model timm:resnet50 --pretrained --data bg_challenge --layout imagenet9 --attributions grad_cam,lrp
  bgdebias probe --model torchvision:resnet50 --pretrained --data bg_challenge --layout imagenet9 --adversarial 4050
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data data/test --json | python -m json.tool
"""


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
    add("--model", required=True, metavar="MODEL", help="timm:NAME, torchvision:NAME or package.module:attribute")
    add("--checkpoint", type=Path, metavar="FILE", help="state dict, or a training checkpoint that holds one")
    add("--pretrained", action="store_true", help="weights that timm or torchvision publish (downloads them)")
    add("--classes", type=whole(2), metavar="N", help="outputs of the model (default: the data's classes)")
    add("--data", required=True, type=Path, metavar="DIR", help="pictures with masks")
    add("--layout", choices=("folder", "imagenet9", "voc"), default="folder", help="of --data (default: folder)")
    add("--labels", type=Path, metavar="FILE", help="JSON: the model's output of each class folder")
    add("--on-error", choices=("raise", "skip"), default="raise", help="missing masks, unreadable files (%(default)s)")
    add("--size", type=whole(1), metavar="N", help="side of the pictures (default: the model's, else 224)")
    add("--mean", type=float, nargs="+", metavar="X", help="normalisation, one number or one a channel")
    add("--std", type=float, nargs="+", metavar="X", help="goes with --mean")
    add("--variants", type=choices(VARIANTS), metavar="A,B", help=f"of {', '.join(VARIANTS)} (default: all)")
    add("--remake", action="store_true", help="imagenet9: make the variants anew from originals and masks")
    add("--attributions", type=choices(ATTRIBUTIONS), default=["grad_cam"], metavar="A,B", help=_attributions_help())
    add("--target", choices=("predicted", "label"), default="predicted", help="class that is explained (%(default)s)")
    add("--shap-samples", type=whole(2), default=1000, metavar="N", help="coalitions of kernel_shap (default: 1000)")
    add("--adversarial", type=whole(1), metavar="N", help="also try every object on N pictures' backgrounds")
    add("--examples", type=whole(0), default=12, metavar="N", help="worst pictures to show (default: 12)")
    add("--batch-size", type=whole(1), default=64, metavar="N", help="pictures in a pass (default: 64)")
    add("--max-batches", type=whole(1), metavar="N", help="stop after so many batches")
    add("--workers", type=whole(0), default=0, metavar="N", help="processes that read pictures (default: 0)")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of backgrounds and coalitions (default: 0)")
    add("--name", metavar="TEXT", help="of the model in the report (default: MODEL)")
    add(
        "--out", type=Path, default=Path("bgdebias-probe"), metavar="DIR", help="folder to write (default: %(default)s)"
    )
    add("--json", action="store_true", help="print the headline figures as JSON instead of text")
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load, measure, write the report, print the summary."""
    from torch_bgdebias.cli._probe_data import class_names, open_data
    from torch_bgdebias.named_models import load_model
    from torch_bgdebias.probe import report_to_html
    from torch_bgdebias.writing import marked_folder

    if (args.mean is None) != (args.std is None):
        raise ValueError(f"--mean and --std: expected both or none, got only --{'mean' if args.std is None else 'std'}")
    device = usable_device(args.device)
    names = class_names(args)
    outputs = args.classes or (None if args.pretrained else len(names))
    loaded = load_model(args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained)
    if args.checkpoint is None and not args.pretrained and args.model.startswith(("timm:", "torchvision:")):
        print("bgdebias probe: note: neither --checkpoint nor --pretrained: the weights are random", file=sys.stderr)
    loaded.model.to(device).eval()
    data = open_data(args, loaded)
    out = writable(args.out, name="--out")
    report = _measure(args, loaded.model, data, names, device)
    files = {"html": str(out / "report.html"), "json": str(out / "report.json")}
    with marked_folder(out):
        report.concepts = measure_concepts(args, loaded.model, data, names, device, out)
        report.to_json(files["json"])
        draw_concepts(report, out)
        report_to_html([report], files["html"], settings={**_told(args), **data.notes})
    print(_headline(report, files, data.notes) if args.json else f"{report.summary()}\n\nOpen {files['html']}")
    return 0


def _measure(
    args: argparse.Namespace, model: nn.Module, data: ProbeData, names: list[str], device: torch.device
) -> BackgroundBiasReport:
    from torch.utils.data import DataLoader

    from torch_bgdebias.cli._progress import progress
    from torch_bgdebias.data import ImageNet9Variants, to_imagenet9
    from torch_bgdebias.probe import evaluate_background_bias
    from torch_bgdebias.probe.passes.attributions import named_attributions

    count = _count_outputs(model, data.dataset[0][0][None].to(device))
    published = isinstance(data.dataset.items, ImageNet9Variants)
    variants = list(data.dataset.items.variants) if published else args.variants or list(VARIANTS)
    logits: Any = None
    if args.layout == "imagenet9" and count == 1000:
        logits, count, named = to_imagenet9, len(names) + 1, [*names, "none of them"]
        if not published and args.variants is None:
            # the class after the last would be "none of them", of which there is no background
            variants.remove("mixed_next")
    else:
        named = _named(names, data.dataset.outputs, count, args.labels)
    chunk = max(args.batch_size, 64)
    chosen = named_attributions(
        args.attributions, logits=logits, samples=args.shap_samples, chunk=chunk, seed=args.seed
    )
    return evaluate_background_bias(
        model,
        DataLoader(data.dataset, batch_size=args.batch_size, num_workers=args.workers),
        variants=variants,
        num_classes=count,
        class_names=named,
        mean=data.mean,
        std=data.std,
        device=device,
        seed=args.seed,
        logits=logits,
        scores=_adversarial(args, data, logits),
        attributions=chosen,
        explain=args.target,
        ready=3 if published else None,
        max_batches=args.max_batches,
        examples=args.examples,
        name=args.name or args.model,
        progress=progress,
    )


def _adversarial(args: argparse.Namespace, data: ProbeData, logits: Any) -> dict[str, ImageScore]:
    from torch_bgdebias.cli._adversarial import adversarial, own_backgrounds, published_backgrounds

    if args.adversarial is None:
        return {}
    if args.layout == "imagenet9" and (args.data / "only_bg_t" / "val").is_dir():
        bank, source = (
            published_backgrounds(args.data, data.dataset, data.notes["image size"], args.adversarial),
            ", of the release's only_bg_t",
        )
    else:
        bank, source = own_backgrounds(data.dataset, args.adversarial), ""
    data.notes["adversarial backgrounds"] = f"{len(bank)} ({args.adversarial} asked for){source}"
    return {"adversarial_accuracy": adversarial(bank, logits=logits, chunk=max(args.batch_size, 64))}


def _count_outputs(model: nn.Module, image: Tensor) -> int:
    """K; a model that does not take the pictures is the user's to mend, so it is told in one line."""
    import torch

    from torch_bgdebias.checks import describe
    from torch_bgdebias.models import logits_of

    try:
        with torch.no_grad():
            output = logits_of(model(image))
    except (RuntimeError, TypeError, AssertionError) as error:
        shown = tuple(image.shape)
        raise ValueError(f"--model: {type(model).__name__} failed on a picture {shown}: {error}; see --size") from error
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(f"--model: expected logits of at least two classes (B, K), got {describe(output)}")
    return int(output.shape[1])


def _named(names: list[str], outputs: list[int], count: int, told: Path | None) -> list[str]:
    """A name for each of the model's outputs."""
    if max(outputs) >= count:
        worst = names[outputs.index(max(outputs))]
        raise ValueError(
            f"--data: label {max(outputs)} ({worst}) is outside the model's {count} outputs; --labels FILE says which "
            "output each class folder is"
        )
    if told is None and count != len(names):
        raise ValueError(
            f"--data: the model has {count} outputs and the data {len(names)} classes ({', '.join(names[:4])}, ...): "
            "say with --labels FILE which output each class folder is"
        )
    by_output = {output: name for name, output in zip(names, outputs, strict=True)}
    return [by_output.get(i, str(i)) for i in range(count)]


def _told(args: argparse.Namespace) -> dict[str, Any]:
    """The command's own settings, for the page."""
    told: dict[str, Any] = {"model": args.model, "data": args.data, "layout": args.layout}
    told |= {"checkpoint": args.checkpoint} if args.checkpoint else {"pretrained": args.pretrained}
    if args.attributions:
        told["explained class"] = args.target
    if "kernel_shap" in args.attributions:
        told["kernel_shap"] = f"{args.shap_samples} coalitions, 7 x 7 superpixels, mean colour for absent ones"
    return {name: value if isinstance(value, bool) else str(value) for name, value in told.items()}


def _headline(report: BackgroundBiasReport, files: dict[str, str], notes: dict[str, Any]) -> str:
    whole_report = report.to_dict()
    result = {
        "schema": SCHEMA,
        "model": report.model,
        "bg_gap": whole_report["bg_gap"],
        "accuracy": {name: variant["accuracy"] for name, variant in whole_report["variants"].items()},
        "scores": whole_report["scores"],
        "counts": whole_report["counts"],
        "notes": notes,
        "files": files,
    }
    if report.concepts:
        result["biased_concepts"] = [pair for table in report.concepts for pair in table.told()]
    return json.dumps(result, indent=1, allow_nan=False)


def _attributions_help() -> str:
    return f"of {', '.join(ATTRIBUTIONS)}, or '' for none (default: grad_cam); kernel_shap takes minutes on a CPU"
