"""What a step judges is seen, and by which labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_bgdebias.probe.passes.answers import same_answers
from torch_bgdebias.probe.passes.judged import Judgements

B, K = 12, 5
Y, TWO = torch.arange(B) % K, torch.arange(B) % 2


def logits(seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, K, generator=torch.Generator().manual_seed(seed)) * scale


def watched(judge, *values, sets: bool = False, inference: bool = True) -> Judgements:
    """A step's judgement of what a network has returned, the first value, by the rest."""
    with torch.inference_mode(inference), Judgements(B, lambda: True, sets=sets) as judged:
        judged.answered(values[0])
        judge(*values)
    return judged


def verdict(judged: Judgements, label: torch.Tensor) -> str:
    agreement = judged.agree(label)
    if agreement is None:
        return "unseen"
    words = {"other": agreement.other, "changed": agreement.changed, "same": agreement.seen}
    return next((word for word, flag in words.items() if bool(flag)), "unseen")


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
    z = logits()
    judged = watched(STEPS[name], z, Y)
    (output,) = judged.answers.of("output")
    assert same_answers(output, z, task="multiclass")
    takes_labels = name != "topk"
    assert verdict(judged, Y) == ("same" if takes_labels else "unseen")
    assert verdict(judged, (Y + 1) % K) == ("other" if takes_labels else "unseen")


