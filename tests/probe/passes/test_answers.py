"""Two outputs say the same by more than their winners; thresholds say where a probability is a half."""

from __future__ import annotations

import math

import pytest
import torch

from torch_bgdebias.probe.passes.answers import Answers, Judged, cut_at, same_answers

B, K = 12, 5


def logits(seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, K, generator=torch.Generator().manual_seed(seed)) * scale


def answers(*values: torch.Tensor, role: str) -> Answers:
    return Answers(tuple(Judged(value, role) for value in values))


SAME = {
    "as they are": lambda z: z,
    "a temperature": lambda z: z / 7,
    "log-probabilities": lambda z: z.log_softmax(1),
    "probabilities": lambda z: z.softmax(1),
    "probabilities at a temperature": lambda z: (z / 2).softmax(1),
    "rounded": lambda z: z.bfloat16(),
    "without the mean": lambda z: z - z.mean(1, keepdim=True),
}
OTHER = {
    "an average of two": lambda z: (z + logits(1)) / 2,
    "an average of probabilities": lambda z: (z.softmax(1) + (z + 0.3 * logits(1)).softmax(1)) / 2,
    "an offset of one class": lambda z: z + torch.tensor([0.0, 0.3, 0, 0, 0]),
    "the other way round": lambda z: -z,
    "other classes": lambda z: z[:, :4],
    "classes in another order": lambda z: z.roll(1, 1),
    "not finite": lambda z: z / 0,
}


@pytest.mark.parametrize("scale", [0.2, 3.0, 60.0], ids=["flat", "usual", "saturated"])
@pytest.mark.parametrize("change", SAME)
def test_the_same_answers(change: str, scale: float) -> None:
    z = logits(scale=scale)
    assert same_answers(SAME[change](z), z, task="multiclass")
    assert same_answers(z, SAME[change](z), task="multiclass")
    assert same_answers(SAME[change](z), z.softmax(1), task="multiclass")


@pytest.mark.parametrize("change", OTHER)
def test_other_answers(change: str) -> None:
    z = logits()
    assert not same_answers(OTHER[change](z), z, task="multiclass")
    assert not same_answers(OTHER[change](z), z.softmax(1), task="multiclass")


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_of_labels_no_constant_is_free(task: str) -> None:
    z = logits() if task == "multilabel" else logits()[:, :1]
    assert same_answers(z.sigmoid(), z, task=task)
    assert same_answers(z, (z / 3), task=task)
    assert same_answers(z[:, 0], z[:, :1], task=task)
    assert not same_answers(z + 1, z, task=task)
    assert not same_answers(-z, z, task=task)


def test_a_network_that_says_nothing_yet_agrees_with_itself_alone() -> None:
    zero = torch.zeros(B, K)
    assert same_answers(zero, zero, task="multiclass")
    assert not same_answers(logits(), zero, task="multiclass")


def test_two_classes_may_have_one_number_an_image() -> None:
    z = logits()[:, :2]
    margin = z[:, 1] - z[:, 0]
    for one in (margin, margin.sigmoid(), margin[:, None] / 3, z.softmax(1)[:, 1]):
        assert same_answers(one, z, task="multiclass")
        assert same_answers(z, one, task="multiclass")
        assert same_answers(torch.stack([1 - margin.sigmoid(), margin.sigmoid()], 1), one, task="binary")
        assert not same_answers(-one, z, task="multiclass")
    assert not same_answers(margin + 1, z, task="multiclass")
    assert not same_answers(z.softmax(1)[:, 0], z, task="multiclass")


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_thresholds(task: str) -> None:
    z = logits() if task == "multilabel" else logits()[:, :1]
    forward = torch.cat([z, -z], 1).flip(1) / 2 if task == "multiclass" else z
    p = z.sigmoid()
    right = [cut_at(p, 0.5), cut_at(z, 0.0), cut_at(z, torch.tensor(0.0)), cut_at(1 - p, 0.5, below=True)]
    wrong = [cut_at(p, 0.3), cut_at(z, 0.5), cut_at(p, torch.tensor(0.7))]
    for cut in right:
        assert not answers(cut, role="cut").cut_elsewhere(forward, task=task)
        assert not answers(wrong[0], cut, role="cut").cut_elsewhere(forward, task=task)
        assert not answers(cut, role="cut").cut_elsewhere(p, task=task) or task == "multiclass"
    for cut in wrong:
        assert answers(cut, role="cut").cut_elsewhere(forward, task=task)
    for check in (cut_at(z, 1e4, below=True), cut_at(z, -1e4), cut_at(z, torch.tensor(1e4))):  # of what was computed
        assert not answers(check, role="cut").cut_elsewhere(forward, task=task)
        assert answers(check, wrong[0], role="cut").cut_elsewhere(forward, task=task)
    unsure = cut_at((p - 0.5).abs(), 0.3)
    assert not answers(unsure, role="cut").cut_elsewhere(forward, task=task)
    assert not answers(wrong[0], role="cut").cut_elsewhere(torch.zeros_like(forward), task=task)


def test_what_rounding_has_taken_is_not_compared() -> None:
    z = torch.tensor([-400.0, -2, 1, 3, 400])
    cut = cut_at(z.sigmoid(), 0.5)
    assert cut.isnan().tolist() == [True, False, False, False, True]
    assert not answers(cut, role="cut").cut_elsewhere(z[:, None], task="binary")
    assert math.isclose(float(cut_at(z.sigmoid(), 0.3)[2]), 1 - math.log(0.3 / 0.7), rel_tol=1e-5)


def test_what_is_compared_with_a_forward() -> None:
    z, labels = logits(), torch.eye(K)[torch.arange(B) % K]
    several = [Judged(labels, "output"), Judged(z, "last"), Judged(z + 1, "part")]
    assert Answers(tuple(several)).candidates == [z]
    assert answers(z, role="part").same(z.softmax(1), task="multiclass") == [True]
    assert Answers().same(z, task="multiclass") == []
    steps = [(Judged(z[rows], "output"), Judged(z[rows, 0], "last")) for rows in (slice(4), slice(4, None))]
    two = Answers.joined([Answers(step) for step in steps])
    assert torch.equal(two.of("output")[0], z)
    assert torch.equal(two.of("last")[0], z[:, 0])
    assert answers(z, role="output").kind != answers(z, z, role="output").kind != answers(z, role="last").kind
    assert [answers(z, role=role).predict for role in ("output", "last", "part", "cut")] == [True, False, False, True]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_logits_that_lie_between_0_and_1_by_chance_are_logits(task: str) -> None:
    """As those of a network that is not trained yet: nearly the same for all images."""
    z = 0.2 + 0.02 * torch.rand(B, K if task == "multilabel" else 1, generator=torch.Generator().manual_seed(1))
    p = z.sigmoid()
    assert same_answers(p, z, task=task)
    assert same_answers(z, p, task=task)
    assert not same_answers(z.flip(0), p, task=task)
    assert not Answers((Judged(cut_at(p, 0.5), "cut"),)).cut_elsewhere(z, task=task)
    assert Answers((Judged(cut_at(p, 0.3), "cut"),)).cut_elsewhere(z, task=task)
    if task == "binary":
        columns = torch.cat([-z / 2, z / 2], 1)
        for one in (z, z[:, 0], p):
            assert same_answers(one, columns, task=task)
            assert same_answers(columns, one, task=task)
            assert not same_answers(one, columns.flip(1), task=task)
