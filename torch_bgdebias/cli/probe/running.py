"""The run of ``bgdebias probe``: opens models and data, measures, and writes the report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias.cli.arguments import refuse_half_units, refuse_results, usable_device, writable
from torch_bgdebias.cli.colours import coloured, tell
from torch_bgdebias.cli.probe.adversarial import adversarial, own_backgrounds, published_backgrounds
from torch_bgdebias.cli.probe.concepts import draw_concepts, measure_concepts
from torch_bgdebias.cli.probe.data import SPEC, ProbeData, class_names, open_data
from torch_bgdebias.cli.probe.grouping import named_groups, one_unit
from torch_bgdebias.cli.probe.models import (
    Candidate,
    candidates,
    channels_of,
    count_outputs,
    guessed_size,
    logits_key,
    open_model,
    ready_model,
    wanted_images,
)
from torch_bgdebias.cli.probe.outputs import Outputs, read_labels, settle_outputs
from torch_bgdebias.cli.probe.results import headline, headlines, page_settings
from torch_bgdebias.cli.probe.sensitivity import measure_sensitivity
from torch_bgdebias.cli.progress import progress
from torch_bgdebias.metrics import gap_power, images_for_gap
from torch_bgdebias.names import VARIANTS
from torch_bgdebias.probe import BackgroundBiasReport, MaskSensitivity, compare_models, evaluate_background_bias
from torch_bgdebias.probe.passes.attributions import named_attributions
from torch_bgdebias.probe.results.pairing import nothing_in_common
from torch_bgdebias.writing import marked_folder

__all__ = ["Opened", "open_candidate", "run_probe"]

#: a set is called small if a gap of this size, at this accuracy, has a smaller chance than this to be shown
_GAP, _ACCURACY, _POWER = 0.05, 0.8, 0.8


@dataclass(frozen=True)
class Opened:
    """A model with the data as it wants it, and how its answers are read."""

    candidate: Candidate
    model: nn.Module
    data: ProbeData
    outputs: Outputs
    guessed_size: str


@dataclass(frozen=True)
class Measured:
    """One model's report, what was noted beside it, and its file."""

    opened: Opened
    report: BackgroundBiasReport
    notes: dict[str, Any]
    file: Path
    masks: MaskSensitivity | None


def run_probe(args: argparse.Namespace) -> int:
    """Load, measure, write the report, print the summary."""
    refuse_half_units(args)
    device = usable_device(args.device)
    names = class_names(args)
    table = None if args.labels is None else read_labels(args.labels, names)
    opened = [open_candidate(args, candidate, names, table, device) for candidate in candidates(args)]
    again = not args.checkpoint and _model_of(args.out) in [candidate.label for candidate in candidates(args)]
    if not again:  # a name alone says the same model; with a checkpoint it says nothing of the weights
        refuse_results(args.out, ("report.html", "report.json", "report.parquet"), overwrite=args.overwrite)
    _warn_of_gaps(opened[0].data)
    _warn_of_few(args, len(opened[0].data.dataset))
    out = writable(args.out, name="--out")
    with marked_folder(out):
        measured = []
        for number, opened_one in enumerate(opened, start=1):
            folder = out if len(opened) == 1 else writable(out / f"model-{number}", name="--out")
            measured.append(_measure_and_write(args, opened_one, names, folder, device))
        _finish(args, measured, out / "report.html")
    return 0


def _model_of(out: Path) -> str | None:
    """The model whose report a folder holds, of several the first; ``None`` where there is none to read."""
    try:
        file = next(file for file in (out / "report.json", out / "model-1" / "report.json") if file.is_file())
        report = json.loads(file.read_text(encoding="utf-8"))
    except (StopIteration, OSError, ValueError, RecursionError):
        return None
    return str(report["model"]) if isinstance(report, dict) and "model" in report else None


def _finish(args: argparse.Namespace, measured: Sequence[Measured], page: Path) -> None:
    """Write the page and print the summary."""
    reports = [m.report for m in measured]
    prepared = [m.opened.data.preprocessing for m in measured]
    comparisons = compare_models(reports)
    settings = {**page_settings(args, [m.opened.candidate for m in measured], prepared), **measured[0].notes}
    masks = measured[0].masks
    reports[0].to_html(page, others=reports[1:], settings=settings, comparisons=comparisons, masks=masks)
    if args.json:
        figures = [
            headline(m.report, preprocessing, {"html": str(page), "json": str(m.file)}, m.notes, m.masks)
            for m, preprocessing in zip(measured, prepared, strict=True)
        ]
        print(headlines(figures, comparisons))
        return
    parts = [report.summary() for report in reports]
    for report, comparison in zip(reports[1:], comparisons, strict=True):
        parts.append(nothing_in_common(reports[0], report) if comparison is None else comparison.summary())
    if masks is not None:
        parts.append(masks.summary())
    tell("\n\n".join(parts) + f"\n\nOpen {page}", sys.stdout)


