"""What ``bgdebias probe`` does: model and data opened, measured, and written as a report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias.cli.arguments import usable_device, writable
from torch_bgdebias.cli.probe.adversarial import adversarial, own_backgrounds, published_backgrounds
from torch_bgdebias.cli.probe.concepts import draw_concepts, measure_concepts
from torch_bgdebias.cli.probe.data import ProbeData, class_names, open_data
from torch_bgdebias.cli.probe.outputs import count_outputs, name_outputs, read_outputs
from torch_bgdebias.cli.probe.results import headline, page_settings
from torch_bgdebias.cli.progress import progress
from torch_bgdebias.data import to_imagenet9
from torch_bgdebias.named_models import LoadedModel, load_model
from torch_bgdebias.names import VARIANTS
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias, report_to_html
from torch_bgdebias.probe.passes.attributions import named_attributions
from torch_bgdebias.writing import marked_folder

__all__ = ["run_probe"]


def run_probe(args: argparse.Namespace) -> int:
    """Load, measure, write the report, print the summary."""
    if (args.mean is None) != (args.std is None):
        raise ValueError(f"--mean and --std: expected both or none, got only --{'mean' if args.std is None else 'std'}")
    device = usable_device(args.device)
    names = class_names(args)
    loaded = _load_model(args, names)
    loaded.model.to(device).eval()
    preprocessing = _preprocessing(args, loaded.preprocessing)
    data = open_data(args, preprocessing, read_outputs(args.labels, names))
    _warn_of_gaps(data)
    out = writable(args.out, name="--out")
    bank, notes = _adversarial_bank(args, data)
    notes = {"image size": _side(data), **data.notes, **notes}
    report = _measure(args, loaded.model, data, names, bank, device)
    files = {"html": str(out / "report.html"), "json": str(out / "report.json")}
    with marked_folder(out):
        if args.concepts is not None:
            concepts = measure_concepts(args, loaded.model, data, names, device, out)
            report.concepts = concepts.tables
            notes["concept pictures"] = (
                f"{concepts.fitted} to fit, {concepts.tested} to test, {concepts.classes} classes"
            )
        report.to_json(files["json"])
        draw_concepts(report, out)
        report_to_html([report], files["html"], settings={**page_settings(args), **notes})
    print(headline(report, files, notes) if args.json else f"{report.summary()}\n\nOpen {files['html']}")
    return 0


def _load_model(args: argparse.Namespace, names: list[str]) -> LoadedModel:
    outputs = args.classes or (None if args.pretrained else len(names))
    loaded = load_model(args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained)
    if args.checkpoint is None and not args.pretrained and args.model.startswith(("timm:", "torchvision:")):
        print("bgdebias probe: note: neither --checkpoint nor --pretrained: the weights are random", file=sys.stderr)
    return loaded


def _preprocessing(args: argparse.Namespace, known: Preprocessing) -> Preprocessing:
    """What the model wants, unless the command line says otherwise."""
    chosen = known
    if args.mean is not None:
        chosen = replace(chosen, mean=args.mean, std=args.std, source="--mean and --std")
    return chosen if args.size is None else replace(chosen, size=args.size)


def _warn_of_gaps(data: ProbeData) -> None:
    for heading in ("pictures left out", "pictures without a variant", "classes without pictures"):
        if heading in data.notes:
            print(f"bgdebias probe: note: {heading}: {data.notes[heading]}", file=sys.stderr)


def _side(data: ProbeData) -> int | str:
    height, width = data.side
    return height if height == width else f"{height} x {width}"


def _measure(
    args: argparse.Namespace,
    model: nn.Module,
    data: ProbeData,
    names: list[str],
    bank: Tensor | None,
    device: torch.device,
) -> BackgroundBiasReport:
    count = count_outputs(model, data.dataset[0][0][None].to(device))
    variants = list(data.published or args.variants or VARIANTS)
    logits: Any = None
    if args.layout == "imagenet9" and count == 1000:
        logits, count, outputs = to_imagenet9, len(names) + 1, [*names, "none of them"]
        if data.published is None and args.variants is None:
            # the class after the last would be "none of them", of which there is no background
            variants.remove("mixed_next")
    else:
        outputs = name_outputs(names, data.dataset.outputs, count, args.labels)
    chunk = max(args.batch_size, 64)
    attributions = named_attributions(
        args.attributions, logits=logits, samples=args.shap_samples, chunk=chunk, seed=args.seed
    )
    return evaluate_background_bias(
        model,
        DataLoader(data.dataset, batch_size=args.batch_size, num_workers=args.workers),  # type: ignore[arg-type]
        variants=variants,
        num_classes=count,
        class_names=outputs,
        mean=data.preprocessing.mean,
        std=data.preprocessing.std,
        device=device,
        seed=args.seed,
        logits=logits,
        scores={} if bank is None else {"adversarial_accuracy": adversarial(bank, logits=logits, chunk=chunk)},
        attributions=attributions,
        explain=args.target,
        ready=None if data.published is None else 3,
        max_batches=args.max_batches,
        examples=args.examples,
        name=args.name or args.model,
        progress=progress,
    )


def _adversarial_bank(args: argparse.Namespace, data: ProbeData) -> tuple[Tensor | None, dict[str, Any]]:
    """Backgrounds that every object is tried on, and a note on them; ``None`` where ``--adversarial`` is not asked."""
    if args.adversarial is None:
        return None, {}
    if args.layout == "imagenet9" and (args.data / "only_bg_t" / "val").is_dir():
        bank = published_backgrounds(args.data, data.dataset, data.side, args.adversarial)
        source = ", of the release's only_bg_t"
    else:
        bank, source = own_backgrounds(data.dataset, args.adversarial), ""
    return bank, {"adversarial backgrounds": f"{len(bank)} ({args.adversarial} asked for){source}"}
