"""``bgdebias demo``: measure background bias, remove it, show both."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli._arguments import real, whole, writable

if TYPE_CHECKING:
    from torch_bgdebias.cli._demo_data import DemoData
    from torch_bgdebias.cli.training import SmallCNN, Trained
    from torch_bgdebias.probe import BackgroundBiasReport
    from torch_bgdebias.probe.report import ImageGrid

__all__ = ["SCHEMA", "add_parser", "run"]

#: name and version of the layout of ``demo.json`` and of what ``--json`` prints
SCHEMA = "torch_bgdebias.demo/1"

_DESCRIPTION = """\
Train a small classifier on objects that always stand in front of the same category of scenes, measure how much of its
accuracy is the background, train it again with backgrounds exchanged, and write both into a report.

Without folders: scikit-learn's handwritten digits on scenes that are drawn here. Nothing is downloaded.
"""

_EPILOG = """\
folders:
  --foregrounds  images/<class>/x.jpg with masks/<class>/x.png (white: the object), or a folder with MNIST's files
                 (t10k-images-idx3-ubyte.gz and labels), whose strokes are the masks
  --backgrounds  <category>/x.jpg; every class gets a category of its own, the ones with the most pictures first

writes into --out:
  report.html            everything on one page that needs no network
  demo.json              settings, figures with intervals, curves, files
  report-<method>.json   the whole measurement of one model, per image

examples:
  bgdebias demo
  bgdebias demo --out my-demo --foregrounds objects --backgrounds scenes --size 64
  bgdebias demo --correlation 0.8 --methods baseline,swap,clad+
  bgdebias demo --json | python -m json.tool
