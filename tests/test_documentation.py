"""README and cards: every Python block runs as it stands, what they name exists, and they keep their form."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from documentation import PAGES, ROOT, blocks, run_alone
from PIL import Image

from torch_bgdebias.cli import COMMANDS

#: what holds after a block, by page and position
HOLDS = {
    ("audit.md", 1): ["len(discovery.labels) == 80"],
    ("audit.md", 0): ["report.findings[0].reading.p_value <= 0.005", "'can be told' in printed"],
    ("attribution.md", 0): [
        "heatmap.shape == relevance.shape == shap.attribution.shape == (4, 1, 32, 32)",
        "shap.values.shape == (4, 49)",
    ],
    ("backgrounds.md", 0): ["len(noise) == 8", "len(scenes) == 40"],
    ("backgrounds.md", 1): [
        "0 < len(clean) < 40",
        "printed.startswith('brightness (top 1) removed ')",
        "(images.mean((1, 2, 3)) >= 0.5).all()",
    ],
    ("concepts.md", 0): [
        "result.conditions == ('original', 'pasted')",
        "0 < float(iou['3'].mean()) <= 1",
        "{(row.concept, row.category) for row in rows} >= {('circle', 'red'), ('cross', 'grey')}",
    ],
    ("data.md", 0): ["image.shape == (8, 3, 64, 64)", "mask.shape == (8, 1, 64, 64)", "len(data) == 180"],
    ("data.md", 1): [
        "type(train[3][0]) is torch.Tensor",
        "train[3][0].shape == (3, 64, 64)",
        "train[3][0].min() < -0.5",
    ],
    ("data.md", 2): ["variant.valid.all()"],
    ("datasets.md", 0): ["background_label in range(10)"],
    ("extend_lrp.md", 0): ["(total - logit).abs().max() < 1e-5", "(without - logit).abs().max() > 0.05"],
    ("extend_masks.md", 0): ["0.3 < quality.mean() < 1", "len(report.images) == 60"],
    ("extend_report.md", 0): ["path.exists()"],
    ("extend_variant.md", 0): ["0 <= reports[0].scores['accuracy_on_grey'].mean.value <= 1"],
    ("metrics.md", 0): ["open('report.html').read().startswith('<!DOCTYPE html>')", "len(report.images.label) == 60"],
    ("metrics.md", 1): ["len(trainer.callbacks) >= 2"],
    ("metrics.md", 3): ["ratio.histogram().shape == (3, 50)", "robust.fooled_by().shape == (20,)"],
    ("probe.md", 0): ["list(report.scores) == ['pixel_ratio/grad_cam']"],
    ("swap.md", 1): ["torch.equal(repeated[0] if isinstance(repeated, list) else repeated, new_image)"],
}
#: pages of docs/ that are no cards: about the house, the words, the papers, one command's output, ways to go further
NO_CARDS = {
    "architecture", "demo", "extend_lrp", "extend_masks", "extend_report", "extend_variant", "extension", "glossary",
    "methods", "papers", "troubleshooting",
}  # fmt: skip
CARDS = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem not in NO_CARDS]
#: what prints a table: an experiment, a benchmark or a test as a script, a command of the package
PRINTS = r"python\s+-m\s+experiments\.|python\s+(?:benchmarks|tests|examples)/|`bgdebias\s"
BLOCKS = [
    pytest.param(code, HOLDS.get((page.name, number), []), id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page))
]
TEXTS = {page: page.read_text(encoding="utf-8") for page in [*PAGES, *sorted(ROOT.glob("experiments/**/README.md"))]}
TEXTS |= {
    ROOT / name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
}


@pytest.mark.parametrize(("code", "holds"), BLOCKS)
def test_block_runs_as_it_stands(code, holds, tmp_path):
    run_alone(code, tmp_path, holds)


def test_every_expectation_has_its_block():
    numbers = {(page.name, number) for page in PAGES for number in range(len(blocks(page)))}
    assert set(HOLDS) <= numbers
    assert len(BLOCKS) >= 20


def test_a_block_that_fails_is_seen(tmp_path):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_alone("1 / 0", tmp_path)
    with pytest.raises(AssertionError, match="not true after the block: x == 2"):
        run_alone("x = 1", tmp_path, ["x == 2"])
    with pytest.raises(AssertionError, match="torch"):
        run_alone("torch.zeros(1)", tmp_path)  # nothing is imported for it
    assert run_alone("print('here')", tmp_path) == "here\n"


def test_imagenet9_block_reads_the_release(tmp_path):
    """The release is not at hand: its layout with one picture takes its place."""
    for folder in ("mixed_rand", "fg_mask"):
        (tmp_path / f"bg_challenge/{folder}/val/08_fish").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "bg_challenge/mixed_rand/val/08_fish/fg_n0_1_bg_n0_2.JPEG")
    np.save(tmp_path / "bg_challenge/fg_mask/val/08_fish/n0_1.npy", np.ones((8, 8), bool))
    model = "from torch import nn\nmodel = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))\n"
    (code,) = [code for code in blocks(ROOT / "docs/datasets.md", "text") if "import" in code]
    run_alone(model + code, tmp_path, ["correct.shape == (1,)"])


@pytest.mark.parametrize("page", [page for page in TEXTS if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_lines_fit(page):
    """120 columns; the rows of a table cannot be broken. The change log grows by merging lines as they come."""
    long = [
        f"{number}: {line}"
        for number, line in enumerate(TEXTS[page].splitlines(), 1)
        if len(line) > 120 and not line.lstrip().startswith("|")
    ]
    assert not long


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_cards_are_short(page):
    assert len(TEXTS[page].splitlines()) <= 150


def sections(page: Path) -> dict[str, str]:
    """What stands under each heading of the second level, in their order; what stands before the first under ''."""
    parts = re.split(r"^## (.*)$", TEXTS[page], flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[0::2], strict=True))


@pytest.mark.parametrize("page", CARDS, ids=lambda page: page.name)
def test_a_card_says_what_when_how_how_well_and_limits(page):
    parts = sections(page)
    title, _, intro = parts[""].partition("\n")
    what, when, _ = intro.partition("\n**When:** ")
    assert title.startswith("# ")
    assert len(what.strip()) > 60, "what it is stands before when"
    assert when
    assert [name for name in parts if name in ("How", "How well", "Limits")] == ["How", "How well", "Limits"]
    assert list(parts)[-1] == "Limits"
    assert all(len(parts[name].strip()) > 60 for name in ("How", "Limits"))
    assert re.search(r"^\|[ -]+\|[ |-]+\|$", parts["How well"], flags=re.MULTILINE), "a table"
    assert re.search(PRINTS, parts["How well"]), "the command that prints it"


def test_the_readme_lists_every_card():
    rows = re.findall(r"^\| .*$", TEXTS[ROOT / "README.md"].partition("## Where to go on")[2], flags=re.MULTILINE)
    assert set(re.findall(r"\(docs/(\w+)\.md\)", "".join(rows))) == {page.stem for page in CARDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_touch_no_underscore(page):
    code = "\n".join(blocks(page))
    assert not re.findall(r"\w\._[a-z]\w*|import _\w+", code)


@pytest.mark.parametrize("script", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.name)
def test_example_scripts_touch_no_underscore(script):
    assert not re.findall(r"\w\._[a-z]\w*", script.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(linked), f"{page.name}: {target}"


def headings(page: Path) -> set[str]:
    """Anchors as GitHub and Sphinx make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_messages_of_the_troubleshooting_page_exist():
    """The first cell of each row is part of a message in the sources, where strings may be broken over lines."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "torch_bgdebias").rglob("*.py"))
    joined = re.sub(r"""["']\s*\n\s*f?["']""", "", sources)
    rows = re.findall(r"^\| (`.*?) \|", TEXTS[ROOT / "docs/troubleshooting.md"], flags=re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) >= 20
    assert not [message for message in messages if message not in joined]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page):
    text = TEXTS[page]
    for module in re.findall(r"python -m ((?:experiments|benchmarks)[\w.]+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for path in re.findall(r"python ((?:benchmarks|examples|experiments|tests)/[\w/.]+\.py)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:tests|benchmarks|examples|torch_bgdebias|csrc|\.ci)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"(?<![\w.])bgdebias ([a-z]+)\b", text)) <= set(COMMANDS)
