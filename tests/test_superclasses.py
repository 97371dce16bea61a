"""Several outputs for one class: scored by the best, or by their summed probability."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from torch_bgdebias.data import to_imagenet9
from torch_bgdebias.data.imagenet9 import IMAGENET9_RANGES
from torch_bgdebias.superclasses import Superclasses

LOGITS = torch.tensor([[1.0, 4.0, 2.0, 3.0, 0.0], [0.0, 0.0, 5.0, 0.0, 0.0]])


def test_best_of_a_group():
    scored = Superclasses([[0, 1], [3]])(LOGITS)
    assert scored.tolist() == [[4.0, 3.0, 2.0], [0.0, 0.0, 5.0]]


def test_sum_of_probabilities():
    scored = Superclasses([[0, 1], [3]], "sum")(LOGITS)
    p = LOGITS.softmax(1)
    expected = torch.stack([p[:, 0] + p[:, 1], p[:, 3], p[:, 2] + p[:, 4]], 1)
    torch.testing.assert_close(scored.softmax(1), expected)
    torch.testing.assert_close(scored.exp(), expected)


def test_the_two_can_disagree():
    """Three middling dogs together beat one bird that beats each of them."""
    logits = torch.tensor([[2.0, 1.9, 1.9, 1.9]])
    assert Superclasses([[0], [1, 2, 3]])(logits).argmax(1).item() == 0
    assert Superclasses([[0], [1, 2, 3]], "sum")(logits).argmax(1).item() == 1


@pytest.mark.parametrize("how", ["best", "sum"])
@pytest.mark.parametrize("whole", [1, 100])
def test_probabilities_are_taken_for_what_they_are(how, whole):
    """A softmax of a softmax is nearly flat: summed up, the group with most outputs always won."""
    logits = torch.tensor([[9.0, 0, 0, 0, 0, 0], [0, 0, 7.0, 0, 1, 0]])
    groups = Superclasses([[0], [1, 2, 3, 4]], how)
    scored = groups(whole * logits.softmax(1))
    torch.testing.assert_close(scored.softmax(1), groups(logits).softmax(1))
    assert scored.argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(to_imagenet9(torch.eye(1000)[:2]).softmax(1)[:, 8], torch.ones(2))


def test_no_other_class_where_every_output_has_its_place():
    whole = Superclasses([[4, 0], [1, 2, 3]])
    assert whole(LOGITS).shape == (2, 2)
    assert whole.count(5) == 2
    assert Superclasses([[0], [1]]).count(5) == 3
    assert Superclasses([[0, 0], [1]])(LOGITS[:, :2]).shape == (2, 2)  # named twice is named


def test_imagenet9_is_one_such_table():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    groups = [[i for low, high in ranges for i in range(low, high + 1)] for ranges in IMAGENET9_RANGES.values()]
    assert torch.equal(Superclasses(groups)(logits), to_imagenet9(logits))


@pytest.mark.parametrize("how", ["best", "sum"])
def test_gradients_and_halves(how):
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert gradcheck(Superclasses([[0, 1], [3]], how), (logits,))
    assert Superclasses([[0, 1], [3]], how)(LOGITS.bfloat16()).dtype == torch.bfloat16


def test_logits_are_found_in_the_output():
    assert Superclasses([[0], [1]], logits=1)((None, LOGITS)).shape == (2, 3)


@pytest.mark.parametrize(
    ("groups", "how", "message"),
    [
        ([[0], []], "best", "groups: expected at least one output for each superclass, got none for 1"),
        ([[0], [0]], "best", "groups: output 0 is in superclass 0 and in 1"),
        ([[-1]], "best", "groups: expected a whole number of at least 0, got -1"),
        ([[True]], "best", "groups: expected a whole number of at least 0, got True"),
        ([[0]], "mean", "how: expected one of 'best', 'sum', got 'mean'"),
    ],
)
def test_what_does_not_fit_is_named(groups, how, message):
    with pytest.raises(ValueError, match=message):
        Superclasses(groups, how)


def test_a_model_with_too_few_outputs():
    with pytest.raises(ValueError, match=r"groups: expected logits \(B, K\) with K above 7, got float32 tensor"):
        Superclasses([[7]])(LOGITS)