#: of distances
SMALLEST = {
    "argmin": lambda d: d.argmin(1),
    "min": lambda d: d.min(1).indices,
    "topk": lambda d: d.topk(2, 1, largest=False).indices,
    "topk by place": lambda d: torch.topk(d, 2, 1, False).indices,
    "sort": lambda d: torch.sort(d, 1).indices[:, 0],
    "sort of rows": lambda d: d.sort().indices[:, :2],
    "stable sort": lambda d: d.sort(dim=1, stable=True)[1][:, 0],
    "argsort": lambda d: d.argsort(1)[:, 0],
    "a stable argsort": lambda d: torch.argsort(d, dim=1, stable=True)[:, :1],
    "all of a sort": lambda d: d.sort(1).indices,
    "image by image": lambda d: [order[i][:2] for order in [d.argsort(1)] for i in range(B)],
    "images the other way round": lambda d: d.argsort(1).flip(0)[:, 0],
    "the end of a sort downwards": lambda d: d.argsort(1, descending=True)[:, -1],
    "turned round, the end": lambda d: d.argsort(1).flip(1)[:, -1],
    "its last ones": lambda d: d.sort(1, descending=True).indices[:, -2:],
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", SMALLEST)
def test_of_distances_the_smallest_is_judged(name: str, inference: bool) -> None:
    distances = logits().abs()
    judged = watched(SMALLEST[name], distances, inference=inference)
    (output,) = judged.answers.of("output")
    assert torch.equal(output, -distances[:8])
    assert not same_answers(output, distances, task="multiclass")


LARGEST = {
    "sort downwards": lambda z: z.sort(1, descending=True).indices[:, 0],
    "argsort downwards": lambda z: torch.argsort(z, 1, True)[:, :2],
    "the end of a sort": lambda z: z.sort(1).indices[:, -1],
    "the last place": lambda z: z.argsort(1)[:, K - 1],
    "the last ones": lambda z: z.argsort(1)[:, -3:],
    "from the last places on": lambda z: z.argsort(1)[:, K - 2 :],
    "turned round": lambda z: z.argsort(1).flip(1)[:, :2],
    "image by image": lambda z: [order[i][:2] for order in [z.argsort(1, descending=True)] for i in range(B)],
    "the last image": lambda z: z.argsort(1, descending=True)[-1],
    "two largest values": lambda z: (v := z.sort(1).values)[:, -1] - v[:, -2],
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", LARGEST)
def test_of_scores_the_largest_is_judged(name: str, inference: bool) -> None:
    z = logits()
    judged = watched(LARGEST[name], z, inference=inference)
    (output,) = judged.answers.of("output")
    assert torch.equal(output, z[:8])


def test_of_what_has_no_classes_none_is_largest() -> None:
    z = logits()
    for judge in (
        lambda z: z.min(),
        lambda z: z.max(),
        lambda z: torch.max(z, -z),
        lambda z: z.argmin(),
        lambda z: z.topk(3, 0, largest=False),
        lambda z: z.topk(3, dim=-2),
    ):
        assert watched(judge, z).answers.of("output") == []
    for judge in (
        lambda s: s.sort(),
        lambda s: s.argsort(0, descending=True),
        lambda s: s.topk(3, 0),
        lambda s: s.max(0),
    ):
        assert watched(judge, z[:, 0].clone()).answers.of("output") == []  # an order of images


#: losses and metrics of somebody's own, of a layer of the classes that is written as a function
BY_HAND = {
    "cross-entropy": lambda z, y: -(F.one_hot(y, K) * z.log_softmax(1)).sum(1).mean(),
    "Brier": lambda z, y: F.mse_loss(z.softmax(1), F.one_hot(y, K).float()),
    "a margin": lambda z, y: F.multi_margin_loss(z, y),
    "a threshold": lambda z, y: (z > 0).float().mean(),
    "squares": lambda z, y: F.mse_loss(z, F.one_hot(y, K).float()),
    "nothing": lambda z, y: None,
}


#: the same with labels that can be told, however they are written
WITH_LABELS = {
    "one-hot times log-softmax": BY_HAND["cross-entropy"],
    "one-hot times minus log-softmax": lambda z, y: (-z.log_softmax(1) * F.one_hot(y, K)).sum(),
    "log of a softmax": lambda z, y: -(z.softmax(1).clamp_min(1e-8).log() * F.one_hot(y, K).float()).sum(),
    "a softmax by hand": lambda z, y: -(z.exp() / z.exp().sum(1, keepdim=True)).log()[torch.arange(B), y].mean(),
    "logsumexp": lambda z, y: (z.logsumexp(1) - z.gather(1, y[:, None])[:, 0]).mean(),
    "gather": lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).mean(),
    "places": lambda z, y: -z.log_softmax(1)[torch.arange(B), y].mean(),
    "one-hot as a mask": lambda z, y: -z.log_softmax(1)[F.one_hot(y, K).bool()].mean(),
    "rows of the identity": lambda z, y: -(z.log_softmax(1) * torch.eye(K)[y]).sum(),
    "scattered": lambda z, y: -(z.log_softmax(1) * torch.zeros(B, K).scatter_(1, y[:, None], 1.0)).sum(),
    "a comparison with all classes": lambda z, y: -(z.log_softmax(1) * (y[:, None] == torch.arange(K))).sum(),
    "focal": lambda z, y: (1 - z.softmax(1).gather(1, y[:, None])) ** 2,
    "Brier": BY_HAND["Brier"],
    "Brier by hand": lambda z, y: (z.softmax(1) - F.one_hot(y, K)).square().mean(),
    "a margin": BY_HAND["a margin"],
    "an additive margin": lambda z, y: F.cross_entropy(z - 0.3 * F.one_hot(y, K), y),
    "squares": BY_HAND["squares"],
    "cross-entropy of shares": lambda z, y: F.cross_entropy(z, 0.9 * F.one_hot(y, K) + 0.1 / K),
    "divergence": lambda z, y: F.kl_div(z.log_softmax(1), 0.9 * F.one_hot(y, K) + 0.02, reduction="sum"),
    "only some rows": lambda z, y: F.cross_entropy(z[y != 9], y[y != 9]),
    "equal": lambda z, y: z.argmax(1).eq(y).float().mean(),
    "unequal": lambda z, y: (z.argmax(1) != y).float().mean(),
    "a difference": lambda z, y: (z.argmax(1) - y).abs().clamp_max(1),
    "first k": lambda z, y: z.topk(3, 1).indices.t().eq(y.view(1, -1).expand(3, B)).sum(),
    "first k of rows": lambda z, y: (z.topk(3, 1).indices == y[:, None]).any(1),
    "isin": lambda z, y: (z.argsort(1, descending=True)[:, :2] == y.unsqueeze(-1).expand(B, 2)).sum(),
    "a table of hits": lambda z, y: torch.bincount(y * K + z.argmax(1), minlength=K * K),
    "class by class": lambda z, y: [((z.argmax(1) == c) & (y == c)).sum() for c in range(K)],
    "class by class, the class first": lambda z, y: [((c == z.argmax(1)) & (c == y)).sum() for c in torch.arange(K)],
    "class against rest": lambda z, y: [((z.argmax(1) == c) == (y == c)).sum() for c in range(K)],
    "recall of a class": lambda z, y: (z.argmax(1) == 2)[y == 2].float().mean(),
    "classes that are there": lambda z, y: [(z.argmax(1)[y == c] == c).sum() for c in torch.unique(y)],
    "where": lambda z, y: torch.where(z.argmax(1) == y, 1.0, 0.0).mean(),
    "one-hot hits": lambda z, y: F.one_hot(z.argmax(1), K).mul(F.one_hot(y, K)).sum(),
}
OTHERS = {
    "the next class": lambda y: (y + 1) % K,
    "a table": lambda y: torch.tensor([4, 2, 0, 1, 3])[y],
    "two for one": lambda y: torch.where(y == 3, 0, y),
    "from one on": lambda y: y - (y > 1).long(),
    "other rows": lambda y: y.flip(0),
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_of_losses_and_hits_of_ones_own_are_known(name: str, inference: bool) -> None:
    assert verdict(watched(WITH_LABELS[name], logits(), Y, inference=inference), Y) == "same"
    for change in OTHERS.values():
        judged = watched(lambda z, y: WITH_LABELS[name](z, change(y)), logits(), Y, inference=inference)  # noqa: B023
        assert verdict(judged, Y) == "other"


#: of one logit
OF_TWO = {
    "cross-entropy": lambda z, p, y: -(y * p.log() + (1 - y) * (1 - p).log()).mean(),
    "cross-entropy, negated first": lambda z, p, y: (-y * p.log() - (1 - y) * torch.log(1 - p)).mean(),
    "cross-entropy in floats": lambda z, p, y: -(y.float() * p.log() + (1.0 - y.float()) * torch.log1p(-p)).mean(),
    "smoothed": lambda z, p, y: -((0.9 * y + 0.05) * p.log() + (1 - (0.9 * y + 0.05)) * (1 - p).log()).mean(),
    "of logits": lambda z, p, y: (z.clamp_min(0) - z * y + torch.log1p(torch.exp(-z.abs()))).mean(),
    "softplus": lambda z, p, y: F.softplus(-(2 * y - 1) * z).mean(),
    "hinge": lambda z, p, y: (1 - (2 * y - 1) * z).clamp_min(0).mean(),
    "hinge of signs": lambda z, p, y: F.relu(1 - torch.where(y == 1, 1.0, -1.0) * z).mean(),
    "squares": lambda z, p, y: (p - y).square().mean(),
    "focal": lambda z, p, y: -(y * (1 - p) ** 2 * p.log() + (1 - y) * p**2 * (1 - p).log()).mean(),
    "focal of the right one": lambda z, p, y: -((1 - torch.where(y == 1, p, 1 - p)) ** 2).mean(),
    "weighted": lambda z, p, y: torch.where(y == 1, 3.0, 1.0) * F.binary_cross_entropy(p, y.float(), reduction="none"),
    "two groups": lambda z, p, y: -(p[y == 1].log().sum() + (1 - p[y == 0]).log().sum()),
    "where": lambda z, p, y: -torch.where(y.bool(), p.log(), (1 - p).log()).mean(),
    "where not": lambda z, p, y: -torch.where(~y.bool(), (1 - p).log(), p.log()).mean(),
    "where below": lambda z, p, y: -torch.where(y < 1, (1 - p).log(), p.log()).mean(),
    "a threshold": lambda z, p, y: ((p > 0.5) == y).float().mean(),
    "a threshold of bools": lambda z, p, y: ((p > 0.5) == y.bool()).float().mean(),
    "a threshold, equal": lambda z, p, y: (z >= 0).long().eq(y).float().mean(),
    "a threshold, where": lambda z, p, y: (torch.where(p > 0.5, 1, 0) == y).float().mean(),
    "rounded": lambda z, p, y: (p.round() == y).float().mean(),
    "signs": lambda z, p, y: (z.sign() == 2 * y - 1).float().mean(),
    "a difference": lambda z, p, y: 1 - ((p > 0.5).float() - y).abs().mean(),
    "counts": lambda z, p, y: [((p > 0.5) & (y == 1)).sum(), ((p > 0.5) & (y == 0)).sum()],
    "products": lambda z, p, y: ((p > 0.5).float() * y).sum() / y.sum(),
    "sorted by score": lambda z, p, y: (
        torch.arange(1, B + 1) - y.reshape(-1)[p.reshape(-1).argsort(descending=True)].cumsum(0)
    ),
}
OTHERS_OF_TWO = {
    "the other way round": lambda y: 1 - y,
    "by hand": lambda y: torch.where(y == 1, 0, 1),
    "a table": lambda y: torch.tensor([1, 0])[y],
    "bitwise": lambda y: y ^ 1,
    "as a number": lambda y: (y == 0).long(),
    "other rows": lambda y: y.roll(1),
}


@pytest.mark.parametrize("column", [False, True], ids=["one number", "a column"])
@pytest.mark.parametrize("name", OF_TWO)
def test_labels_of_one_logit_are_known(name: str, column: bool) -> None:
    shape = (B, 1) if column else (B,)
    z = logits()[:, :1].reshape(shape).clone()

    def judged(change=lambda y: y, inference=True):
        def run(z, y):
            return OF_TWO[name](z, z.sigmoid(), change(y).reshape(shape))

        return watched(run, z, TWO, inference=inference)

    assert verdict(judged(), TWO) == verdict(judged(inference=False), TWO) == "same"
    for change in OTHERS_OF_TWO.values():
        assert verdict(judged(change), TWO) == "other"


def test_sets_of_labels_are_known() -> None:
    sets = (torch.rand(B, K, generator=torch.Generator().manual_seed(1)) > 0.5).long()
    steps = (
        lambda z, y: F.binary_cross_entropy_with_logits(z, y.float()),
        lambda z, y: -(y * z.sigmoid().log() + (1 - y) * (1 - z.sigmoid()).log()).mean(),
        lambda z, y: ((z > 0) == y.bool()).float().mean(),
        lambda z, y: F.multilabel_soft_margin_loss(z, y),
    )
    for step in steps:
        assert verdict(watched(step, logits(), sets, sets=True), sets) == "same"
        for change in (lambda y: 1 - y, lambda y: y.roll(1, 1), lambda y: y * (torch.arange(K) > 0)):
            judged = watched(lambda z, y: step(z, change(y)), logits(), sets, sets=True)  # noqa: B023
            assert verdict(judged, sets) == "other"


def test_labels_that_nobody_sees_used_are_not_known() -> None:
    def kept(z, y):
        return [(z.argmax(1).numpy() == y.numpy()).mean(), list(zip(z.tolist(), y.tolist(), strict=True))]

    assert verdict(watched(kept, logits(), Y), Y) == "unseen"
    assert verdict(watched(lambda z, y: kept(z, (y + 1) % K), logits(), Y), Y) == "changed"
    assert verdict(watched(lambda z, y: kept(z, y.long().view(-1).cpu()), logits(), Y), Y) == "unseen"


def test_what_meets_answers_and_is_no_label_contradicts_nothing() -> None:
    groups, weights = torch.arange(B) // 4, torch.rand(B, generator=torch.Generator().manual_seed(2))

    def judge(z, y):
        losses = F.cross_entropy(z, y, reduction="none") * weights
        hits = z.argmax(1) == y
        return losses.mean(), [hits[groups == g].float().mean() for g in range(3)], hits.float() * weights

    assert verdict(watched(judge, logits(), Y), Y) == "same"
    assert verdict(watched(lambda z, y: judge(z, (y + 1) % K), logits(), Y), Y) == "other"


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_taken_of_a_layer_is_known_by_what_it_is_taken_of(name: str, inference: bool) -> None:
    features, weight = torch.randn(B, 7), torch.randn(K, 7)
    judged = watched(lambda x: BY_HAND[name](F.linear(x, weight), Y), features, inference=inference)
    assert judged.answers.of("output") == []
    seen = judged.answers.candidates
    assert seen
    assert all(same_answers(one, features @ weight.T, task="multiclass") for one in seen)


def test_another_networks_probabilities_are_no_labels() -> None:
    def judge(z, other, y):
        (-z.log_softmax(1) * other.softmax(1)).sum()
        z.softmax(1) * torch.rand(B, K)

    assert verdict(watched(judge, logits(), logits().roll(1, 0), Y), Y) == "unseen"


def test_confidences_of_predictions_are_no_labels() -> None:
    def judge(z):
        scores = z.softmax(1)
        return scores.gather(1, scores.argmax(1)[:, None]).mean()

    assert verdict(watched(judge, logits()), Y) == "unseen"


def test_what_a_step_returns_may_be_judged_by_others() -> None:
    z, other = logits(), logits(1)
    with Judgements(B, lambda: True) as judged:
        judged.answered((z, other))
        other.softmax(1)
        judged.returned({"loss": z.sum(), "logits": z, "names": ["a"] * B})
    assert [same_answers(one, z, task="multiclass") for one in judged.answers.of("last")] == [False, True]


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
        judged.resume(z)
        z.argmax(1)
        judged.resume(z)
        z.roll(1, 1).argmax(1)
    assert modes == [None]
    assert [torch.equal(one, z.roll(1, 1)[:8]) for one in judged.answers.of("output")] == [True]


def test_what_is_no_judgement_of_the_step_is_passed_over() -> None:
    def judge(z, y):
        F.one_hot(y, K).float().argmax(1)  # labels
        z[:3].argmax(1)  # another batch
        y.float().max()  # no output
        torch.rand(B, K, 4, 4).argmax(1)  # a map

    assert watched(judge, logits(), Y).answers.candidates == []
    with Judgements(B, lambda: False) as inside:
        F.cross_entropy(logits(), Y)
    assert inside.answers.candidates == []
    assert inside.agree(Y) is None


def test_steps_of_empty_batches_and_of_sparse_tensors_run_as_ever() -> None:
    def judge(z, y):
        torch.sparse.mm(torch.eye(len(z)).to_sparse(), z).sigmoid()
        torch.eye(len(z), K).to_sparse() * z
        return F.cross_entropy(z, y), (z.argmax(1) == y).sum(), (z > 0).sum()

    with torch.inference_mode(), Judgements(0, lambda: True) as empty:
        empty.answered(logits()[:0])
        judge(logits()[:0], Y[:0])
    assert verdict(watched(judge, logits(), Y), Y) == "same"


def test_a_prediction_is_not_taken_for_the_label_it_is_compared_with() -> None:
    z = logits()
    for other in (Y, (z.argmax(1) + 1) % K):
        judged = watched(lambda z, y: (z.argmax(1) == y).float().mean(), z, other)
        assert verdict(judged, other) == "same"
        assert verdict(judged, z.argmax(1)) == "other"
    right = watched(lambda z, y: (z.argmax(1) == y).sum(), z, z.argmax(1).clone())
    assert verdict(right, z.argmax(1)) == "same"


@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_thresholds_are_noted(shape) -> None:
    z = logits()[:, :1].reshape(shape).clone()
    at = {0.3: True, 0.5: False, torch.tensor(0.5): False}
    for threshold, elsewhere in at.items():
        answers = watched(lambda z: z.sigmoid() > threshold, z).answers  # noqa: B023
        assert answers.cut_elsewhere(z, task="binary") == elsewhere
    asked = watched(lambda z: ((z.sigmoid() >= 0) & (z.sigmoid() <= 1)).all(), z).answers
    assert asked.of("cut") == []
    assert watched(lambda z: z.round(decimals=2), z).answers.of("cut") == []  # for a table
    for judge in (torch.round, torch.sign):
        (cut,) = watched(lambda z: judge(z.sigmoid() if judge is torch.round else z), z).answers.of("cut")  # noqa: B023
        assert cut.reshape(-1)[0] == pytest.approx(float(z.reshape(-1)[0]), abs=1e-4)
    below = watched(lambda z: z.sigmoid() < 0.5, z).answers
    assert below.of("cut")[0].reshape(-1)[0] == pytest.approx(-float(z.reshape(-1)[0]), abs=1e-4)
