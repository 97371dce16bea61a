"""The run of ``bgdebias demo``: makes the data, trains and measures each method, writes the files."""

from __future__ import annotations

import argparse
import json
import sys
import time

import torch
from torch.utils.data import DataLoader

from torch_bgdebias.cli.arguments import refuse_results, writable
from torch_bgdebias.cli.demo.data import DemoData, load
from torch_bgdebias.cli.demo.page import write_page
from torch_bgdebias.cli.demo.results import demo_result, demo_settings, demo_summary
from torch_bgdebias.cli.demo.training import METHODS, SmallCNN, Trained, TrainingSet, predict, train
from torch_bgdebias.cli.progress import note, progress
from torch_bgdebias.data import make_variant
from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias
from torch_bgdebias.seeds import derive_seed
from torch_bgdebias.writing import marked_folder, write_text

__all__ = ["CURVES", "run_demo"]

#: panel of the page -> the variant whose accuracy is followed during training
CURVES = {"Test accuracy, own class's scenes": "mixed_same", "Test accuracy, random scenes": "mixed_rand"}


def run_demo(args: argparse.Namespace) -> int:
    """Train and measure every method, and write the report."""
    started = time.perf_counter()
    own_data = args.foregrounds is not None or args.backgrounds is not None
    if not own_data:  # nothing else can be wrong
        refuse_results(args.out, ("report.html", "demo.json"), overwrite=args.overwrite)
    out = writable(args.out, name="--out")
    data = load(
        args.foregrounds,
        args.backgrounds,
        size=args.size,
        samples=args.samples,
        correlation=args.correlation,
        seed=args.seed,
    )
    if own_data:
        refuse_results(args.out, ("report.html", "demo.json"), overwrite=args.overwrite)
    for line in data.notes:
        print(f"bgdebias demo: note: {line}", file=sys.stderr)
    seconds = {"data": time.perf_counter() - started}
    trained: dict[str, Trained] = {}
    reports: dict[str, BackgroundBiasReport] = {}
    files = {"html": str(out / "report.html")}
    settings = demo_settings(args, data)
    with marked_folder(out):
        for number, name in enumerate(args.methods, start=1):
            trained[name] = _train(name, data, args, stage=f"{number}/{len(args.methods)}")
            seconds[f"train {name}"] = trained[name].seconds
            start = time.perf_counter()
            reports[name] = _measure(name, trained[name].model, data, args.seed)
            seconds[f"measure {name}"] = time.perf_counter() - start
            files[f"report-{name}"] = str(out / f"report-{name}.json")
            reports[name].to_json(files[f"report-{name}"])
            if number in (1, len(args.methods)):  # an early look at the page shows the bias of the first model
                write_page(out, data, trained, list(reports.values()), settings, list(CURVES))
            if number == 1 < len(args.methods):
                note(
                    f"{METHODS[name].label} is measured: {files['html']} shows it; {len(args.methods) - 1} more follow"
                )
        files["json"] = str(out / "demo.json")
        seconds["total"] = time.perf_counter() - started
        text = json.dumps(demo_result(args, data, trained, reports, files, seconds), indent=1, allow_nan=False)
        write_text(files["json"], text + "\n")
    print(text if args.json else demo_summary(args, list(reports.values()), files, seconds["total"]))
    return 0


def _train(name: str, data: DemoData, args: argparse.Namespace, *, stage: str) -> Trained:
    image, mask = data.test.images.float() / 255, data.test.masks.float() / 255
    generator = torch.Generator().manual_seed(derive_seed(args.seed, "curves"))
    tests = {
        curve: make_variant(
            image,
            mask,
            data.test.labels,
            variant,
            backgrounds=data.test_bank,
            class_names=data.classes,
            generator=generator,
        ).image
        for curve, variant in CURVES.items()
    }

    def accuracies(model: SmallCNN) -> dict[str, float]:
        return {
            curve: float((predict(model, images).argmax(1) == data.test.labels).float().mean())
            for curve, images in tests.items()
        }

    training = TrainingSet(data.train.images, data.train.labels, data.train.masks, data.train_bank, len(data.classes))
    return train(
        name,
        training,
        epochs=args.epochs,
        seed=args.seed,
        clad_weight=args.clad_weight,
        after_epoch=accuracies,
        stage=stage,
    )


def _measure(name: str, model: SmallCNN, data: DemoData, seed: int) -> BackgroundBiasReport:
    return evaluate_background_bias(
        model,
        DataLoader(data.test.dataset(), batch_size=256),
        backgrounds=data.test_bank,
        background_labels=data.test_bank.labels,
        num_classes=len(data.classes),
        class_names=data.classes,
        seed=seed,
        examples=6,
        name=METHODS[name].label,
        progress=progress,
    )
