"""A new last layer on ImageNet-9, and the accuracy on every variant of the Background Challenge before and after.

    python -m experiments.imagenet9.run fit --train DIR --test DIR --model timm:resnet50 --pretrained
    python -m experiments.imagenet9.run table experiments/imagenet9/results.jsonl

DIR of --train is an unpacked training archive of the release of Noise or Signal (arXiv 2006.09994): original/train/ and
fg_mask/train/; other backgrounds are those of the batch's pictures. DIR of --test is the evaluation archive. Before:
the network's own 1000 classes, scored as the challenge does.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from experiments.common import add_line, made_with, read_lines
from torch_bgdebias.data import VARIANTS, ImageNet9, imagenet9_prediction
from torch_bgdebias.heads import HeadSettings, fit_debiased_head
from torch_bgdebias.named_models import LoadedModel, load_model

NAMES = ("original", *VARIANTS)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    defaults = HeadSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    fit.add_argument("--train", type=Path, required=True)
    fit.add_argument("--test", type=Path, required=True)
    fit.add_argument("--out", type=Path, default=Path("experiments/imagenet9/results.jsonl"))
    fit.add_argument("--model", default="timm:resnet50", help="as for bgdebias probe")
    fit.add_argument("--checkpoint", type=Path, help="its weights, of 1000 or of 9 classes")
    fit.add_argument("--pretrained", action="store_true", help="weights that timm or torchvision publish")
    fit.add_argument("--mixed", action="store_true", help="fit on mixed_rand/train/ as well")
    fit.add_argument("--copies", type=int, default=defaults.copies)
    fit.add_argument("--original-weight", type=float, default=defaults.original_weight)
    fit.add_argument("--size", type=int, default=224)
    fit.add_argument("--batch", type=int, default=64)
    fit.add_argument("--workers", type=int, default=0)
    fit.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    fit.add_argument("--seed", type=int, default=0)
    commands.add_parser("table").add_argument("results", type=Path, nargs="+")
    return parser.parse_args(given)


def opened(args: argparse.Namespace) -> LoadedModel:
    loaded = load_model(args.model, checkpoint=args.checkpoint, pretrained=args.pretrained)
    loaded.model.to(args.device).eval()
    return loaded


def training_data(args: argparse.Namespace, transform: Any) -> Dataset[Any]:
    parts = [ImageNet9(args.train, "original", args.size, transform, masks=True, split="train", on_error="skip")]
    if args.mixed:
        parts.append(ImageNet9(args.train, "mixed_rand", args.size, transform, masks=True, split="train"))
    return ConcatDataset(parts)


@torch.inference_mode()
def accuracies(model: nn.Module, loaded: LoadedModel, args: argparse.Namespace) -> dict[str, float]:
    """Percent right on each variant that the release has."""
    scores = {}
    for name in NAMES:
        if not (args.test / name).is_dir():
            continue
        data = ImageNet9(args.test, name, args.size, masks=False)
        right = 0
        for image, label in DataLoader(data, args.batch, num_workers=args.workers):  # type: ignore[misc]
            logits = model(loaded.preprocessing.normalise(image.to(args.device)))
            right += int((imagenet9_prediction(logits).cpu() == label).sum())
        scores[name] = round(100 * right / len(data), 2)
    return scores


def run(args: argparse.Namespace) -> dict[str, Any]:
    loaded = opened(args)
    before = accuracies(loaded.model, loaded, args)

    def enters(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return loaded.preprocessing.normalise(image), mask

    order = torch.Generator().manual_seed(args.seed)
    data = training_data(args, enters)
    loader = DataLoader(data, args.batch, shuffle=True, num_workers=args.workers, generator=order)
    start = time.perf_counter()
    fitted = fit_debiased_head(
        loaded.model, loader, copies=args.copies, original_weight=args.original_weight, num_classes=9, seed=args.seed
    )
    seconds = round(time.perf_counter() - start, 1)
    after = accuracies(fitted.apply_(loaded.model).eval(), loaded, args)
    settings = {k: v for k, v in vars(args).items() if k not in ("command", "train", "test", "out", "checkpoint")}
    return add_line(
        args.out, settings, before=before, after=after, penalty=fitted.penalty, seconds=seconds, images=fitted.images
    )


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: two rows a run."""
    rows = [made_with(lines), "", "| network | " + " | ".join(NAMES) + " |", "| --- |" + " --- |" * len(NAMES)]
    for line in lines:
        for stage in ("before", "after"):
            cells = [f"{line[stage][name]:.1f}" if name in line[stage] else "-" for name in NAMES]
            rows.append(f"| {line['settings']['model']}, {stage} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    args = arguments()
    print(table(read_lines(args.results)) if args.command == "table" else table([run(args)]))


if __name__ == "__main__":
    main()
