"""One logit and labels of 0 and 1 are two classes; whatever is not beyond doubt is asked for."""

from __future__ import annotations

import pytest
import torch
from probe_targets import SetReader, label_sets, set_loader
from torch import nn

from torch_bgdebias.probe import evaluate_background_bias

TARGETS = label_sets(60)
LABEL = TARGETS[:, 0]


class Flat(nn.Module):
    """Logits (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = SetReader(corner=True, outputs=1)

    def forward(self, image):
        return self.reader(image)[:, 0]


@pytest.mark.parametrize("model", [SetReader(corner=True, outputs=1), Flat()], ids=["(B, 1)", "(B,)"])
@pytest.mark.parametrize("label", [LABEL, LABEL.float(), LABEL[:, None], LABEL[:, None].float(), LABEL.bool()])
def test_found_by_itself_as_if_it_had_been_said(model, label) -> None:
    loader = set_loader(TARGETS, label)
    own, said = (evaluate_background_bias(model, loader, **task) for task in ({}, {"task": "binary"}))
    assert own.settings["task"] == "binary"
    assert own.bg_gap == said.bg_gap
    assert own.bg_gap.value > 0.3
    assert {name: v.accuracy for name, v in own.variants.items()} == {n: v.accuracy for n, v in said.variants.items()}


def test_a_function_that_makes_one_logit_of_two() -> None:
    """Even where the model's own layers have more outputs."""
    model, loader = SetReader(corner=True, outputs=2), set_loader(TARGETS, LABEL)
    report = evaluate_background_bias(model, loader, forward=lambda model, image: model(image)[:, 0])
    assert report.settings["task"] == "binary"


AMBIGUOUS = {
    "another class": (LABEL + 1, ValueError),
    "shares": (LABEL[:, None] * 0.8 + 0.1, TypeError),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_in_doubt_names_the_option(name) -> None:
    label, error = AMBIGUOUS[name]
    with pytest.raises(error, match="task='binary'"):
        evaluate_background_bias(SetReader(corner=True, outputs=1), set_loader(TARGETS, label))


def test_a_later_label_that_the_logit_has_no_class_for_is_an_error() -> None:
    label = LABEL.clone()
    label[-1] = 2
    with pytest.raises(ValueError, match=r"label: expected classes in \[0, 1\], the model's outputs, got 2"):
        evaluate_background_bias(SetReader(corner=True, outputs=1), set_loader(TARGETS, label))


def test_without_labels_and_with_several_outputs_nothing_is_looked_at() -> None:
    calls = []

    class Counting(SetReader):
        def forward(self, image):
            calls.append(len(image))
            return super().forward(image)

    loader = set_loader(TARGETS, LABEL)
    report = evaluate_background_bias(Counting(corner=True, outputs=2), loader, variants=["mixed_same", "mixed_rand"])
    assert report.settings["task"] == "multiclass"
    assert min(calls) > 2, "no pass of its own over a few images"
    with torch.no_grad():
        assert len(report.images) == 60
