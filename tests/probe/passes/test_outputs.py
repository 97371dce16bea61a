"""Log odds without lost digits, and a sigmoid that was taken already."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import nn

from torch_bgdebias.probe.passes.outputs import _two_columns, log_odds_of, sigmoid_taken, undo_sigmoid


def test_log_odds_keep_the_ranks_that_a_softmax_loses() -> None:
    logits = torch.tensor([[100.0, 0.0, -3.0], [120.0, 0.0, -3.0], [0.3, 0.1, -0.2]])
    odds = log_odds_of(logits, "multiclass")
    assert float(logits.softmax(1)[0, 0]) == float(logits.softmax(1)[1, 0]) == 1  # the softmax cannot tell them apart
    for row, shown in zip(logits.tolist(), odds.tolist(), strict=True):
        with mpmath.workdps(200):
            parts = [mpmath.exp(mpmath.mpf(value)) for value in row]
            exact = [float(mpmath.log(part / (sum(parts) - part))) for part in parts]
        assert shown == pytest.approx(exact, rel=1e-6)
    two = log_odds_of(torch.tensor([[1.0, 3.5]]), "multiclass")
    assert two.tolist() == [[-2.5, 2.5]]
    assert torch.equal(log_odds_of(logits, "multilabel"), logits)


class Head(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 2), last

    def forward(self, x):
        gate = torch.sigmoid(x).mean()  # a sigmoid somewhere inside is none at the end
        return self.last(self.inner(x) * gate)


@pytest.mark.parametrize(
    ("last", "taken"), [(nn.Sigmoid(), True), (nn.Identity(), False), (nn.Hardsigmoid(), False), (nn.Tanh(), False)]
)
def test_a_sigmoid_is_seen_where_it_is_the_output(last: nn.Module, taken: bool) -> None:
    torch.manual_seed(0)
    model, x = Head(last).eval(), torch.rand(5, 4)
    with torch.inference_mode():
        assert sigmoid_taken(lambda: model(x)) is taken
        assert sigmoid_taken(lambda: model(x).squeeze(1)) is taken


def test_a_sigmoid_is_undone() -> None:
    logits = torch.tensor([-20.0, -3.0, 0.0, 0.25, 3.0])
    assert undo_sigmoid(logits.sigmoid()).tolist() == pytest.approx(logits.tolist(), rel=1e-5, abs=1e-6)
    ends = undo_sigmoid(torch.tensor([0.0, 1.0]))
    assert math.isfinite(float(ends[0]))
    assert float(ends[1]) > 17  # float32 has no number between 0.99999994 and 1


def test_one_logit_is_two_columns_whose_softmax_is_its_sigmoid():
    logits = torch.tensor([-3.0, 0.0, 2.0])
    for given in (logits, logits[:, None]):
        torch.testing.assert_close(_two_columns(given).softmax(1)[:, 1], logits.sigmoid())
    for given in (torch.rand(3, 2), torch.rand(3, 1, 1)):
        with pytest.raises(ValueError, match="expected one logit an image for task='binary', got float32 tensor"):
            _two_columns(given)
