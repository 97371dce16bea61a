"""How many images a second BackgroundSwap makes, beside the same swap written as a loop over the images.

python benchmarks/bench_swap.py [--device cuda] [--json FILE]

Floor: the batch is read once and written once, which is what ``clone()`` of it does; it is timed in the same run.
The loop gets the module's parameters, and both results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Timing, machine, measure_together, write_json
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.ops import extension_status
from torch_bgdebias.swap import BackgroundSwap


def loop_tile_fill(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One image (C, H, W): cut the largest strip out, repeat it, cut the box out of that."""
    rows, columns = (mask[0] > 0.05).any(1).nonzero(), (mask[0] > 0.05).any(0).nonzero()
    if len(rows) == 0:
        return image
    height, width = image.shape[1:]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    strips = [(0, top, 0, width), (bottom, height, 0, width), (0, height, 0, left), (0, height, right, width)]
    y0, y1, x0, x1 = max(strips, key=lambda s: (s[1] - s[0]) * (s[3] - s[2]))
    if (y1 - y0) * (x1 - x0) == 0:
        return image.mean((1, 2), keepdim=True).expand_as(image)
    tile = image[:, y0:y1, x0:x1].roll((y0 % (y1 - y0), x0 % (x1 - x0)), (1, 2))
    plane = tile.repeat(1, -(-height // (y1 - y0)), -(-width // (x1 - x0)))
    filled = image.clone()
    filled[:, top:bottom, left:right] = plane[:, top:bottom, left:right]
    return filled


def loop_swap(
    image: torch.Tensor, mask: torch.Tensor, swap: BackgroundSwap, params: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The swap image by image and cell by cell, as a data set's ``__getitem__`` would do it."""
    height, width = image.shape[2:]
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1) + 0.5
    grid = grid.to(image.device)
    out = []
    for i in range(len(image)):
        sites = params["sites"][i]
        cell = ((grid[:, :, None] - sites) ** 2).sum(-1).argmin(-1) if len(sites) > 1 else None
        background = torch.empty_like(image[i])
        for k in range(len(sites)):
            j = int(params["index"][i, k])
            own = swap.bank is None
            source = loop_tile_fill(image[j], mask[j]) if own else swap.bank.images[j].float() / 255
            source = source.roll(tuple((-params["offset"][i, k]).tolist()), (1, 2))
            background = source if cell is None else torch.where(cell == k, source, background)
        out.append(torch.lerp(background, image[i], mask[i]))
    return torch.stack(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bank", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    size = (args.size, args.size)
    image = torch.rand(args.batch, 3, *size, device=device)
    mask = torch.zeros(args.batch, 1, *size, device=device)
    mask[:, :, args.size // 4 : 3 * args.size // 4, args.size // 5 : 4 * args.size // 5] = 1
    label = torch.arange(args.batch, device=device) % 8
    images = torch.randint(0, 256, (args.bank, 3, *size), dtype=torch.uint8)
    bank = BackgroundBank(images, torch.arange(args.bank) % 8).to(device)
    print(machine(device), extension_status(), f"{args.batch} x 3 x {args.size} x {args.size}", sep="\n")
    timings: dict[str, Timing] = {}
    for source in ("batch", "bank"):
        for pattern in ("paste", "voronoi"):
            swap = BackgroundSwap(bank if source == "bank" else "batch", pattern)
            timed = measure(swap, image, mask, label, args.repeats)
            timings |= {f"{source} {pattern} {name}": timing for name, timing in timed.items()}
            whole, floor, loop = timed["swap"], timed["clone"].median, timed["loop"].median
            print(
                f"{source:5} {pattern:7}: {whole.median:7.1f} ms ({whole.low:.1f} to {whole.high:.1f}), "
                f"{1e3 * args.batch / whole.median:6.0f} images/s, {whole.median / floor:4.1f} x clone(), "
                f"of it drawing {timed['drawing'].median:.2f} ms; loop {loop:.1f} ms, {loop / whole.median:.1f} x"
            )
    if args.json:
        write_json(args.json, {"batch": args.batch, "size": args.size, "bank": args.bank}, timings, device)


def measure(
    swap: BackgroundSwap, image: torch.Tensor, mask: torch.Tensor, label: torch.Tensor, calls: int
) -> dict[str, Timing]:
    """Agreement first, then the time of swap, drawing, loop and floor in turns."""
    params = swap.generate_parameters(image.shape, label)
    torch.testing.assert_close(swap(image, mask, params=params)[0], loop_swap(image, mask, swap, params))
    functions = {
        "clone": image.clone,
        "drawing": lambda: swap.generate_parameters(image.shape, label),
        "swap": lambda: swap(image, mask, label),
        "loop": lambda: loop_swap(image, mask, swap, params),
    }
    return measure_together(functions, device=image.device, calls=calls, warm_up=1)


if __name__ == "__main__":
    main()
