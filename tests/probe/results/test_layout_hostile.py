"""Reports that somebody has changed are read and can be shown, or refused by a ValueError that names the file."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
import torch
from hostile import ODD_VALUES
from torch import nn

from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias
from torch_bgdebias.probe.report import report_html


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    images, masks = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 1, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    report = evaluate_background_bias(net, [(images, torch.arange(8) % 2, masks)], examples=2)
    return json.loads(json.dumps(report.to_dict()))


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values; of a list the first and the last."""
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list) and content:
        inner = [(0, content[0]), (len(content) - 1, content[-1])]
    else:
        inner = []
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def mutated(whole: dict[str, Any], draw: random.Random) -> str:
    """The report's text with one to three values replaced or removed, or with bytes changed."""
    content = copy.deepcopy(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        *way, last = draw.choice(places(content)[1:])
        at = content
        for key in way:
            at = at[key]
        if draw.random() < 0.1:
            del at[last]
        else:
            at[last] = copy.deepcopy(draw.choice(ODD_VALUES))
    text = json.dumps(content)
    if draw.random() < 0.2:
        cut = draw.randrange(len(text))
        text = text[:cut] + draw.choice(["", "}", "[", "\x00", "9" * 50, text[cut + 7 :]])
    return text


def survive(path, whole: dict[str, Any], seeds: range) -> int:
    """How many were read; every other one gave a ValueError that names the file."""
    read = 0
    for seed in seeds:
        path.write_text(mutated(whole, random.Random(seed)), errors="surrogatepass")
        try:
            report = BackgroundBiasReport.from_json(path)
        except ValueError as error:
            if path.name not in str(error):
                pytest.fail(f"seed {seed}: {error}")
            continue
        read += 1
        page = report_html([report])
        assert "<script>alert" not in page, seed
        report.summary()
        report.to_html(path.with_suffix(".html"))
    return read


def test_changed_reports_are_read_or_refused_by_name(tmp_path, whole):
    assert 0 < survive(tmp_path / "r.json", whole, range(250)) < 250


@pytest.mark.slow
def test_twenty_thousand_changed_reports(tmp_path, whole):
    survive(tmp_path / "r.json", whole, range(250, 20_250))


def test_a_name_that_cannot_be_decoded_is_shown(tmp_path, whole):
    report = BackgroundBiasReport.from_dict({**whole, "class_names": ["a", "caf\udce9"], "per_class": []})
    report.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").rstrip().endswith("</html>")
    report.to_json(tmp_path / "r.json")
    assert BackgroundBiasReport.from_json(tmp_path / "r.json").class_names == ["a", "caf\udce9"]
