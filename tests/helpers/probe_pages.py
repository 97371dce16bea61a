"""Reports with known numbers, a page made of them, and a reader that fails on broken markup."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from torch_bgdebias.probe.report import BackgroundBiasReport, Cell, ImageGrid, report_html, summarise
from torch_bgdebias.probe.results.images import Example, ImageResults

NAMES = ["airport", "bedroom", "<script>alert('x')</script>", "desert & co"]


def make_report(
    model: str = "baseline",
    *,
    same: float = 0.9,
    rand: float = 0.4,
    n: int = 400,
    seed: int = 0,
    first_id: int = 0,
    examples: int = 0,
    score: bool = False,
) -> BackgroundBiasReport:
    """A report of a model that is right with the given chances."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % len(NAMES)
    chances = {"original": same, "mixed_same": same, "mixed_rand": rand, "only_bg_t": same - rand}
    wrong = (label + 1 + np.arange(n) // len(NAMES) % (len(NAMES) - 1)) % len(NAMES)  # each of the others in turn
    prediction = {v: np.where(rng.random(n) < p, label, wrong) for v, p in chances.items()}
    confidence = {v: rng.random(n).astype(np.float32) for v in chances}
    images = ImageResults(np.arange(first_id, first_id + n, dtype=np.uint64), label, prediction, confidence)
    images.background_label["mixed_rand"] = rng.integers(0, len(NAMES), n)
    if score:
        images.scores["pixel_ratio/grad_cam"] = rng.random(n).astype(np.float32)
        images.scores["pixel_ratio/grad_cam"][:3] = np.nan
    picture = np.full((8, 10, 3), 200, np.uint8)
    shown = {"original": picture, "mixed_rand": picture}
    heat, mask = np.full((8, 10), 255, np.uint8), np.zeros((8, 10), np.uint8)
    heat[:, :5] = 1
    mask[2:6, 2:6] = 255
    said = ({"mixed_rand": 3}, {"original": 0.9, "mixed_rand": 0.8})
    attributions = [
        Example(i, i % 4, shown, {"original": i % 4, **said[0]}, said[1], {"grad_cam": heat}, mask)
        for i in range(examples)
    ]
    counts = {"images": n, "classes": 4, "backgrounds": 40}
    return summarise(
        images,
        model=model,
        class_names=NAMES,
        counts=counts,
        settings={"layer": "head"},
        examples=attributions,
    )


def make_page(**options: object) -> str:
    before = make_report(examples=2, score=True)
    after = make_report("background swap", same=0.95, rand=0.97, seed=1, score=True)
    picture = np.zeros((6, 6, 3), np.uint8)
    grid = ImageGrid("Pictures", ["own", "other"], [("cat", [Cell(picture, [("cat", True), ("dog", False)], "a cat")])])
    panels = {
        "Accuracy": {"baseline": [0.1, 0.5], "background swap": [0.2, 0.9]},
        "Training loss": {"baseline": [2, 1]},
    }
    return report_html([before, after], curves=panels, grids=[grid], **options)


class Wellformed(HTMLParser):
    """Fails on tags that are closed in the wrong order; collects references and text."""

    VOID = frozenset({"meta", "link", "img", "br", "rect", "line", "circle", "polyline", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID and tag != "circle" and (not self.open or self.open[-1] != tag):
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Wellformed:
    parser = Wellformed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser
