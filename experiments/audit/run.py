"""Does an audit stay silent where there is nothing, and speak where a cue is planted?

    python -m experiments.audit.run alarms --data DIR        200 data sets whose backgrounds know nothing of the class
    python -m experiments.audit.run power --data DIR         a cue in 20 % of one class, 200 pictures a class
    python -m experiments.audit.run site --data DIR          chest_xray_tb, the site goes with the class in 80 %
    python -m experiments.audit.run correlated --data DIR    mnist on scenes at correlation 0.2
    python -m experiments.audit.run discover --data DIR      a mark hidden in one class of a trained network's data
    python -m experiments.audit.run table                    what results.jsonl holds

The first two draw every data set from a pool of pictures (``--pool``), whose features are computed once; with a pool
of 200 data sets' size (``--pool 40000``) none shares a picture with another. Results go to results.jsonl beside this
file.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import stats
from torch import nn

from experiments.audit.composing import Composer
from experiments.common import accuracy, add_line, made_with, read_lines
from torch_bgdebias import cli
from torch_bgdebias.audit import AuditSettings, audit
from torch_bgdebias.audit.auditing import tests_of
from torch_bgdebias.audit.cues import cue_of
from torch_bgdebias.audit.gathering import Gathered, gather
from torch_bgdebias.audit.pictures import Items
from torch_bgdebias.data import mnist_with_masks
from torch_bgdebias.files import image_files, read_image

RESULTS = Path(__file__).with_name("results.jsonl")
CUES = ("mark", "place", "blur", "bamboo_forest", "sky", "kitchen", "tint")


_FREQUENT = (("normal", "montgomery"), ("tuberculosis", "shenzhen"))


def features(pictures: list[tuple[np.ndarray, np.ndarray]], labels: list[int]) -> Gathered:
    """What an audit gathers of pictures."""
    items = [
        (torch.from_numpy(picture).permute(2, 0, 1), label, torch.from_numpy(mask))
        for (picture, mask), label in zip(pictures, labels, strict=True)
    ]
    return gather(Items(total=len(items), data=items), None, 0, say=lambda _: None)


def together(parts: list[Gathered], labels: np.ndarray) -> Gathered:
    """One data set of several."""
    return Gathered(
        labels,
        np.arange(len(labels)),
        [None] * len(labels),
        {name: np.concatenate([part.views[name] for part in parts]) for name in parts[0].views if name != "size"},
        np.concatenate([part.masked for part in parts]),
        [],
    )


def chosen(pool: Gathered, rows: np.ndarray) -> Gathered:
    """Rows of a pool."""
    return dataclasses.replace(pool, views={name: values[rows] for name, values in pool.views.items()},
                               masked=pool.masked[rows], labels=pool.labels[rows])  # fmt: skip


def alarmed(gathered: Gathered, options: AuditSettings) -> dict[str, float]:
    """Cue -> smallest corrected p-value of what is reported."""
    outcome = tests_of(gathered, np.arange(len(gathered.labels)), options).outcome
    least: dict[str, float] = {}
    for test in outcome.tests:
        if test.p_value <= options.level:
            least[test.cue] = min(test.p_value, least.get(test.cue, 1.0))
    return least


def alarms(args: argparse.Namespace) -> None:
    """Two digits on scenes that know nothing of them: is anything but the whole picture reported?"""
    composer = Composer(args.data, args.seed)
    digits = [n % 10 for n in range(args.pool)]
    pool = features([composer.picture(digit) for digit in digits], digits)
    random = np.random.default_rng(args.seed + 1)
    count, reported, whole = 0, [], 0
    for number in range(args.sets):
        pair = random.choice(10, 2, replace=False)
        rows = [random.choice(np.flatnonzero(pool.labels == digit), args.each, replace=False) for digit in pair]
        labels = np.repeat([0, 1], args.each)
        cues = alarmed(together([chosen(pool, part) for part in rows], labels), settings(args, number))
        outside = {name: p for name, p in cues.items() if cue_of(name).kind != "whole"}
        count += bool(outside)
        whole += len(cues) > len(outside)
        reported += list(outside)
    low, high = stats.binomtest(count, args.sets).proportion_ci(0.95)
    line = add_line(RESULTS, about(args, "alarms"), alarms=count, sets=args.sets, share=[low, high], cues=reported,
                    with_the_object=whole)  # fmt: skip
    show([line])


def plain_pool(composer: Composer, count: int, *, without: int | None = None) -> Gathered:
    """Pictures of two digits on scenes that know nothing of them, perhaps without one kind of scene."""
    kinds = [kind for kind in range(len(composer.scenes)) if kind != without]
    drawn = [None if without is None else int(composer.random.choice(kinds)) for _ in range(count)]
    pictures = [composer.picture(number % 2, "", kind) for number, kind in enumerate(drawn)]
    return features(pictures, [number % 2 for number in range(count)])


def less(pool: Gathered, view: str | None) -> Gathered:
    """A pool without one table of features; data sets have the tables of the first pool that they are drawn from."""
    return dataclasses.replace(pool, views={name: table for name, table in pool.views.items() if name != view})


def power(args: argparse.Namespace) -> None:
    """A cue in a share of one class: how often is it reported, and by which name?"""
    composer = Composer(args.data, args.seed)
    marked = round(args.share * args.each)
    plain = less(plain_pool(composer, args.pool), args.without)
    random = np.random.default_rng(args.seed + 1)
    for cue in args.cues:
        category = composer.names.index(cue) if cue in composer.names else None
        if category is not None and args.absent:
            plain = less(plain_pool(composer, args.pool, without=category), args.without)
        several = max(2 * marked, 40)
        cued = features([composer.picture(1, cue, category) for _ in range(several)], [1] * several)
        more = {"absent": True} if category is not None and args.absent else {}
        more |= {"without": args.without} if args.without else {}
        hits, names = 0, []
        for number in range(args.repeats):
            rows = [
                random.choice(np.flatnonzero(plain.labels == label), size, replace=False)
                for label, size in ((0, args.each), (1, args.each - marked))
            ]
            own = random.choice(len(cued.labels), marked, replace=False)
            parts = [*(chosen(plain, part) for part in rows), chosen(cued, own)]
            labels = np.repeat([0, 1], args.each)
            outside = [
                name
                for name in alarmed(together(parts, labels), settings(args, number))
                if cue_of(name).kind != "whole"
            ]
            hits += bool(outside)
            names += outside
        low, high = stats.binomtest(hits, args.repeats).proportion_ci(0.95)
        counts = {name: names.count(name) for name in dict.fromkeys(names)}
        show(
            [
                add_line(
                    RESULTS,
                    about(args, "power", cue=cue, **more),
                    found=hits,
                    sets=args.repeats,
                    share=[low, high],
                    cues=counts,
                )
            ]
        )


def site(args: argparse.Namespace) -> None:
    """Radiographs of two sites, of which each class has 80 % of one."""
    root = args.data / "chest_xray_tb"
    with open(root / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_kind: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        by_kind.setdefault((row["class"], row["site"]), []).append(row["image"])
    random = np.random.default_rng(args.seed)
    wanted = {
        ("normal", "montgomery"): 60,
        ("normal", "shenzhen"): 15,
        ("tuberculosis", "montgomery"): 15,
        ("tuberculosis", "shenzhen"): 60,
    }
    names = [name for kind, count in wanted.items() for name in random.choice(by_kind[kind], count, replace=False)]
    items = []
    for name in names:
        picture, mask = (
            read_image(root / name),
            read_image(root / name.replace("images", "masks").replace(".jpg", ".png")),
        )
        items.append((picture, int("tuberculosis" in name), mask[0]))
    sites = ["montgomery" if "MCUCXR" in name else "shenzhen" for name in names]
    report = audit(items, columns={"site": sites}, settings=AuditSettings(permutations=999, seed=args.seed))
    readings = [
        {"cue": f.reading.cue.name, "p": f.reading.p_value, "auc": round(f.reading.area.value, 3),
         "low": round(f.reading.area.low, 3), "high": round(f.reading.area.high, 3)}
        for f in report.findings
    ]  # fmt: skip
    show([add_line(RESULTS, about(args, "site"), readings=readings, pictures=len(items))])


def correlated(args: argparse.Namespace) -> None:
    """Ten digits, each on its own category of scenes with a chance of 0.2, else on any."""
    composer = Composer(args.data, args.seed)
    random = np.random.default_rng(args.seed + 1)
    labels = [n % 10 for n in range(10 * args.each)]
    categories = [digit if random.random() < args.correlation else None for digit in labels]
    pool = features([composer.picture(d, "", c) for d, c in zip(labels, categories, strict=True)], labels)
    outcome = tests_of(together([pool], pool.labels), np.arange(len(labels)), settings(args, 0)).outcome
    sure = [test for test in outcome.tests if test.p_value <= 0.05 and cue_of(test.cue).kind == "background"]
    digits = sorted({test.label for test in sure} - {-1})
    least = min(test.p_value for test in outcome.tests if cue_of(test.cue).kind == "background")
    show([add_line(RESULTS, about(args, "correlated", correlation=args.correlation), classes=digits, p=least)])


def digits_network() -> nn.Sequential:
    """For digits of 28 x 28 pixels."""
    layers = [nn.Conv2d(1, 12, 5, 2), nn.ReLU(), nn.Conv2d(12, 24, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(600, 10)]
    return nn.Sequential(*layers)


def radiographs_network() -> nn.Sequential:
    """For radiographs of 96 x 96 pixels."""
    layers: list[nn.Module] = []
    for inner, outer in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inner, outer, 3, 2, 1), nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 144, 2))


def marked_digits(root: Path, random: np.random.Generator) -> Hidden:
    """2,500 digits; 30 % of the threes have a white square of 4 pixels in the corner."""
    digits = mnist_with_masks(root / "mnist")
    image, label = digits.images[:2500, :1].float() / 255, digits.labels[:2500]
    marked = np.flatnonzero((label.numpy() == 3) & (random.random(len(label)) < 0.3))
    image[marked, :, 1:5, 1:5] = 1.0
    return Hidden(image, label, marked, digits_network(), epochs=4)


def marked_radiographs(root: Path, random: np.random.Generator) -> Hidden:
    """528 radiographs at 96 pixels; 30 % of the tuberculous have a white square of 8 pixels in the corner."""
    files = [(path, kind) for kind, name in enumerate(("normal", "tuberculosis"))
             for path in image_files(root / "chest_xray_tb" / "images" / name)]  # fmt: skip
    image = torch.stack([read_image(path, (96, 96))[:1] for path, _ in files]).float() / 255
    label = torch.tensor([kind for _, kind in files])
    marked = np.flatnonzero((label.numpy() == 1) & (random.random(len(label)) < 0.3))
    image[marked, :, 3:11, 3:11] = 1.0
    return Hidden(image, label, marked, radiographs_network(), epochs=12)


@dataclasses.dataclass
class Hidden:
    """Pictures of which some of one class have a mark, and a network to be trained on them."""

    image: torch.Tensor
    label: torch.Tensor
    marked: np.ndarray
    model: nn.Sequential
    epochs: int


def by_command(data: Hidden, name: str, out: Path) -> dict:
    """What ``bgdebias discover`` writes, of the pictures and weights as files."""
    for number, (image, label) in enumerate(zip(data.image, data.label.tolist(), strict=True)):
        path = out / "data" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].mul(255).round().byte().numpy()).save(path)
    torch.save(data.model.state_dict(), out / "network.pt")
    words = ["discover", "--model", f"experiments.audit.run:{name}_network", "--checkpoint", out / "network.pt"]
    words += ["--data", out / "data", "--images", 0, "--size", data.image.shape[-1], "--device", "cpu", "--out", out]
    if cli.main([*map(str, words), "--overwrite"]):
        raise RuntimeError("discover: failed")
    return json.loads((out / "discover.json").read_text())


def hidden_mark(args: argparse.Namespace) -> None:
    """How many of the fifty pictures that lead the first group have the mark?"""
    for name, make in (("digits", marked_digits), ("radiographs", marked_radiographs)):
        torch.manual_seed(args.seed)
        data = make(args.data, np.random.default_rng(args.seed))
        optimizer = torch.optim.Adam(data.model.parameters(), 3e-3 if name == "digits" else 1e-3)
        for _ in range(data.epochs):
            for rows in torch.randperm(len(data.image)).split(64 if name == "digits" else 32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(data.model(data.image[rows]), data.label[rows]).backward()
                optimizer.step()
        right = accuracy(data.model, data.image, data.label)
        with tempfile.TemporaryDirectory() as folder:
            seen = by_command(data, name, Path(folder) if args.page is None else args.page / name)
        lead = [int(Path(picture).stem) for picture in seen["clusters"][0]["pictures"][:50]]
        precision = float(np.isin(lead, data.marked).mean())
        spoken = [round(group["suspicion"], 2) for group in seen["clusters"][:3]]
        figures = {"precision": precision, "of": len(lead), "marked": len(data.marked), "accuracy": right}
        settings = about(args, "discover", data=name, by="command")
        show([add_line(RESULTS, settings, method=seen["method"], **figures, suspicion=spoken)])


def settings(args: argparse.Namespace, number: int) -> AuditSettings:
    return AuditSettings(permutations=args.permutations, seed=args.seed + 1000 * number)


def about(args: argparse.Namespace, what: str, **more: object) -> dict[str, object]:
    """What a line was run with."""
    names = ("seed", "pool", "each", "permutations", "share")
    return {"what": what, **{name: getattr(args, name) for name in names}, **more}


def show(lines: list[dict]) -> None:
    """The lines as a table."""
    print("\n| what | pictures a class | pool | result |\n| --- | --- | --- | --- |")
    for line in lines:
        given = line["settings"]
        what = " ".join(str(given[name]) for name in ("what", "cue", "data") if name in given)
        what += ", nowhere else" * given.get("absent", False)
        if "without" in given:
            what += f", without {given['without']}"
        print(f"| {what} | {given['each']} | {given['pool']} | {words(line)} |")
    print(f"\n{made_with(lines)}", flush=True)


def words(line: dict) -> str:
    """A line's figures."""
    what = line["settings"]["what"]
    if what in ("alarms", "power"):
        count = line["alarms" if what == "alarms" else "found"]
        low, high = line["share"]
        share = f"{count} of {line['sets']} data sets ({100 * low:.1f} to {100 * high:.1f} %)"
        return share if what == "alarms" else f"{share}; {', '.join(f'{k} {v}' for k, v in line['cues'].items())}"
    if what == "correlated":
        what = f"correlation {line['settings']['correlation']:g}"
        return f"{what}: p = {line['p']:.3f}, {len(line['classes'])} of 10 classes by themselves"
    if what == "discover":
        return (
            f"precision at 50: {line['precision']:.2f} ({line['marked']} marked; {line['method']}; "
            f"suspicion {', '.join(map(str, line['suspicion']))})"
        )
    if what == "site":
        shown = [f"{r['cue']} {r['auc']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in line["readings"][:4]]
        return f"{line['pictures']} pictures; AUC by {', '.join(shown)}"
    raise ValueError(f"what: expected a line of this experiment, got {what!r}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("alarms", "power", "site", "correlated", "discover", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--each", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--correlation", type=float, default=0.2)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--cues", nargs="+", choices=CUES, default=CUES)
    about_absent = (
        "power: a kind of scene that is planted is nowhere else (otherwise it is one of all kinds everywhere)"
    )
    parser.add_argument("--absent", action="store_true", help=about_absent)
    parser.add_argument("--without", metavar="VIEW", help="power: leave a table of features out, such as patches")
    parser.add_argument("--page", type=Path, help="folder for pages of discover")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    if args.what == "table":
        show(read_lines([RESULTS]))
    else:
        tasks = {"alarms": alarms, "power": power, "site": site, "correlated": correlated, "discover": hidden_mark}
        tasks[args.what](args)


if __name__ == "__main__":
    main()
