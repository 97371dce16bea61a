"""The embedding of a head that runs several times in a pass is that of the call which gives the logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.probe.passes.running import ModelRun
from torch_bgdebias.probe.passes.settings import EvaluationSettings
from torch_bgdebias.superclasses import Superclasses


class Heads(nn.Module):
    """One head, called on two embeddings; the logits are those of the first call, or of both together."""

    def __init__(self, together):
        super().__init__()
        self.together, self.head = together, nn.Linear(3, 2)

    def forward(self, image):
        first, second = self.head(image.mean((2, 3))), self.head(image.amax((2, 3)))
        return first + second if self.together else first


def embedding_of(model, image):
    run = ModelRun(model, EvaluationSettings(variants=["mixed_rand"]))
    with run.watching() as seen, torch.no_grad():
        return run, [run(image, seen, variant="original", number=n)[1] for n in (0, 1)]


def test_the_call_that_gives_the_logits():
    image = torch.rand(4, 3, 5, 5)
    _, embeddings = embedding_of(Heads(together=False), image)
    for embedding in embeddings:
        torch.testing.assert_close(embedding, image.mean((2, 3)))


def test_calls_side_by_side_have_none():
    run, embeddings = embedding_of(Heads(together=True), torch.rand(4, 3, 5, 5))
    assert embeddings == [None, None]
    assert "head" in run.no_embedding
    assert "got 2 calls in a pass" in run.no_embedding
    named = ModelRun(Heads(together=True), EvaluationSettings(variants=["mixed_rand"], layer="head"))
    with named.watching() as seen, torch.no_grad(), pytest.raises(ValueError, match="got 2 calls in a pass"):
        named(torch.rand(2, 3, 5, 5), seen, variant="original", number=0)


class Ends(nn.Module):
    """Six logits of an image's mean colours, and what a network's end makes of them."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, image):
        z = image.mean((2, 3))
        return self.end(torch.cat([9 * z, 4 - 9 * z], 1))


@pytest.mark.parametrize("how", ["best", "sum"])
@pytest.mark.parametrize(
    "end",
    [lambda z: z.softmax(1), lambda z: 100 * z.softmax(1), lambda z: z.log_softmax(1)],
    ids=["softmax", "per cent", "log-softmax"],
)
def test_superclasses_of_whatever_a_softmax_made(end, how):
    """Several outputs a class are joined after the softmax is undone, and scored as those of the logits."""
    image, logits = torch.rand(8, 3, 5, 5), Superclasses([[0], [1, 2, 4]], how)
    answers = []
    for one in (end, nn.Identity()):
        run = ModelRun(Ends(one), EvaluationSettings(variants=["only_fg"], logits=logits))
        answers.append(run(image, None, variant="original", number=0)[0].softmax(1))
    torch.testing.assert_close(*answers)


def test_superclasses_of_sigmoids_take_the_logits():
    image, logits = torch.rand(8, 3, 5, 5), Superclasses([[0], [1, 2, 4]], "sum")
    answers = []
    for one in (torch.sigmoid, nn.Identity()):
        run = ModelRun(Ends(one), EvaluationSettings(variants=["only_fg"], logits=logits))
        answers.append(run(image, None, variant="original", number=0)[0].softmax(1))
        assert run.sigmoids is (one is torch.sigmoid)
    torch.testing.assert_close(*answers, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("end", "in_unit"),
    [
        (nn.Identity(), False),
        (lambda z: z.softmax(1), False),
        (torch.sigmoid, False),
        (lambda z: z.softmax(1)[:, 1:], True),  # what is left adds up to less than 1
        (lambda z: 1 / (1 + torch.exp(-z)), True),  # by hand
    ],
)
def test_shares_that_are_neither_a_softmax_nor_a_sigmoid_are_noticed(end, in_unit):
    run = ModelRun(Ends(end), EvaluationSettings(variants=["only_fg"]))
    for number in range(2):
        run(torch.rand(8, 3, 5, 5), None, variant="original", number=number)
    assert run.in_unit is in_unit


class OwnHeads(nn.Module):
    """A head a class, each with its own sigmoid, as shares or in per cent."""

    def __init__(self, outputs, whole, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.whole, self.dtype = nn.ModuleList(nn.Linear(3, 1) for _ in range(outputs)), whole, dtype

    def forward(self, image):
        z = [head(image.mean((2, 3))).to(self.dtype) for head in self.heads]
        return torch.cat([self.whole * one.sigmoid() for one in z] if self.whole else z, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("whole", [1, 100])
@pytest.mark.parametrize(("task", "outputs"), [("multiclass", 4), ("multilabel", 4), ("binary", 1)])
def test_sigmoids_of_heads_in_per_cent_are_undone(task, outputs, whole, dtype):
    """They were taken for logits: a softmax of 73 and 12 is sure of anything, and 12 per cent said yes."""
    settings, image = EvaluationSettings(variants=["only_fg"], task=task), torch.rand(8, 3, 5, 5)
    answers = []
    for model in (OwnHeads(outputs, whole, dtype), OwnHeads(outputs, None, dtype)):
        run = ModelRun(model, settings)
        answers.append([run(image, None, variant="original", number=n)[0] for n in (0, 1)][1])
        assert not run.in_unit
        assert not run.in_per_cent
        assert (run.sigmoids, run.probabilities) == (
            (task == "multiclass" and model.whole is not None),
            (task != "multiclass" and model.whole is not None),
        )
    torch.testing.assert_close(*answers, atol=1e-3 if dtype is torch.float32 else 0.1, rtol=0.01)


@pytest.mark.parametrize(
    ("end", "in_per_cent"),
    [
        (lambda z: 100 / (1 + torch.exp(-3 * z)), True),
        (lambda z: 4 * z.relu(), False),
        (lambda z: 100 * z, False),
        (lambda z: 100 * z.softmax(1), False),
    ],
)
def test_per_cent_of_which_no_sigmoid_is_seen_is_noticed(end, in_per_cent):
    run = ModelRun(Ends(end), EvaluationSettings(variants=["only_fg"]))
    run(torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)), None, variant="original", number=0)
    assert run.in_per_cent is in_per_cent
