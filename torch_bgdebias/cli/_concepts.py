"""``bgdebias probe --concepts``: are there backgrounds on which the model no longer finds its concepts?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli._arguments import whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torch_bgdebias.concepts import ConceptSamples
    from torch_bgdebias.probe.concepts import ConceptBackground
    from torch_bgdebias.swap import BackgroundBank

__all__ = ["add_arguments", "concepts_headline", "measure_concepts"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that belong to the concepts."""
    group = parser.add_argument_group("concepts")
    add = group.add_argument
    add("--concepts", type=Path, metavar="DIR", help="test each class's concept vector on DIR/<category>/x.jpg")
    add("--concept-layers", nargs="+", metavar="LAYER", help="default: an early, a middle and a late one")
    add("--concept-images", type=whole(2), default=50, metavar="N", help="of each class, half to fit (default: 50)")


def measure_concepts(
    args: argparse.Namespace, model: nn.Module, data: Any, names: Sequence[str], device: torch.device, out: Path
) -> dict[str, list[ConceptBackground]]:
    """Layer -> rows; {} without ``--concepts``. Writes concepts.json and, with matplotlib, a heatmap a layer.

    Raises:
        ValueError: no class has two pictures.
        FileNotFoundError: no backgrounds.
    """
    if args.concepts is None:
        return {}
    import torch

    from torch_bgdebias.concepts import ConceptProbe, concept_transfer
    from torch_bgdebias.probe.concepts import analyse_concepts
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
        methods=("net2vec",),
    )
    result.to_json(out / "concepts.json")
    rows = {layer: analyse_concepts(result, layer, seed=args.seed) for layer in result.layers}
    _draw(rows, out)
    data.notes["concept pictures"] = f"{len(fit.images)} to fit, {len(test.images)} to test, {len(kept)} classes"
    return rows


def concepts_headline(shown: str, rows: dict[str, list[ConceptBackground]]) -> str:
    """The text or JSON of the command with the biased pairs added."""
    if not rows:
        return shown
    from torch_bgdebias.probe.concepts import biased_pairs

    pairs = [(layer, row) for layer, some in rows.items() for row in biased_pairs(some)]
    if shown.startswith("{"):
        told = [
            {"layer": layer, "concept": r.concept, "background": r.category, "iou": r.iou.value,
             "original": r.original.value, "p": r.corrected}
            for layer, r in pairs
        ]  # fmt: skip
        return json.dumps({**json.loads(shown), "biased_concepts": told}, indent=2)
    lines = [
        f"    {r.concept} on {r.category} ({layer}): "
        f"IoU {r.original.value:.2f} -> {r.iou.value:.2f}, p = {r.corrected:.2g}"
        for layer, r in pairs[:10]
    ]
    return "\n".join(
        [f"  concepts lost on a background: {len(pairs)} of {sum(map(len, rows.values()))}", *lines, shown]
    )


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


def _draw(rows: dict[str, list[ConceptBackground]], out: Path) -> None:
    from importlib.util import find_spec

    from torch_bgdebias.probe.concepts import concept_heatmap

    if find_spec("matplotlib") is None:
        return
    for layer, some in rows.items():
        concept_heatmap(some, title=f"Concept IoU by background, {layer}").savefig(
            out / f"concepts-{layer}.png", dpi=120
        )
