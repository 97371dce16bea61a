"""``bgdebias probe --concepts``: are there backgrounds on which the model no longer finds its concepts?"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli._arguments import whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torch_bgdebias.concepts import ConceptSamples
    from torch_bgdebias.probe import BackgroundBiasReport
    from torch_bgdebias.probe.results.concepts import ConceptTable
    from torch_bgdebias.swap import BackgroundBank

__all__ = ["METHODS", "add_arguments", "draw_concepts", "measure_concepts"]

#: kept here so that --help needs no torch; a test compares them with concepts.probe.METHODS
METHODS = ("net2vec", "loce")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that belong to the concepts."""
    group = parser.add_argument_group("concepts")
    add = group.add_argument
    add("--concepts", type=Path, metavar="DIR", help="test each class's concept vector on DIR/<category>/x.jpg")
    add("--concept-layers", nargs="+", metavar="LAYER", help="default: an early, a middle and a late one")
    about = "net2vec: one vector for all pictures; loce: the mean of one a picture (default: net2vec)"
    add("--concept-method", choices=METHODS, default="net2vec", help=about)
    add("--concept-images", type=whole(2), default=50, metavar="N", help="of each class, half to fit (default: 50)")


def measure_concepts(
    args: argparse.Namespace, model: nn.Module, data: Any, names: Sequence[str], device: torch.device, out: Path
) -> list[ConceptTable]:
    """A table a layer; none without ``--concepts``. Writes concepts.json, with every picture's IoU and the vectors.

    Raises:
        ValueError: no class has two pictures.
        FileNotFoundError: no backgrounds.
    """
    if args.concepts is None:
        return []
    import torch

    from torch_bgdebias.concepts import ConceptProbe, concept_transfer
    from torch_bgdebias.probe.concepts import concept_tables
    from torch_bgdebias.swap import BackgroundBank

    fit, test, kept = _halves(data.dataset, names, args.concept_images, args.seed, device)
    bank = BackgroundBank.from_folder(args.concepts, (fit.images.shape[2], fit.images.shape[3]), on_error=args.on_error)
    assert bank.labels is not None
    categories = {
        name: _on(BackgroundBank(bank.images[bank.labels == i]), data, args.seed)
        for i, name in enumerate(bank.classes or ())
        if bool((bank.labels == i).any())
    }
    if "original" in categories:
        raise ValueError(f"--concepts: {args.concepts}/original: 'original' stands for the pictures' own backgrounds")
    generator = torch.Generator().manual_seed(args.seed)
    some = bank.images[torch.randperm(len(bank), generator=generator)]
    probe = ConceptProbe(model, args.concept_layers, batch_size=args.batch_size)
    result = concept_transfer(
        probe,
        fit,
        test,
        conditions={"pasted": _on(BackgroundBank(some), data, args.seed + 1)},
        categories=categories,
        names=kept,
        methods=(args.concept_method,),
    )
    result.to_json(out / "concepts.json")
    data.notes["concept pictures"] = f"{len(fit.images)} to fit, {len(test.images)} to test, {len(kept)} classes"
    return concept_tables(result, seed=args.seed)


def _halves(
    dataset: Any, names: Sequence[str], most: int, seed: int, device: torch.device
) -> tuple[ConceptSamples, ConceptSamples, list[str]]:
    """Pictures to fit and to test, at most ``most`` of a class together, and the classes that have two or more."""
    import torch

    from torch_bgdebias.concepts import ConceptSamples

    labels = torch.tensor([int(x) for x in dataset.items.labels])
    generator = torch.Generator().manual_seed(seed)
    rows: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    kept: list[str] = []
    for label, name in enumerate(names):
        found = (labels == label).nonzero().flatten()
        members = found[torch.randperm(len(found), generator=generator)][:most].tolist()
        for i, member in enumerate(members if len(members) > 1 else ()):
            rows[i % 2].append((member, len(kept)))
        if len(members) > 1:
            kept.append(name)
    if not kept:
        raise ValueError("--concepts: expected at least two pictures of some class, one to fit and one to test")

    def load(chosen: list[tuple[int, int]]) -> ConceptSamples:
        items = [dataset[position] for position, _ in chosen]
        images, masks = (torch.stack([item[k] for item in items]).to(device) for k in (0, 2))
        return ConceptSamples(images, masks, torch.tensor([concept for _, concept in chosen]))

    return load(rows[0]), load(rows[1]), kept


def _on(bank: BackgroundBank, data: Any, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    def make(images: Tensor, masks: Tensor) -> Tensor:
        import torch

        from torch_bgdebias.swap import sample_swap_params, swap_background

        generator = torch.Generator().manual_seed(seed)
        drawn = sample_swap_params(images.shape, bank=bank, generator=generator)
        params: Any = {k: v.to(images.device) for k, v in drawn.items()}
        return swap_background(images, masks, bank.images.to(images.device), params, mean=data.mean, std=data.std)

    return make


def draw_concepts(report: BackgroundBiasReport, out: Path) -> None:
    """A heatmap a layer, where matplotlib is installed."""
    from importlib.util import find_spec

    from torch_bgdebias.probe.concepts import concept_heatmap
    from torch_bgdebias.writing import whole_file

    if find_spec("matplotlib") is None:
        return
    for table in report.concepts:
        figure = concept_heatmap(table.rows, title=f"Concept IoU by background, {table.layer}")
        with whole_file(out / f"concepts-{table.layer}.png") as file:
            figure.savefig(file, format="png", dpi=120)
