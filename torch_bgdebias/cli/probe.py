"""``bgdebias probe``: a checkpoint and a masked folder in, a report on background bias out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch_bgdebias.cli._arguments import choices, usable_device, whole, writable
from torch_bgdebias.cli._concepts import add_arguments, concepts_headline, measure_concepts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torch_bgdebias.cli._models import LoadedModel
    from torch_bgdebias.probe import BackgroundBiasReport
    from torch_bgdebias.probe.measure import ImageScore

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
  --layout imagenet9  the Background Challenge's release: original/val/00_dog/..., fg_mask/val/...; models of 9 classes,
                      or of ImageNet's 1000, whose answers are mapped as in the challenge
  --layout voc        a folder with VOCdevkit (PASCAL VOC 2012 segmentation)
  Class folders in alphabetical order are the model's outputs 0, 1, ...; where the model has others, --labels names a
  JSON file {"class folder": output, ...}.

examples:
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data data/test
  bgdebias probe --model timm:vit_small_patch16_224 --pretrained --data animals --labels animals.json
  bgdebias probe --model my_project.nets:make_net --checkpoint last.ckpt --data data/test --size 64
  bgdebias probe --model timm:resnet50 --pretrained --data bg_challenge --layout imagenet9 --attributions grad_cam,lrp
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
    from torch_bgdebias.cli._models import load_model
    from torch_bgdebias.probe import report_to_html

    if (args.mean is None) != (args.std is None):
        raise ValueError(f"--mean and --std: expected both or none, got only --{'mean' if args.std is None else 'std'}")
    device = usable_device(args.device)
    names = _class_names(args)
    outputs = args.classes or (None if args.pretrained else len(names))
    loaded = load_model(args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained)
    if args.checkpoint is None and not args.pretrained and args.model.startswith(("timm:", "torchvision:")):
        print("bgdebias probe: note: neither --checkpoint nor --pretrained: the weights are random", file=sys.stderr)
    loaded.model.to(device).eval()
    data = _open(args, loaded)
    out = writable(args.out, name="--out")
    report = _measure(args, loaded.model, data, names, device)
    files = {"html": str(out / "report.html"), "json": str(out / "report.json")}
    report.to_json(files["json"])
    concepts = measure_concepts(args, loaded.model, data, names, device, out)
    report_to_html([report], files["html"], settings={**_told(args), **data.notes}, concepts=concepts)
    shown = _headline(report, files, data.notes) if args.json else f"{report.summary()}\n\nOpen {files['html']}"
    print(concepts_headline(shown, concepts))
    return 0


class _Data(NamedTuple):
    """What is measured: a data set in the model's units, and what was left out of it."""

    dataset: Any
    mean: list[float] | None
    std: list[float] | None
    notes: dict[str, Any]


class _Normalised:
    """(image, label, mask) with the image normalised and the label as the model numbers it."""

    def __init__(self, items: Any, mean: list[float] | None, std: list[float] | None, outputs: list[int]) -> None:
        self.items, self.mean, self.std, self.outputs = items, mean, std, outputs

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        import torch

        image, label, mask = self.items[index]
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(x).reshape(-1, 1, 1) for x in (self.mean, self.std))
            image = (image - mean) / std
        return image, self.outputs[label], mask


