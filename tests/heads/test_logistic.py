"""The logistic regression against scikit-learn's, and what its cross-validation must not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from torch_bgdebias.heads import logistic
from torch_bgdebias.heads.logistic import (
    PenaltyScore,
    Views,
    best_penalty,
    choose_penalty,
    dealt_folds,
    end_of_range,
    fit_logistic,
    words_on_end,
)


def views(images: int = 60, classes: int = 3, dim: int = 5, copies: int = 1, seed: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(images) % classes
    label[: images // 4] = 0  # classes of unequal size
    centre = torch.randn(classes, dim, generator=generator)
    noise = torch.randn(1 + copies, images, dim, generator=generator)
    scale = torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0])[:dim]
    return Views((centre[label] + noise) * scale + 2, label, torch.arange(images))


def objective(v: Views, weight: torch.Tensor, bias: torch.Tensor, penalty: float) -> torch.Tensor:
    """The definition, with loops: mean over classes of the mean loss of their images, and the ridge."""
    features = v.embedding.double().flatten(0, 1)
    std = features.std(0, correction=0)
    target = v.label.repeat(len(v.embedding))
    loss = F.cross_entropy(features @ weight.T + bias, target, reduction="none")
    by_class = [loss[target == k].mean() for k in range(len(weight))]
    return torch.stack(by_class).mean() + penalty / 2 * (weight * std).square().sum()


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_the_gradient_at_the_minimum_is_zero(penalty):
    v = views()
    head = fit_logistic(v, 3, penalty, original_weight=1)
    weight, bias = (part.clone().requires_grad_() for part in head)
    value = objective(v, weight, bias, penalty)
    for gradient in torch.autograd.grad(value, (weight, bias)):
        assert gradient.abs().max() < 1e-4
    assert value < objective(v, weight.detach() * 1.01, bias, penalty)


def test_as_scikit_learn_has_it():
    linear_model = pytest.importorskip("sklearn.linear_model")
    v, penalty = views(), 0.03
    features = v.embedding.double().flatten(0, 1)
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    target = v.label.repeat(2)
    # scikit-learn: |w|^2 / 2 + C * (sum of weighted losses); "balanced" weighs by M / (K * images of the class)
    fit = linear_model.LogisticRegression(
        C=1 / (penalty * len(target)), class_weight="balanced", tol=1e-10, max_iter=5000
    )
    expected = torch.as_tensor(fit.fit(standardised.numpy(), target.numpy()).decision_function(standardised.numpy()))
    logits = fit_logistic(v, 3, penalty, original_weight=1).logits(features)
    centred = logits - logits.mean(1, keepdim=True)
    assert torch.allclose(centred, expected - expected.mean(1, keepdim=True), atol=2e-4)


def test_a_start_changes_the_way_and_not_the_minimum():
    v = views()
    cold = fit_logistic(v, 3, 1e-2)
    warm = fit_logistic(v, 3, 1e-2, start=fit_logistic(v, 3, 1.0))
    assert torch.allclose(cold.weight, warm.weight, atol=1e-4)


def test_groups_stay_together_and_classes_are_judged_alike():
    """Copies of one photograph under several numbers would leak: with groups, chance is told as chance."""
    generator = torch.Generator().manual_seed(1)
    photographs = torch.randn(20, 40, generator=generator)  # labels have nothing to do with them
    label = torch.arange(20) % 2
    embedding = photographs.repeat_interleave(4, 0)[None].expand(2, -1, -1) + 0.01 * torch.randn(
        2, 80, 40, generator=generator
    )
    many = label.repeat_interleave(4)
    alone = Views(embedding, many, torch.arange(80))
    leaking = choose_penalty(alone, 2, [1e-2], dealt_folds(alone, 4, torch.Generator().manual_seed(0)))
    grouped = Views(embedding, many, torch.arange(20).repeat_interleave(4))
    honest = choose_penalty(grouped, 2, [1e-2], dealt_folds(grouped, 4, torch.Generator().manual_seed(0)))
    assert leaking[0].swapped > 0.95
    assert honest[0].swapped < 0.8


@pytest.mark.parametrize("penalty", [0, -1.0, float("nan")])
def test_penalty_is_positive(penalty):
    with pytest.raises(ValueError, match="penalty: expected a number above 0, got"):
        fit_logistic(views(), 3, penalty)


def test_missing_class_and_single_group_are_named():
    v = views()
    with pytest.raises(ValueError, match=r"an image of each of 4 classes, got none of \[3\]"):
        fit_logistic(v, 4, 0.1)
    alone = v._replace(group=torch.zeros(60, dtype=torch.int64))
    with pytest.raises(ValueError, match="groups: expected at least two groups"):
        choose_penalty(alone, 3, [0.1, 1.0], dealt_folds(alone, 4, torch.Generator().manual_seed(0)))


def test_the_error_is_that_of_a_mean_and_copies_of_one_photograph_do_not_make_it_smaller():
    right = (torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) < 0.7).float()
    label = torch.zeros(50, dtype=torch.int64)
    v = Views(torch.zeros(3, 50, 1), label, torch.arange(50))
    score = logistic._score(0.1, right, v, original_weight=0.5)
    both = (0.5 * right[0] + right[1:].mean(0)) / 1.5
    assert score.both == pytest.approx(float(both.mean()))
    assert score.error == pytest.approx(float(both.std(correction=0)) / 50**0.5, rel=1e-5)
    many = Views(torch.zeros(3, 200, 1), label.repeat(4), torch.arange(50).repeat(4))
    repeated = logistic._score(0.1, right.repeat(1, 4), many, original_weight=0.5)
    assert repeated == pytest.approx(score)


def test_the_strongest_within_one_error_of_the_best_is_taken():
    def score(penalty: float, both: float, error: float = 0.02) -> PenaltyScore:
        return PenaltyScore(penalty, both, both, both, error)

    assert best_penalty([score(1.0, 0.6), score(0.1, 0.69), score(0.01, 0.7)]) == 0.1
    assert best_penalty([score(1.0, 0.6), score(0.1, 0.69), score(0.01, 0.7, error=0.005)]) == 0.01


def test_the_search_goes_on_while_the_best_is_at_an_end(monkeypatch):
    """With accuracies by a rule: how far it goes, by which steps, and that it starts from the nearest solution."""
    v = views()
    fold = dealt_folds(v, 4, torch.Generator().manual_seed(0))
    starts: list[tuple[float, float | None]] = []

    def search(peak: float, **options) -> tuple[float, ...]:
        starts.clear()

        def fit(views, num_classes, penalty, *, start, **_):
            starts.append((penalty, None if start is None else float(start.bias[0])))
            return logistic.LinearHead(torch.zeros(num_classes, 5).double(), torch.full((num_classes,), penalty))

        def score(penalty, is_right, views, original_weight):
            both = 0.9 - 0.1 * abs(math.log10(penalty / peak))
            return PenaltyScore(penalty, both, both, both, 0.01)

        monkeypatch.setattr(logistic, "fit_logistic", fit)
        monkeypatch.setattr(logistic, "_score", score)
        return tuple(s.penalty for s in choose_penalty(v, 3, (0.03, 0.1, 0.3, 1.0, 3.0), fold, **options))

    start = (3.0, 1.0, 0.3, 0.1, 0.03)
    assert search(0.3, beyond=True) == start
    assert search(1e-3) == start, "those that were asked for, and no others"
    assert search(1e-3, beyond=True) == (*start, 0.01, 0.003, 0.001, 0.0003), "one past the best"
    assert starts[::4][-1] == (0.0003, pytest.approx(0.001))
    assert search(100.0, beyond=True) == (300.0, 100.0, 30.0, 10.0, *start)
    assert starts[::4][-2:] == [(100.0, pytest.approx(30.0)), (300.0, pytest.approx(100.0))]
    assert search(1e-9, beyond=True) == (*start, 0.01, 0.003, 0.001, 0.0003, 0.0001, 3e-5), "three decades and no more"
    assert search(1e9, beyond=True)[:2] == (3000.0, 1000.0)


def test_what_was_left_by_the_range_is_won_by_the_search():
    """Many weak and noisy features, of which a stronger penalty makes more."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(80) % 2
    signal = 0.2 * (2 * label.float()[:, None] - 1).expand(-1, 100)
    v = Views(signal + torch.randn(3, 80, 100, generator=generator), label, torch.arange(80))
    fold = dealt_folds(v, 4, torch.Generator().manual_seed(0))
    narrow = choose_penalty(v, 2, (1e-3, 1e-2), fold)
    wide = choose_penalty(v, 2, (1e-3, 1e-2), fold, beyond=True)
    assert end_of_range(narrow) == "strongest"
    assert [s.penalty for s in wide] == [0.1, 0.03, 0.01, 0.001], "0.1 is no better than 0.03: no end any more"
    assert max(s.both for s in wide) > max(s.both for s in narrow)
    for penalty in (1e-3, 1e-2):  # the same scores as before
        of = [next(s for s in scores if s.penalty == penalty) for scores in (narrow, wide)]
        assert of[0] == of[1]


