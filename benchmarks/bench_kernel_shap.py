"""KernelSHAP of a batch of 32: one set of coalitions and one solve, beside captum image by image.

python benchmarks/bench_kernel_shap.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision

from torch_bgdebias.attribution import kernel_shap, superpixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument(
        "--captum-images", type=int, default=2, help="images that captum explains, scaled up to the batch"
    )
    args = parser.parse_args()
    from captum.attr import KernelShap

    torch.manual_seed(0)
    model = torchvision.models.get_model(args.model, num_classes=10).eval()
    image = torch.rand(args.batch, 3, args.size, args.size)
    segment = superpixels((args.size, args.size))
    ours = []
    for _ in range(3):
        start = time.perf_counter()
        kernel_shap(model, image, 0, samples=args.samples)
        ours.append(time.perf_counter() - start)
    for per_pass in (1, 256):  # captum's default, and its best
        start = time.perf_counter()
        oracle = KernelShap(model)
        for i in range(args.captum_images):
            oracle.attribute(
                image[i : i + 1], target=0, feature_mask=segment[None, None], n_samples=args.samples,
                perturbations_per_eval=per_pass,
            )  # fmt: skip
        theirs = (time.perf_counter() - start) / args.captum_images * args.batch
        here = statistics.median(ours)
        print(f"captum, {per_pass} a pass: {theirs:.1f} s a batch; here {here:.1f} s: {theirs / here:.1f} x")


if __name__ == "__main__":
    main()
