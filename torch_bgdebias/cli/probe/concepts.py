"""``bgdebias probe --concepts``: on which backgrounds does the model lose its concepts?"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.cli.probe.data import Prepared, ProbeData
from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, concept_transfer
from torch_bgdebias.probe import BackgroundBiasReport, ConceptTable, concept_heatmap, concept_tables
from torch_bgdebias.seeds import derive_seed
from torch_bgdebias.swap import sample_swap_params, swap_background
from torch_bgdebias.writing import whole_file

__all__ = ["ConceptMeasurement", "draw_concepts", "measure_concepts"]


class ConceptMeasurement(NamedTuple):
    """A table a layer, and how many pictures of how many classes stand behind them."""

    tables: list[ConceptTable]
    fitted: int
    tested: int
    classes: int


def measure_concepts(
    args: argparse.Namespace, model: nn.Module, data: ProbeData, names: Sequence[str], device: torch.device, out: Path
) -> ConceptMeasurement:
    """Fit and test what ``--concepts`` asks for. Writes concepts.json, with every picture's IoU and the vectors.

    Raises:
        ValueError: no class has two pictures, or the backgrounds lie in no folders of categories.
        FileNotFoundError: no backgrounds.
    """
    fit, test, classes = _fit_and_test_halves(data.dataset, names, args.concept_images, args.seed, device)
    channels, height, width = fit.images.shape[1:]
    bank = BackgroundBank.from_folder(args.concepts, (height, width), channels=channels, on_error=args.on_error)
    if bank.labels is None:
        raise ValueError(f"--concepts: expected a folder of pictures a category in {args.concepts}, got pictures alone")
    categories = {
        name: _swap_onto_bank(BackgroundBank(bank.images[bank.labels == i]), data, args.seed)
        for i, name in enumerate(bank.classes or ())
        if bool((bank.labels == i).any())
    }
    if "original" in categories:
        raise ValueError(f"--concepts: {args.concepts}/original: 'original' stands for the pictures' own backgrounds")
    generator = torch.Generator().manual_seed(args.seed)
    backgrounds = bank.images[torch.randperm(len(bank), generator=generator)]
    probe = ConceptProbe(model, args.concept_layers, batch_size=args.batch_size)
    result = concept_transfer(
        probe,
        fit,
        test,
        conditions={"pasted": _swap_onto_bank(BackgroundBank(backgrounds), data, derive_seed(args.seed, "pasted"))},
        categories=categories,
        names=classes,
        methods=(args.concept_method,),
    )
    result.to_json(out / "concepts.json")
    return ConceptMeasurement(concept_tables(result, seed=args.seed), len(fit.images), len(test.images), len(classes))


def _fit_and_test_halves(
    dataset: Prepared, names: Sequence[str], limit: int, seed: int, device: torch.device
) -> tuple[ConceptSamples, ConceptSamples, list[str]]:
    """Pictures to fit and to test, at most ``limit`` of a class together, and the classes that have two or more."""
    labels = torch.tensor([int(x) for x in dataset.items.labels])
    generator = torch.Generator().manual_seed(seed)
    rows: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    classes: list[str] = []
    for label, name in enumerate(names):
        positions = (labels == label).nonzero().flatten()
        members = positions[torch.randperm(len(positions), generator=generator)][:limit].tolist()
        for i, member in enumerate(members if len(members) > 1 else ()):
            rows[i % 2].append((member, len(classes)))
        if len(members) > 1:
            classes.append(name)
    if not classes:
        raise ValueError("--concepts: expected at least two pictures of some class, one to fit and one to test")

    def load(rows: list[tuple[int, int]]) -> ConceptSamples:
        items = [dataset[position] for position, _ in rows]
        images, masks = (torch.stack([item[name] for item in items]).to(device) for name in ("image", "mask"))
        void = torch.stack([item["void"] for item in items]).to(device) if "void" in items[0] else None
        return ConceptSamples(images, masks, torch.tensor([concept for _, concept in rows]), void)

    return load(rows[0]), load(rows[1]), classes


def _swap_onto_bank(bank: BackgroundBank, data: ProbeData, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    def make(images: Tensor, masks: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        swap_params = sample_swap_params(images.shape, bank=bank, generator=generator)
        params: Any = {k: v.to(images.device) for k, v in swap_params.items()}
        return swap_background(
            images,
            masks,
            bank.images.to(images.device),
            params,
            mean=data.preprocessing.mean,
            std=data.preprocessing.std,
        )

    return make


def draw_concepts(report: BackgroundBiasReport, out: Path) -> None:
    """A heatmap a layer, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        return
    for table in report.concepts:
        figure = concept_heatmap(table.rows, title=f"Concept IoU by background, {table.layer}")
        with whole_file(out / f"concepts-{table.layer}.png") as file:
            figure.savefig(file, format="png", dpi=120)