def test_the_end_of_the_range_is_told_where_it_holds_the_best():
    def scores(*both: float) -> list[PenaltyScore]:
        penalties = [10.0**-number for number in range(len(both))]  # strongest first, as they are tried
        return [PenaltyScore(*values, 0.02) for values in zip(penalties, both, both, both, strict=True)]

    assert end_of_range(scores(0.5, 0.6, 0.7)) == "weakest"
    assert end_of_range(scores(0.7, 0.6, 0.5)) == "strongest"
    assert end_of_range(scores(0.5, 0.7, 0.6)) is None
    assert end_of_range(scores(0.7, 0.7, 0.6)) is None, "the one within is as good"
    assert end_of_range(scores(0.7)) is None
    assert end_of_range(scores(0.9, 1.0)) is None, "nothing is left to gain"
    assert words_on_end(scores(0.5, 0.7, 0.6)) == ""
    assert words_on_end(scores(0.5, 0.6, 0.7)).endswith(
        "penalties=(0.001, 0.003, 0.01, 0.1, 1) (--penalties 0.001,0.003,0.01,0.1,1)"
    )
    assert "the best one, 1 (70.0% right), is the strongest of those that were tried (0.01 to 1)" in words_on_end(
        scores(0.7, 0.6, 0.5)
    )
