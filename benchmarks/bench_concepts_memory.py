"""Peak memory of fitting concept vectors to many images: activations go through disk, so it does not grow with them.

python benchmarks/bench_concepts_memory.py [--concepts 50 --images 50 --variants 32 --channels 16 --map 20 --epochs 2]

Memory does not depend on the number of epochs; few keep this short.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from torch_bgdebias.concepts import ConceptProbe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("concepts", 50), ("images", 50), ("variants", 32), ("channels", 16), ("map", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    total = args.concepts * args.images * args.variants
    stride = 80 // args.map
    model = nn.Sequential(nn.Conv2d(3, args.channels, stride, stride))
    generator = torch.Generator().manual_seed(0)

    def loader() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start in range(0, total, 100):
            masks = torch.zeros(100, 1, 80, 80)
            masks[:, :, 20:60, 20:60] = 1
            yield (
                torch.randn(100, 3, 80, 80, generator=generator),
                torch.arange(start, start + 100) % args.concepts,
                masks,
            )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    probe = ConceptProbe(model, ["0"], epochs=args.epochs, chunk=512)
    probe.fit(loader())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = total * args.channels * args.map**2 * 4 / 2**20
    print(
        f"{args.concepts} concepts x {args.images} images x {args.variants} variants = {total}, "
        f"{args.channels} channels at {args.map} x {args.map} ({held:.0f} MiB of activations), masks 80 x 80: "
        f"peak {peak:.0f} MiB, {before:.0f} MiB of it before; {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
