"""KernelSHAP of a batch of 32: one set of coalitions and one solve, beside captum image by image.

python benchmarks/bench_kernel_shap.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine
from experiments.isnet.settings import small_cnn
from torch_bgdebias.attribution import kernel_shap, superpixels


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def captum_seconds(model: nn.Module, image: Tensor, samples: int, per_pass: int) -> float:
    """Per image."""
    from captum.attr import KernelShap

    oracle, segment = KernelShap(model), superpixels((image.shape[2], image.shape[3]))

    def explain() -> None:
        for one in image.split(1):
            oracle.attribute(
                one, target=0, feature_mask=segment[None, None], n_samples=samples, perturbations_per_eval=per_pass
            )

    return seconds(explain) / len(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--models", nargs="+", default=["small_cnn", "resnet18"], help="or any of torchvision's")
    parser.add_argument("--chunk", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--captum-images", type=int, default=2, help="how many captum explains, scaled to the batch")
    args = parser.parse_args()
    device = torch.device(args.device)
    print(", ".join(f"{name} {value}" for name, value in machine(device).items()))
    print(f"batch {args.batch}, {args.samples} coalitions of 7 x 7 superpixels, seconds a batch\n")
    columns = (
        "model",
        "px",
        "here",
        "channels last",
        "captum, 1 a pass",
        "256 a pass",
        "default / here",
        "best / here",
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name in args.models:
        for size in args.sizes:
            torch.manual_seed(0)
            model = small_cnn(10, size) if name == "small_cnn" else torchvision.models.get_model(name, num_classes=10)
            model = model.eval().to(device)
            image = torch.rand(args.batch, 3, size, size, device=device)
            turned = image.to(memory_format=torch.channels_last)

            def here(batch: Tensor, samples: int, model: nn.Module = model) -> None:
                kernel_shap(model, batch, 0, samples=samples, chunk=args.chunk).values.sum().item()

            here(image, 200)  # warm-up
            plain, last = (seconds(lambda x=x: here(x, args.samples)) for x in (image, turned))
            one, many = (
                args.batch * captum_seconds(model, image[: args.captum_images], args.samples, n) for n in (1, 256)
            )
            best = min(plain, last)
            times = " | ".join(f"{value:.1f}" for value in (plain, last, one, many))
            ratios = f"{one / best:.1f} x | {min(one, many) / best:.1f} x"
            print(f"| {name} | {size} | {times} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
