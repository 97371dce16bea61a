"""What a step judges is seen, and told from what a forward returns by more than its winners."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_bgdebias.probe.passes.judged import Judgements, answers_in, same_answers

B, K = 12, 5


def logits(seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, K, generator=torch.Generator().manual_seed(seed)) * scale


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


STEPS = {
    "cross-entropy": lambda z, y: F.cross_entropy(z, y),
    "smoothed": lambda z, y: nn.CrossEntropyLoss(label_smoothing=0.1)(z, y),
    "shares": lambda z, y: F.cross_entropy(z, 0.9 * F.one_hot(y, K) + 0.1 / K),
    "argmax": lambda z, y: (z.argmax(1) == y).float().mean(),
    "max": lambda z, y: z.max(1).indices == y,
    "topk": lambda z, y: z.topk(2).indices,
    "of each label": lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, K).float()),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_is_judged_is_noted_with_its_labels(name: str) -> None:
    z, y = logits(), torch.arange(B) % K
    with torch.inference_mode(), Judgements(B, lambda: True) as judged:
        STEPS[name](z, y)
    assert len(judged.outputs) == 1
    assert same_answers(judged.outputs[0], z, task="multiclass")
    takes_labels = name in ("cross-entropy", "smoothed", "shares", "argmax", "max", "of each label")
    assert (judged.agree(y) is not None) == takes_labels
    if takes_labels:
        assert judged.agree(y)
        assert not judged.agree((y + 1) % K)


SMALLEST = {
    "argmin": lambda d: d.argmin(1),
    "min": lambda d: d.min(1).indices,
    "topk": lambda d: d.topk(2, 1, largest=False).indices,
    "topk by place": lambda d: torch.topk(d, 2, 1, False).indices,
}


@pytest.mark.parametrize("name", SMALLEST)
def test_of_distances_the_smallest_is_judged(name: str) -> None:
    distances = logits().abs()
    with Judgements(B, lambda: True) as judged:
        SMALLEST[name](distances)
    (output,) = judged.outputs
    assert torch.equal(output, -distances[:8])
    assert not same_answers(output, distances, task="multiclass")


#: losses and metrics of somebody's own, of a layer of the classes that is written as a function
BY_HAND = {
    "cross-entropy": lambda z, y: -(F.one_hot(y, K) * z.log_softmax(1)).sum(1).mean(),
    "Brier": lambda z, y: F.mse_loss(z.softmax(1), F.one_hot(y, K).float()),
    "a margin": lambda z, y: F.multi_margin_loss(z, y),
    "a threshold": lambda z, y: (z > 0).float().mean(),
    "squares": lambda z, y: F.mse_loss(z, F.one_hot(y, K).float()),
    "nothing": lambda z, y: None,
}


#: the same with labels that can be told: as places, or written as 0 and 1
WITH_LABELS = {
    "one-hot times log-softmax": BY_HAND["cross-entropy"],
    "one-hot times minus log-softmax": lambda z, y: (-z.log_softmax(1) * F.one_hot(y, K)).sum(),
    "log of a softmax": lambda z, y: -(z.softmax(1).clamp_min(1e-8).log() * F.one_hot(y, K).float()).sum(),
    "gather": lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).mean(),
    "places": lambda z, y: -z.log_softmax(1)[torch.arange(B), y].mean(),
    "focal": lambda z, y: (1 - z.softmax(1).gather(1, y[:, None])) ** 2,
    "Brier": BY_HAND["Brier"],
    "Brier by hand": lambda z, y: (z.softmax(1) - F.one_hot(y, K)).square().mean(),
    "a margin": BY_HAND["a margin"],
    "squares": BY_HAND["squares"],
    "cross-entropy of shares": lambda z, y: F.cross_entropy(z, 0.9 * F.one_hot(y, K) + 0.1 / K),
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_of_losses_of_ones_own_are_known(name: str, inference: bool) -> None:
    z, y = logits(), torch.arange(B) % K
    with torch.inference_mode(inference), Judgements(B, lambda: True) as judged:
        WITH_LABELS[name](z, y)
    assert judged.agree(y)
    assert not judged.agree((y + 1) % K)


def test_another_networks_probabilities_are_no_labels() -> None:
    z, y = logits(), torch.arange(B) % K
    with Judgements(B, lambda: True) as judged:
        (-z.log_softmax(1) * logits().roll(1, 0).softmax(1)).sum()
        z.softmax(1) * torch.rand(B, K)
    assert judged.agree(y)


def test_confidences_of_predictions_are_no_labels() -> None:
    z, y = logits(), torch.arange(B) % K
    assert not torch.equal(z.argmax(1), y)
    with Judgements(B, lambda: True) as judged:
        scores = z.softmax(1)
        scores.gather(1, scores.argmax(1)[:, None]).mean()
    assert judged.agree(y)


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_taken_of_a_layer_is_known_by_what_it_is_taken_of(name: str, inference: bool) -> None:
    features, weight, y = torch.randn(B, 7), torch.randn(K, 7), torch.arange(B) % K
    with torch.inference_mode(inference), Judgements(B, lambda: True) as judged:
        BY_HAND[name](F.linear(features, weight), y)
    assert judged.outputs == []
    seen = answers_in(judged.last)
    assert seen
    assert all(same_answers(one, features @ weight.T, task="multiclass") for one in seen)


def test_what_a_step_returns_may_be_judged_by_others() -> None:
    z, other = logits(), logits(1)
    with Judgements(B, lambda: True) as judged:
        other.softmax(1)
        judged.returned({"loss": z.sum(), "logits": z, "names": ["a"] * B})
    assert [same_answers(one, z, task="multiclass") for one in judged.last] == [False, True]


def test_a_network_that_runs_is_left_alone() -> None:
    class Net(nn.Module):
        def forward(self, x):
            modes.append(torch.utils._python_dispatch._get_current_dispatch_mode())
            return F.softmax(x, 1)

    modes: list[object] = []
    z, net = logits(), Net()
    with Judgements(B, lambda: True) as judged:
        judged.pause()
        net(z).argmax(1)
        judged.pause()
        judged.resume()
        z.argmax(1)
        judged.resume()
        z.roll(1, 1).argmax(1)
    assert modes == [None]
    assert [torch.equal(one, z.roll(1, 1)[:8]) for one in judged.outputs] == [True]


def test_what_is_no_judgement_of_the_step_is_passed_over() -> None:
    z, y = logits(), torch.arange(B) % K
    with Judgements(B, lambda: True) as judged:
        F.one_hot(y, K).float().argmax(1)  # labels
        z[:3].argmax(1)  # another batch
        y.float().max()  # no output
        torch.rand(B, K, 4, 4).argmax(1)  # a map
    assert [tuple(one.shape) for one in answers_in(judged.outputs)] == [(8,)]
    with Judgements(B, lambda: False) as inside:
        F.cross_entropy(z, y)
    assert inside.outputs == inside.last == []
    assert inside.agree(y) is None


def test_a_prediction_is_not_taken_for_the_label_it_is_compared_with() -> None:
    z, y = logits(), torch.arange(B) % K
    for other in (y, (z.argmax(1) + 1) % K):
        with Judgements(B, lambda: True) as judged:
            (z.argmax(1) == other).float().mean()
        assert judged.agree(other)
        assert not judged.agree(z.argmax(1))
    with Judgements(B, lambda: True) as judged:
        (z.argmax(1) == z.argmax(1).clone()).sum()
    assert judged.agree(z.argmax(1))  # all right


@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_the_labels_of_one_logit(shape) -> None:
    z, y = logits()[:, :1].reshape(shape), torch.arange(B) % 2
    with Judgements(B, lambda: True) as judged:
        F.binary_cross_entropy_with_logits(z, y.float().reshape(shape))
    assert judged.agree(y)
    assert not judged.agree(1 - y)
    with Judgements(B, lambda: True) as judged:
        F.binary_cross_entropy(z.sigmoid(), 0.8 * y.float().reshape(shape) + 0.1)
        ((z > 0).long() == y.reshape(shape)).float().mean()
    assert judged.agree(y)
    assert not judged.agree(1 - y)


def test_labels_that_are_written_as_zeros_and_ones_are_no_prediction() -> None:
    z, y = logits(), torch.arange(B) % K
    with Judgements(B, lambda: True) as judged:
        (z.argmax(1) == F.one_hot(y, K).float().argmax(1)).float().mean()
    assert judged.agree(y)
    assert not judged.agree(z.argmax(1))
