"""The page's pictures."""

from __future__ import annotations

import numpy as np
import pytest
from probe_pages import make_report

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


def test_pictures_are_png_of_their_size() -> None:
    import base64
    import io

    from PIL import Image

    from torch_bgdebias.probe.page.pictures import png

    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = base64.b64decode(png(picture).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