"""


def add_parser(subparsers: Any) -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="train with and without background swapping on correlated backgrounds, and report both",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("bgdebias-demo"), metavar="DIR", help="folder to write (default: %(default)s)")
    add("--foregrounds", type=Path, metavar="DIR", help="objects with masks (default: scikit-learn's digits)")
    add("--backgrounds", type=Path, metavar="DIR", help="scenes by category (default: drawn)")
    add(
        "--correlation", type=real(0, 1), default=1.0, metavar="P", help="of class and scene in training (default: 1.0)"
    )
    add("--size", type=whole(16), default=32, metavar="N", help="side of the images in pixels (default: 32)")
    add("--epochs", type=whole(1), default=6, metavar="N", help="passes over the samples (default: 6)")
    add("--samples", type=whole(4), default=8000, metavar="N", help="training images composed (default: 8000)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of everything random (default: 0)")
    add("--clad-weight", type=real(0), default=1.0, metavar="X", help="lambda of CLAD and CLAD+ (default: 1.0)")
    add("--methods", type=_methods, default=list(METHODS), metavar="A,B", help=_methods_help())
    add("--json", action="store_true", help="print demo.json to stdout instead of the summary")


def run(args: argparse.Namespace) -> int:
    """Train and measure every method, and write the report."""
    from torch_bgdebias.cli._demo_data import load
    from torch_bgdebias.writing import marked_folder, write_text

    started = time.perf_counter()
    out = writable(args.out, name="--out")
    data = load(
        args.foregrounds,
        args.backgrounds,
        size=args.size,
        samples=args.samples,
        correlation=args.correlation,
        seed=args.seed,
    )
    for line in data.notes:
        print(f"bgdebias demo: note: {line}", file=sys.stderr)
    seconds = {"data": time.perf_counter() - started}
    trained, reports = {}, {}
    for name in args.methods:
        trained[name] = _train(name, data, args)
        seconds[f"train {name}"] = trained[name].seconds
        before = time.perf_counter()
        reports[name] = _measure(name, trained[name].model, data, args.seed)
        seconds[f"measure {name}"] = time.perf_counter() - before
    settings = _settings(args, data)
    with marked_folder(out):
        files = _write_html(out, data, trained, list(reports.values()), settings)
        for name, report in reports.items():
            files[f"report-{name}"] = str(out / f"report-{name}.json")
            report.to_json(files[f"report-{name}"])
        files["json"] = str(out / "demo.json")
        seconds["total"] = time.perf_counter() - started
        result = _result(args, data, trained, reports, settings, files, seconds)
        text = json.dumps(result, indent=1, allow_nan=False)
        write_text(files["json"], text + "\n")
    print(text if args.json else _summary(list(reports.values()), files, seconds["total"]))
    return 0


def _train(name: str, data: DemoData, args: argparse.Namespace) -> Trained:
    import torch

    from torch_bgdebias.cli.training import TrainingSet, train
    from torch_bgdebias.data import make_variant

    image, mask = data.test.images.float() / 255, data.test.masks.float() / 255
    generator = torch.Generator().manual_seed(args.seed)
    tests = {
        curve: make_variant(
            image, mask, data.test.labels, variant, backgrounds=data.test_bank, generator=generator
        ).image
        for curve, variant in _CURVES.items()
    }

    def accuracies(model: SmallCNN) -> dict[str, float]:
        return {
            curve: float((predict(model, images).argmax(1) == data.test.labels).float().mean())
            for curve, images in tests.items()
        }

    training = TrainingSet(data.train.images, data.train.labels, data.train.masks, data.train_bank, len(data.classes))
    return train(
        name, training, epochs=args.epochs, seed=args.seed, clad_weight=args.clad_weight, after_epoch=accuracies
    )


_CURVES = {"Test accuracy, own class's scenes": "mixed_same", "Test accuracy, random scenes": "mixed_rand"}


def predict(model: SmallCNN, images: Any) -> Any:
    """Logits of float images (N, 3, S, S), a few hundred at a time."""
    import torch

    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(500)])


def _measure(name: str, model: SmallCNN, data: DemoData, seed: int) -> BackgroundBiasReport:
    from torch.utils.data import DataLoader

    from torch_bgdebias.cli._progress import progress
    from torch_bgdebias.cli.training import METHODS
    from torch_bgdebias.probe import evaluate_background_bias

    return evaluate_background_bias(
        model,
        DataLoader(data.test.dataset(), batch_size=256),
        backgrounds=data.test_bank,
        num_classes=len(data.classes),
        class_names=data.classes,
        seed=seed,
        examples=6,
        name=METHODS[name].label,
        progress=progress,
    )


def _write_html(
    out: Path,
    data: DemoData,
    trained: dict[str, Trained],
    reports: Sequence[BackgroundBiasReport],
    settings: dict[str, Any],
) -> dict[str, str]:
    from torch_bgdebias.cli.training import METHODS
    from torch_bgdebias.probe import report_to_html

    curves: dict[str, dict[str, list[float]]] = {}
    for name, result in trained.items():
        for quantity, values in result.curves.items():
            panel = "Training loss" if quantity == "loss" else quantity
            curves.setdefault(panel, {})[METHODS[name].label] = values
    curves = {panel: curves[panel] for panel in [*_CURVES, "Training loss"]}
    models = {METHODS[name].label: result.model for name, result in trained.items()}
    path = out / "report.html"
    report_to_html(
        reports,
        path,
        title="Background bias: before and after",
        curves=curves,
        grids=[_grid(models, data)],
        settings=settings,
    )
    return {"html": str(path)}


def _grid(models: dict[str, SmallCNN], data: DemoData, rows: int = 6, columns: int = 5) -> ImageGrid:
    """The first test object of some classes in front of a scene of its own category and of some fixed other scenes."""
    import torch

    from torch_bgdebias.compositing import paste
    from torch_bgdebias.probe.report import Cell, ImageGrid

    k = len(data.classes)
    bank, labels = data.test_bank.images.float() / 255, data.test_bank.labels
    assert labels is not None
    first = [int((labels == c).nonzero()[0]) for c in range(k)]
    shown = sorted({round(i * (k - 1) / max(1, rows - 1)) for i in range(min(rows, k))})
    others = sorted({round((i + 0.5) * (k - 1) / columns) for i in range(min(columns, k))})
    table = []
    for label in shown:
        at = (data.test.labels == label).nonzero()[0]
        scenes = bank[[first[label], *(first[c] for c in others)]]
        image = data.test.images[at].float().expand(len(scenes), -1, -1, -1) / 255
        mask = data.test.masks[at].float().expand(len(scenes), -1, -1, -1) / 255
        composed = paste(image, mask, scenes)
        said = {name: predict(model, composed).argmax(1).tolist() for name, model in models.items()}
        pictures = (composed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        cells = [
            Cell(
                picture,
                [(data.classes[answers[i]], answers[i] == label) for answers in said.values()],
                f"{data.classes[label]} in front of another scene; "
                + ", ".join(f"{name}: {data.classes[answers[i]]}" for name, answers in said.items()),
                range(len(said)),
            )
            for i, picture in enumerate(pictures)
        ]
        table.append((data.classes[label], cells))
    return ImageGrid(
        "The same objects in front of other scenes",
        ["its own category", *(data.categories[c].replace("_", " ") for c in others)],
        table,
        "Objects and scenes that no model was trained on, and what each model says. In training each class stood in "
        "front of its own category.",
        list(models),
    )


def _settings(args: argparse.Namespace, data: DemoData) -> dict[str, Any]:
    pairs = ", ".join(f"{c}: {s.replace('_', ' ')}" for c, s in zip(data.classes, data.categories, strict=True))
    return {
        "foregrounds": data.sources["foregrounds"],
        "backgrounds": data.sources["backgrounds"],
        "scene of each class": pairs,
        "correlation in training": args.correlation,
        "image size": args.size,
        "training": f"{args.epochs} epochs of {data.counts['training_samples']:,} samples, seed {args.seed}",
        **({"lambda of CLAD": args.clad_weight} if any(m.startswith("clad") for m in args.methods) else {}),
        **{name: number for name, number in data.counts.items() if name != "training_samples"},
        **({"notes": " ".join(data.notes)} if data.notes else {}),
    }


def _result(
    args: argparse.Namespace,
    data: DemoData,
    trained: dict[str, Trained],
    reports: dict[str, BackgroundBiasReport],
    settings: dict[str, Any],
    files: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    methods = []
    for name, report in reports.items():
        whole = report.to_dict()
        methods.append(
            {
                "name": name,
                "label": report.model,
                "train_seconds": round(trained[name].seconds, 2),
                "curves": trained[name].curves,
                **{part: whole[part] for part in ("bg_gap", "variants", "per_class", "counts", "settings", "versions")},
            }
        )
    wanted = ("correlation", "size", "epochs", "samples", "seed", "clad_weight", "methods")
    return {
        "schema": SCHEMA,
        "arguments": {name: getattr(args, name) for name in wanted},
        "data": {
            "classes": list(data.classes),
            "categories": list(data.categories),
            "counts": data.counts,
            "sources": data.sources,
            "notes": data.notes,
        },
        "methods": methods,
        "files": files,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def _summary(reports: Sequence[BackgroundBiasReport], files: dict[str, str], seconds: float) -> str:
    width = max(len(r.model) for r in reports)
    lines = [f"{'':<{width}}  {'own scenes, %':<20}  {'random scenes, %':<20}  BG-Gap, points"]
    for report in reports:
        figures = [report.variants[v].accuracy.percent() for v in ("mixed_same", "mixed_rand")]
        gap = report.bg_gap.percent() if report.bg_gap is not None else "-"
        lines.append(f"{report.model:<{width}}  {figures[0]:<20}  {figures[1]:<20}  {gap}")
    lines.append(f"\n{len(reports[0].images)} test images, 95 % intervals, {seconds:.0f} s. Open {files['html']}")
    return "\n".join(lines)


#: names and one line each, kept here so that --help needs no torch; a test compares them with training.METHODS
METHODS = {
    "baseline": "cross-entropy on the images as they are",
    "swap": "backgrounds exchanged for random ones",
    "clad": "CLAD, contrastive",
    "clad+": "CLAD with cross-entropy on the swapped images too",
}


def _methods(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(METHODS)}, got {text!r}")
    return names


def _methods_help() -> str:
    told = "; ".join(f"{name}: {what}" for name, what in METHODS.items())
    return f"what to train, the first is 'before' (default: all). {told}"
