"""The page's pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, features
from probe_pages import make_report

from torch_bgdebias.probe.page.pictures import embedded
from torch_bgdebias.probe.report import Cell, ImageGrid, report_html


def test_lines_of_a_grid_have_their_models_colour() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    cell = Cell(picture, [("cat", True), ("dog", False)], models=[0, 1])
    page = report_html([make_report(n=8)], grids=[ImageGrid("g", ["c"], [("r", [cell, None])], models=["one", "two"])])
    assert "<span class='right'><i class='dot k0'></i>cat</span>" in page
    assert "<span class='wrong'><i class='dot k1'></i>dog</span>" in page
    assert "<i class='k1'></i>two" in page
    with pytest.raises(ValueError, match=r"models: expected one for each of 1 lines, got 2"):
        Cell(picture, [("cat", None)], models=[0, 1])
    with pytest.raises(ValueError, match=r"picture: expected uint8 \(H, W, 3\), got float64 \(2, 2, 3\)"):
        Cell(np.zeros((2, 2, 3)))


def decoded(source: str) -> tuple[str, np.ndarray]:
    """Kind and pixels of a data URI."""
    head, data = source.split(",")
    return head, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def photograph(side: int) -> np.ndarray:
    """Smooth, with a little noise, as photographs are."""
    rng = np.random.default_rng(0)
    across = np.linspace(0, 3, side)
    smooth = 128 + 60 * np.sin(across[:, None, None] + np.arange(3)) * np.cos(2 * across[None, :, None])
    return (smooth + rng.normal(0, 4, (side, side, 3))).clip(0, 255).astype(np.uint8)


def test_small_pictures_are_kept_to_the_last_bit() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    head, pixels = decoded(embedded(picture))
    assert head == "data:image/png;base64"
    assert np.array_equal(pixels, picture)


@pytest.mark.parametrize(("webp", "kind"), [(True, "webp"), (False, "jpeg")])
def test_photographs_are_a_tenth_as_large_and_look_the_same(monkeypatch, webp: bool, kind: str) -> None:
    monkeypatch.setattr(features, "check", lambda name: webp)
    picture = photograph(160)
    source = embedded(picture)
    head, pixels = decoded(source)
    assert head == f"data:image/{kind};base64"
    assert pixels.shape == picture.shape
    assert np.sqrt(np.mean((pixels.astype(float) - picture) ** 2)) < 6
    plain = io.BytesIO()
    Image.fromarray(picture).save(plain, format="PNG", optimize=True)
    assert len(source) < len(plain.getvalue()) / 5


def test_a_drawing_stays_exact_where_that_is_smaller() -> None:
    picture = np.zeros((160, 160, 3), np.uint8)
    picture[40:100, 30:90] = 255, 0, 0
    head, pixels = decoded(embedded(picture))
    assert head == "data:image/png;base64" or np.array_equal(pixels, picture)


def test_a_page_with_twelve_examples_is_small() -> None:
    report = make_report(n=40, examples=12)
    for number, example in enumerate(report.examples):
        names = ("original", "only_fg", "mixed_same", "mixed_rand", "mixed_next", "no_fg", "only_bg_b", "only_bg_t")
        example.pictures = {name: np.roll(photograph(160), 7 * number, 1) for name in names}
        example.heatmaps = {"grad_cam": photograph(160)[..., 0]}
        example.mask = None
        example.prediction = dict.fromkeys(names, 0)
        example.confidence = dict.fromkeys(names, 0.5)
    page = report_html([report])
    assert page.count("data:image/webp") == 12 * 9
    assert len(page) < 1.5e6