def open_candidate(
    args: argparse.Namespace,
    candidate: Candidate,
    names: list[str],
    table: dict[str, list[int]] | None,
    device: torch.device,
) -> Opened:
    """One model with its weights, and the data as it wants it."""
    loaded = open_model(args, candidate, names)
    if size := guessed_size(args, candidate, loaded):
        print(f"bgdebias probe: note: {candidate.label}: {size}; --size N if it was trained at N", file=sys.stderr)
    model = ready_model(loaded.model, device)
    data = open_data(args, wanted_images(args, loaded, channels_of(model, args.channels)))
    key = logits_key(args.logits)
    count = count_outputs(model, data.dataset[0]["image"][None].to(device), key)
    if args.classes not in (None, count):
        raise ValueError(f"--classes: expected the model's number of outputs, {count}, got {args.classes}")
    outputs = settle_outputs(
        names, count, table=table, known=loaded.classes, key=key, score=args.score, imagenet9=args.layout == "imagenet9"
    )
    return Opened(candidate, model, data.labelled(outputs.labels), outputs, size)


def _warn_of_gaps(data: ProbeData) -> None:
    for note in data.notes:
        if note.is_gap:
            mark = coloured("note:", "note", sys.stderr)
            print(f"bgdebias probe: {mark} {note.heading}: {note.value}", file=sys.stderr)


def _warn_of_few(args: argparse.Namespace, pictures: int) -> None:
    """Say beforehand that a gap of five points would probably not be shown."""
    if not {"mixed_same", "mixed_rand"} <= set(args.variants or VARIANTS):
        return
    if args.max_batches is not None:
        pictures = min(pictures, args.max_batches * args.batch_size)
    needed = images_for_gap(_GAP, _ACCURACY, power=_POWER).images
    if pictures < needed:
        power = gap_power(max(2, pictures), _GAP, _ACCURACY)
        print(
            f"bgdebias probe: note: {pictures} pictures show a BG-Gap of {100 * _GAP:g} points with a chance of "
            f"{100 * power:.0f} % (at an accuracy of {100 * _ACCURACY:g} %); {100 * _POWER:g} % take {needed} "
            "(bgdebias plan)",
            file=sys.stderr,
        )


def _measure_and_write(
    args: argparse.Namespace, opened: Opened, names: list[str], folder: Path, device: torch.device
) -> Measured:
    data, file = opened.data, folder / ("report.parquet" if args.parquet else "report.json")
    bank, notes = _adversarial_bank(args, data)
    height, width = data.side
    of_data = {note.heading: note.value for note in data.notes}
    notes = {"image size": height if height == width else f"{height} x {width}", **of_data, **notes}
    report = _measure(args, opened, bank, device)
    if args.concepts is not None:
        concepts = measure_concepts(args, opened.model, data, names, device, folder)
        report.concepts = concepts.tables
        notes["concept pictures"] = f"{concepts.fitted} to fit, {concepts.tested} to test, {concepts.classes} classes"
    masks = measure_sensitivity(args, opened.model, data, opened.outputs, device)
    if args.parquet:
        report.to_parquet(file)
    else:
        report.to_json(file)
    draw_concepts(report, folder)
    return Measured(opened, report, notes, file, masks)


def _measure(
    args: argparse.Namespace, opened: Opened, bank: Tensor | None, device: torch.device
) -> BackgroundBiasReport:
    data, outputs, chunk = opened.data, opened.outputs, max(args.batch_size, 64)
    variants = list(data.published or args.variants or VARIANTS)
    if outputs.catch_all and data.published is None and args.variants is None:
        # the class after the last would be "none of them", of which there is no background
        variants.remove("mixed_next")
    key = outputs.logits
    scored = {} if bank is None else {"score_settings": {"adversarial_accuracy": {"backgrounds": len(bank)}}}
    attributions = named_attributions(
        args.attributions, logits=key, samples=args.shap_samples, chunk=chunk, seed=args.seed
    )
    return evaluate_background_bias(
        opened.model,
        DataLoader(data.dataset, batch_size=args.batch_size, num_workers=args.workers),
        spec=SPEC,
        variants=variants,
        num_classes=len(outputs.names),
        class_names=outputs.names,
        mean=data.preprocessing.mean,
        std=data.preprocessing.std,
        device=device,
        seed=args.seed,
        logits=key,
        scores={} if bank is None else {"adversarial_accuracy": adversarial(bank, logits=key, chunk=chunk)},
        attributions=attributions,
        explain=args.target,
        ready=None if data.published is None else "variants",
        groups=named_groups(args.groups or (), data.dataset.items, args.data),
        unit=None if args.unit is None else one_unit(args.unit, data.dataset.items, args.data),
        max_batches=args.max_batches,
        examples=args.examples,
        recorded={**({"guessed_size": opened.guessed_size} if opened.guessed_size else {}), **scored},
        name=opened.candidate.label,
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
