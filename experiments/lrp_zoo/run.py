"""Which models can be explained and trained through, how exactly, and at what cost: the table beside this file.

    python -m experiments.lrp_zoo.run measure [--only NAME ...] [--minutes 8] [--since DATE]   # not measured since DATE
    python -m experiments.lrp_zoo.run table                                                    # writes README.md

Measurements go to results.jsonl, where the last line of a model counts (the first ones, without a date, were read
back from the table).
Every model is taken as torchvision or timm makes it, with random weights (also where it would begin with zeros) and
10 classes, in evaluation and in training mode. Error: the derivative of a random projection of the relevance plus a
term of the logits, along a random direction of all parameters, by autograd against central differences, in float64
(models of more than 100 million parameters in several groups of parameters, one after the other, the worst of which
counts). A model with batch norm first sees some random images, so that its running statistics fit its weights. Where
finite differences of the plain logits fail too, since the random network is chaotic, the same is measured again with
every batch norm's scale at 0.3, as residual networks are often initialised. Cost: forward and backward of cross-entropy
and heatmap, over the same of cross-entropy alone, in float32 and training mode: processor time, in turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import re
import statistics
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias import ISNet

FOLDER = Path(__file__).resolve().parent
SIZES = (64, 96, 128, 160, 192, 224, 240, 256)
#: images of other sizes: a side of 64 is not four patches of 14 pixels, and 224 takes three times the memory;
#: inception_v4's last maps are single pixels at 96, and batch norm over two of them is chaotic
SPECIAL = {"torchvision/vit_h_14": (56,), "timm/inception_v4": (160,)}
STEPS = (1e-7, 1e-8, 1e-6, 1e-9, 1e-5, 1e-10, 1e-4)
TOLERANCE = 1e-4
CLASSES = 10
#: gradients in float64 of more parameters than this are taken in groups, to fit a small machine
GROUP = 100_000_000
#: scale of batch norm for networks that are chaotic with their random weights
CALM = 0.3

#: models that take long come last
HEAVY = re.compile(
    r"vgg1[369]|_(8|16|32|128)gf|wide|vit_[bhl]|_l$|[bl]arge|_base|x101|101|152|161|169|201|_s$|_b$|b[4567]$"
)

#: one model of each of these timm families
TIMM = """
beit_base_patch16_224 gernet_s cait_xxs24_224 coat_tiny convit_tiny convmixer_1024_20_ks9_p14 convnext_atto
convnextv2_atto crossvit_tiny_240 cspresnet50 davit_tiny deit_tiny_patch16_224 deit3_small_patch16_224 densenet121
dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 tf_efficientnet_cc_b0_4e
efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224 hrnet_w18_small inception_next_atto inception_v4 levit_128s
mambaout_femto coatnet_pico_rw_224 maxvit_rmlp_pico_rw_256 poolformer_s12 caformer_s18 mixer_s32_224 resmlp_12_224
gmlp_ti16_224 mobilenetv3_small_050 mobilenetv4_conv_small mobilevit_xxs mobilevitv2_050 mvitv2_tiny nasnetalarge
nest_tiny nextvit_small nf_regnet_b0 eca_nfnet_l0 pit_ti_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_002
regnety_002 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_14w_8s resnest14d resnet18 seresnet18 ecaresnet26t
resnetv2_18 resnetv2_50x1_bit rexnet_100 selecsls42b legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s1
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tiny_vit_5m_224 tinynet_e tnt_s_patch16_224
tresnet_m twins_pcpvt_small twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 volo_d1_224 ese_vovnet19b_dw
legacy_xception xception41 xcit_nano_12_p16_224 cs3darknet_s lambda_resnet26t halonet26t bat_resnext26ts
""".split()  # noqa: SIM905


def names() -> list[str]:
    import torchvision

    listed = torchvision.models.list_models(module=torchvision.models)
    every = [f"torchvision/{n}" for n in listed] + [f"timm/{n}" for n in TIMM]
    return sorted(every, key=lambda n: bool(HEAVY.search(n)))


def make(name: str, size: int) -> nn.Module:
    """The model for images of ``size`` pixels, where it wants to know."""
    source, short = name.split("/")
    torch.manual_seed(0)
    if source == "torchvision":
        import torchvision

        special: dict[str, Any] = {"image_size": size} if short.startswith("vit_") else {}
        if short in ("googlenet", "inception_v3"):
            special = {"aux_logits": False, "init_weights": False}
        if short == "maxvit_t":
            special = {"input_size": (size, size)}
        return torchvision.models.get_model(short, weights=None, num_classes=CLASSES, **special)
    import timm

    try:
        return timm.create_model(short, num_classes=CLASSES, img_size=size)
    except TypeError:
        return timm.create_model(short, num_classes=CLASSES)


def fitting(name: str, batch: int) -> tuple[nn.Module, Tensor]:
    """The model with the smallest images that it takes."""
    problem: Exception | None = None
    sizes = SPECIAL.get(name, SIZES)
    for size in sizes:
        try:
            model = make(name, size)
            fill(model)
            image = torch.rand(batch, 3, size, size)
            with torch.no_grad():
                model.train()(image)
                model.eval()(image)
            return model, image
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            problem = error
    raise RuntimeError(f"no image size up to {sizes[-1]} fits: {problem}")


def fill(model: nn.Module) -> None:
    """Some models begin with a head of zeros, whose relevance is zero and would agree with anything."""
    for parameter in model.parameters():
        if not bool(parameter.detach().any()):
            nn.init.normal_(parameter, std=0.02)


def settle(model: nn.Module, image: Tensor) -> None:
    """Let batch norm's running statistics fit the random weights."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.rand_like(image))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def calm(model: nn.Module) -> bool:
    """Weaken every batch norm's output, and so the residual branches; whether there is any."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]
    for norm in norms:
        nn.init.constant_(norm.weight, CALM)
    return bool(norms)


def groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters in groups of about equal size."""
    parameters = list(model.parameters())
    count = -(-sum(p.numel() for p in parameters) // GROUP)
    found: list[list[nn.Parameter]] = [[] for _ in range(count)]
    for parameter in sorted(parameters, key=lambda p: -p.numel()):
        min(found, key=lambda g: sum(p.numel() for p in g)).append(parameter)
    return found


def directions(parameters: list[nn.Parameter], scales: list[float]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """A random direction, made anew each time rather than kept."""
    generator = torch.Generator().manual_seed(1)
    for parameter, scale in zip(parameters, scales, strict=True):
        yield parameter, torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype).mul_(scale)


def error(model: nn.Module, image: Tensor, *, plain: bool = False) -> float:
    """Relative difference of autograd's and finite differences' directional derivative, the worst of all groups."""
    worst = 0.0
    for group in groups(model):
        for parameter in model.parameters():
            parameter.requires_grad_(any(parameter is p for p in group))
        worst = max(worst, group_error(model, image, group, plain=plain))
    return worst


def group_error(model: nn.Module, image: Tensor, parameters: list[nn.Parameter], *, plain: bool = False) -> float:
    """:func:`error` along a direction of these parameters, the best of some steps.

    ``plain``: of the logits alone, without relevance. Where that is large too, the network with its random weights is
    too ill-conditioned for finite differences, whatever is differentiated.
    """
    isnet, training = ISNet(model), model.training
    target = torch.arange(len(image)) % CLASSES
    weights: list[Tensor] = []

    def function(create_graph: bool) -> Tensor:
        model.train().train(training)  # some models keep functions of their weights while they are in evaluation mode
        torch.manual_seed(2)  # dropout and stochastic depth drop the same
        found = isnet.explain(image, lambda z: z.gather(1, target[:, None]) - z.logsumexp(1, True), create_graph)
        if not weights:
            random = torch.randn(found.relevance.shape, generator=torch.Generator().manual_seed(3), dtype=image.dtype)
            weights.append(random / found.relevance.detach().abs().mean().clamp(min=1e-300))
        logits = found.logits.logsumexp(1).mean()
        return logits if plain else (found.relevance * weights[0]).mean() + logits

    scales = [float(p.detach().std()) or 1.0 if p.numel() > 1 else 1.0 for p in parameters]
    gradients = torch.autograd.grad(function(True), parameters, allow_unused=True)
    pairs = zip(gradients, directions(parameters, scales), strict=True)
    exact = sum(float((g * d).sum()) for g, (_, d) in pairs if g is not None)
    del gradients
    best = float("inf")
    for step in STEPS:
        values = []
        for sign in (1, -1):
            for parameter, direction in directions(parameters, scales):
                parameter.data.add_(direction, alpha=sign * step)
            values.append(float(function(False)))
            for parameter, direction in directions(parameters, scales):
                parameter.data.sub_(direction, alpha=sign * step)
        numeric = (values[0] - values[1]) / (2 * step)
        best = min(best, abs(numeric - exact) / max(abs(exact), 1e-12))
        if best < TOLERANCE:
            break
    return best


def cost(model: nn.Module, image: Tensor, repeats: int = 2) -> float:
    """Processor time of a step with heatmaps over a plain one, medians of alternating runs."""
    isnet = ISNet(model)
    model.train()
    label = torch.arange(len(image)) % CLASSES

    def plain() -> None:
        F.cross_entropy(model(image), label).backward()

    def explained() -> None:
        found = isnet.explain(image)
        (F.cross_entropy(found.logits, label) + found.relevance.abs().mean()).backward()

    times: dict[Any, list[float]] = {plain: [], explained: []}
    for _ in range(repeats + 1):
        for step in times:
            model.zero_grad()
            start = time.process_time()
            step()
            times[step].append(time.process_time() - start)
    medians = {step: statistics.median(values[1:]) for step, values in times.items()}
    return medians[explained] / medians[plain]


def examine(name: str, *, timed: bool = True) -> dict[str, Any]:
    """One line of the table."""
    row: dict[str, Any] = {"model": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    try:
        model, image = fitting(name, 2)
        row["size"], row["parameters"] = image.shape[-1], sum(p.numel() for p in model.parameters())
        if timed:
            row["cost"] = round(cost(model, image), 2)
        model.zero_grad()
        model, image = model.double(), image.double()
        settle(model, image)
        for mode in ("eval", "train"):
            row[mode] = error(model.train(mode == "train"), image)
            if row[mode] >= TOLERANCE:
                row[f"plain {mode}"] = error(model, image, plain=True)
        chaotic = [mode for mode in ("eval", "train") if row.get(f"plain {mode}", 0.0) >= TOLERANCE]
        if chaotic and calm(model):
            settle(model, image)
            for mode in chaotic:
                row[f"calm {mode}"] = error(model.train(mode == "train"), image)
    except Exception as problem:  # the table says what went wrong with which model
        row["problem"] = f"{type(problem).__name__}: {problem}"[:300]
    return row


def status(row: dict[str, Any]) -> str:
    """The verdict on a row: exact, inexact, refused or not measurable, and why."""
    if "problem" in row:
        return f"refused: {row['problem']}".replace("|", "\\|").replace("\n", " ")
    inexact = [mode for mode in ("eval", "train") if row.get(f"calm {mode}", row.get(mode, math.inf)) >= TOLERANCE]
    if any(row.get(f"plain {mode}", 0.0) < TOLERANCE for mode in inexact):
        return "inexact"
    unclear = " and ".join(inexact)
    return f"not measurable in {unclear}: finite differences of the plain logits fail too" if unclear else "exact"


def table(rows: list[dict[str, Any]], total: int) -> str:
    """This folder's README."""

    def number(row: dict[str, Any], mode: str) -> str:
        measured = row.get(f"calm {mode}", row.get(mode))
        if measured is None:
            return ""
        return f"{measured:.0e}" + ("*" if f"calm {mode}" in row else "")

    exact = sum(status(r) == "exact" for r in rows)
    summary = (
        "Written by `python -m experiments.lrp_zoo.run table` from `results.jsonl`, measured on the CPU; `run.py` says "
        f"how. {len(rows)} of {total} models have been measured, {exact} of them are exact: relative error of the "
        f"gradient below {TOLERANCE:g}, in evaluation and in training mode."
    )
    notes = (
        f"An asterisk: measured with every batch norm's scale at {CALM}, as finite differences fail for this network "
        "with its own random weights, also those of the plain logits. Cost: processor time of a step with heatmaps "
        "over that of a plain one, two images of this small size, one thread of a shared machine: a guide, no more; "
        "careful figures stand in [the card of LRP](../../docs/lrp.md). Rows without a date are from an earlier state "
        "of the code."
    )
    lines = [
        "# Models whose relevance can be trained through",
        "",
        textwrap.fill(summary, 120),
        "",
        textwrap.fill(notes, 120),
        "",
        "| model | parameters (M) | image | status | error, eval | error, train | cost | torch | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = f"{row.get('parameters', 0) / 1e6:.1f}" if "parameters" in row else ""
        cells = [row["model"], size, str(row.get("size", "")), status(row), number(row, "eval"), number(row, "train")]
        cells += [f"{row['cost']:.1f}" if "cost" in row else "", row.get("torch", ""), row.get("date", "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def read(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["model"]: row for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("command", choices=["measure", "table", "list"])
    parser.add_argument("--only", nargs="*", help="these models, as source/name")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the model that exceeds this")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th model from the i-th")
    parser.add_argument("--since", default="", help="YYYY-MM-DD: models last measured before this are measured again")
    parser.add_argument("--out", type=Path, default=FOLDER / "results.jsonl")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*(init_weights|default weight init).*")
    every = names()
    if options.command == "list":
        print(*every, sep="\n")
        return
    measured = read(options.out)
    if options.command == "table":
        ordered = sorted(every, key=lambda n: (n.startswith("timm/"), n))
        rows = [measured[n] for n in ordered if n in measured]
        (FOLDER / "README.md").write_text(table(rows, len(every)))
        return
    done = {name for name, row in measured.items() if row.get("date", "") >= options.since}
    index, parts = map(int, options.part.split("/"))
    start = time.monotonic()
    for name in options.only or every[index::parts]:
        if name in done:
            continue
        row = examine(name)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        gc.collect()
        if time.monotonic() - start > 60 * options.minutes:
            return


if __name__ == "__main__":
    main()