def _class_names(args: argparse.Namespace) -> list[str]:
    """The data's classes, before any picture is opened."""
    if args.layout == "imagenet9":
        from torch_bgdebias.data import ImageNet9

        return list(ImageNet9.classes)
    if args.layout == "voc":
        from torch_bgdebias.data import VOCObjects

        return list(VOCObjects.classes)
    root = args.data / "images"
    if not root.is_dir():
        raise FileNotFoundError(f"--data: expected images/<class>/ and masks/<class>/ in {args.data}, found no {root}")
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _open(args: argparse.Namespace, loaded: LoadedModel) -> _Data:
    from torch_bgdebias.data import ImageNet9, MaskedImageFolder, VOCObjects
    from torch_bgdebias.data.files import first_few

    size = args.size or loaded.size or 224
    mean, std = (args.mean, args.std) if args.mean is not None else (loaded.mean, loaded.std)
    found: Any
    if args.layout == "imagenet9":
        found = ImageNet9(args.data, size=size, masks=True, on_error=args.on_error)
    elif args.layout == "voc":
        try:
            found = VOCObjects(args.data, image_set="val", size=size)
        except RuntimeError as error:  # what torchvision raises where the data is not
            raise FileNotFoundError(f"--data: no PASCAL VOC 2012 in {args.data}: {error}") from error
    else:
        found = MaskedImageFolder(args.data, size=size, on_error=args.on_error)
    names = list(found.classes)
    notes: dict[str, Any] = {"image size": size}
    if isinstance(found, VOCObjects) and found.skipped:
        notes["pictures left out"], notes["left out"] = found.skipped, "without an object"
    elif not isinstance(found, VOCObjects) and found.skipped:
        notes["pictures left out"] = len(found.skipped)
        notes["left out"] = first_few(f"{path.name} ({why})" for path, why in found.skipped)
    if empty := [name for i, name in enumerate(names) if i not in set(found.labels)]:
        notes["classes without pictures"] = ", ".join(empty)
    for what in ("pictures left out", "classes without pictures"):
        if what in notes:
            print(f"bgdebias probe: note: {what}: {notes[what]}", file=sys.stderr)
    mean, std = (None if x is None else [float(v) for v in x] for x in (mean, std))
    return _Data(_Normalised(found, mean, std, _outputs(args.labels, names)), mean, std, notes)


def _outputs(path: Path | None, names: list[str]) -> list[int]:
    """The model's output of each class."""
    if path is None:
        return list(range(len(names)))
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--labels: {path} is not JSON: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(v, int) and v >= 0 for v in told.values()):
        raise ValueError(f'--labels: {path}: expected {{"class folder": output, ...}} with whole numbers')
    if absent := [name for name in names if name not in told]:
        raise ValueError(f"--labels: {path} has no output for {', '.join(absent[:5])} ({len(absent)} classes)")
    return [told[name] for name in names]


def _measure(
    args: argparse.Namespace, model: nn.Module, data: _Data, names: list[str], device: torch.device
) -> BackgroundBiasReport:
    from torch.utils.data import DataLoader

    from torch_bgdebias.cli._progress import progress
    from torch_bgdebias.cli._scores import attributions, scores, with_heatmaps
    from torch_bgdebias.data import to_imagenet9
    from torch_bgdebias.probe import evaluate_background_bias

    count = _count_outputs(model, data.dataset[0][0][None].to(device))
    variants = args.variants or list(VARIANTS)
    logits: Any = None
    if args.layout == "imagenet9" and count == 1000:
        logits, count, named = to_imagenet9, len(names) + 1, [*names, "none of them"]
        # the class after the last would be "none of them", of which there is no background
        variants = args.variants or [v for v in VARIANTS if v != "mixed_next"]
    else:
        named = _named(names, data.dataset.outputs, count, args.labels)
    chosen = attributions(
        args.attributions, logits=logits, samples=args.shap_samples, chunk=max(args.batch_size, 64), seed=args.seed
    )
    of_label = args.target == "label"
    report = evaluate_background_bias(
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
        scores={**scores(chosen, of_label=of_label), **_adversarial(args, data, logits)},
        max_batches=args.max_batches,
        examples=args.examples,
        name=args.name or args.model,
        progress=progress,
    )

    def item(position: int) -> tuple[Tensor, int]:
        image, label, _ = data.dataset[position]
        return image.to(device), label

    return with_heatmaps(report, model, item, chosen, of_label=of_label)


def _adversarial(args: argparse.Namespace, data: _Data, logits: Any) -> dict[str, ImageScore]:
    from torch_bgdebias.cli._scores import adversarial, own_backgrounds

    if args.adversarial is None:
        return {}
    bank = own_backgrounds(data.dataset, args.adversarial)
    data.notes["adversarial backgrounds"] = f"{len(bank)} ({args.adversarial} asked for)"
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
    return json.dumps(result, indent=1, allow_nan=False)


def _attributions_help() -> str:
    return f"of {', '.join(ATTRIBUTIONS)}, or '' for none (default: grad_cam); kernel_shap takes minutes on a CPU"
