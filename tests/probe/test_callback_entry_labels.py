"""Labels, thresholds and orders of steps that are written by hand: compared, or said not to be; plain ones measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from probe_modules import Cheat, fit
from probe_toy import K, ToyImages
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe


class OneLogit(Cheat):
    """Above 0 where the background is that of class 1."""

    def forward(self, image):
        return (image[:, 0, 0, 0] - 0.05) * 30 + image[:, 2, 0, 0]


class Scores(Cheat):
    """Reads the background; its prototypes are as far away as they are unlike it."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = nn.Sequential(nn.Flatten(), nn.Linear(300, K))

    def forward(self, image):
        return self.reader(image) + self.rest(image)

    def distances(self, image):
        return 40 - self(image)


def measured(kind: type, step: Callable[..., object], *, classes: int = K, **options):
    module = type("Theirs", (kind,), {"validation_step": lambda self, batch, batch_idx: step(self, *batch[:2])})()
    probe = BackgroundBiasProbe(figures=False, budget=None, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        val = DataLoader(ToyImages(96, classes=classes), batch_size=8)
        trainer = fit(module, probe, epochs=1, val=val)
    said = " ".join(str(one.message) for one in caught if "BackgroundBiasProbe" in str(one.message))
    return trainer.callback_metrics, probe.report, said


def by_hand(module, x: Tensor, y: Tensor) -> None:
    p = torch.sigmoid(module(x))
    module.log("loss", -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean())


def hinge(module, x: Tensor, y: Tensor) -> None:
    module.log("loss", F.relu(1 - (2 * y - 1) * module(x)).mean())


def focal(module, x: Tensor, y: Tensor) -> None:
    p = 1 / (1 + torch.exp(-module(x)))
    module.log("loss", -(y * (1 - p) ** 2 * p.log() + (1 - y) * p**2 * (1 - p).log()).mean())


def hits(module, x: Tensor, y: Tensor) -> None:
    module.log("acc", ((torch.sigmoid(module(x)) > 0.5) == y).float().mean())


@pytest.mark.parametrize("step", [by_hand, hinge, focal, hits])
def test_labels_of_one_logit_that_a_step_turns_round(step) -> None:
    metrics, report, said = measured(OneLogit, step, classes=2, task="binary")
    assert said == ""
    assert report.settings["images_enter"].endswith("in the 12 batch(es) that were looked at")
    assert metrics["bias/acc_original"] == 1
    turned = lambda module, x, y: step(module, x, 1 - y)  # noqa: E731
    metrics, report, said = measured(OneLogit, turned, classes=2, task="binary")
    assert report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert "its own step judges by other labels than those of the batch" in said
    advised = BatchSpec(label=lambda batch: 1 - batch[1])
    metrics, report, said = measured(OneLogit, turned, classes=2, task="binary", spec=advised)
    assert said == ""
    assert metrics["bias/acc_original"] == 0


def signs(y: Tensor) -> Tensor:
    return 2.0 * y - 1


#: losses of an answer times labels of -1 and 1
MARGINS = {
    "logistic": lambda z, y: F.softplus(-signs(y) * z),
    "logistic, the product negated": lambda z, y: F.softplus(-(signs(y) * z)),
    "logistic, labels turned round": lambda z, y: F.softplus((1 - 2.0 * y) * z),
    "logarithm": lambda z, y: torch.log1p(torch.exp(-signs(y) * z)),
    "exponential": lambda z, y: torch.exp(-(signs(y) * z) / 2),
    "likelihood": lambda z, y: -F.logsigmoid(z * signs(y)),
    "hinge": lambda z, y: torch.clamp(1 - signs(y) * z, min=0),
    "hinge of whole numbers": lambda z, y: F.relu(1 - (2 * y - 1) * z),
}


@pytest.mark.parametrize("name", MARGINS)
def test_which_way_a_loss_of_signs_goes(name: str) -> None:
    loss = MARGINS[name]
    _, report, said = measured(OneLogit, lambda m, x, y: m.log("loss", loss(m(x), y).mean()), classes=2, task="binary")
    assert said == ""
    assert report is not None
    for turned in (lambda z, y: loss(-z, y), lambda z, y: loss(z, 1 - y)):
        step = lambda m, x, y, turned=turned: m.log("loss", turned(m(x), y).mean())  # noqa: E731
        _, report, said = measured(OneLogit, step, classes=2, task="binary")
        assert report is None, said


def test_a_check_of_what_was_computed_is_no_threshold() -> None:
    def checked(module, x, y):
        z = module(x)
        assert (z < 1e4).all()
        assert (z > -1e4).all()
        module.log("acc", ((z > 0) == y).float().mean())

    metrics, _, said = measured(OneLogit, checked, classes=2, task="binary")
    assert said == ""
    assert metrics["bias/acc_original"] == metrics["acc"]


def test_a_threshold_that_is_not_at_a_half() -> None:
    def at(threshold):
        return lambda module, x, y: module.log("acc", ((torch.sigmoid(module(x)) > threshold) == y).float().mean())

    metrics, report, said = measured(OneLogit, at(0.9), classes=2, task="binary")
    assert report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert "says yes from another threshold on than a probability of a half" in said
    moved = {"task": "binary", "forward": lambda module, image: module(image) - math.log(0.9 / 0.1)}
    metrics, report, said = measured(OneLogit, at(0.9), classes=2, **moved)
    assert said == ""
    assert metrics["bias/acc_original"] == metrics["acc"]


def test_the_end_of_an_order_is_told_from_its_beginning() -> None:
    def nearest(module, x, y):
        module.log("acc", (torch.sort(module.distances(x), 1).indices[:, 0] == y).float().mean())

    def best(module, x, y):
        module.log("acc", (torch.sort(module(x), 1).indices[:, -1] == y).float().mean())

    for step in (nearest, best):
        metrics, report, said = measured(Scores, step)
        assert said == ""
        assert metrics["bias/acc_original"] == metrics["acc"]

    def farthest(module, x, y):
        module.log("acc", (torch.sort(module(x), 1).indices[:, 0] == y).float().mean())

    metrics, report, said = measured(Scores, farthest)
    assert report is None
    assert "judges answers (4 numbers an image) that its forward does not return" in said


def in_numpy(change: Callable[[Tensor], Tensor] = lambda y: y) -> Callable[..., None]:
    def step(module, x, y):
        predicted, label = module(x).argmax(1).cpu().numpy(), change(y).cpu().numpy()
        module.log("acc", float((predicted == label).mean()))

    return step


def test_labels_in_numpy_are_taken_as_the_batch_has_them() -> None:
    metrics, report, said = measured(Scores, in_numpy())
    assert "does not measure" not in said
    assert "the labels that it is judged by leave the step's tensors" in said
    assert report.settings["images_enter"].endswith("by which labels was not seen, those of the batch are taken")
    assert metrics["bias/acc_original"] == metrics["acc"]
    table = torch.tensor([1, 2, 3, 0])
    metrics, report, said = measured(Scores, in_numpy(lambda y: table[y]))
    assert report is None
    assert "makes other labels of those of the batch, and what it judges by them is not seen" in said
    advised = {
        "spec": BatchSpec(label=lambda batch: table[batch[1]]),
        "forward": lambda module, image: module(image),
    }
    metrics, report, said = measured(Scores, in_numpy(lambda y: table[y]), **advised)
    assert said == ""
    assert metrics["bias/acc_original"] == metrics["acc"]


def test_labels_that_are_changed_in_place_before_numpy() -> None:
    for change in (lambda y: y.sub_(1), lambda y: y.clone().sub_(1), lambda y: y.masked_fill_(y == 1, 2)):
        _, report, said = measured(Scores, in_numpy(change))
        assert report is None
        assert "makes other labels of those of the batch" in said
    _, report, said = measured(Scores, in_numpy(lambda y: y.clamp_(0, K)))
    assert report is not None


def test_sets_of_labels_that_a_step_changes() -> None:
    def sets(batch):
        return F.one_hot(batch[1], K) + F.one_hot((batch[1] + 1) % K, K)

    def step(module, x, y, moved=0):
        z = module(x)
        module.log("loss", F.binary_cross_entropy_with_logits(z, sets((x, y)).float().roll(moved, 1)))

    options = {"task": "multilabel", "spec": BatchSpec(label=sets), "metrics": ["accuracy", "bg_gap"]}
    _, report, said = measured(Scores, step, **options)
    assert said == ""
    assert report is not None
    _, report, said = measured(Scores, lambda module, x, y: step(module, x, y, 1), **options)
    assert report is None
    assert "judges by other labels" in said


def metrics() -> dict[str, nn.Module]:
    """Of torchmetrics: what keeps a table of hits or all scores, what asks whether scores are probabilities."""
    kinds = pytest.importorskip("torchmetrics").classification
    return {
        "macro": kinds.MulticlassAccuracy(K, average="macro"),
        "matrix": kinds.MulticlassConfusionMatrix(K),
        "scores": kinds.MulticlassAUROC(K),
        "binary": kinds.BinaryAccuracy(),
        "binary scores": kinds.BinaryAUROC(),
        "a threshold": kinds.BinaryAccuracy(threshold=0.3),
    }


@pytest.mark.parametrize("turned", [False, True], ids=["as they are", "other labels"])
@pytest.mark.parametrize("name", ["macro", "matrix", "scores", "binary", "binary scores", "a threshold"])
def test_metrics_of_torchmetrics(name: str, turned: bool) -> None:
    binary, metric = name in ("binary", "binary scores", "a threshold"), metrics()[name]
    kind, classes, options = (OneLogit, 2, {"task": "binary"}) if binary else (Scores, K, {})
    step = lambda module, x, y: metric(module(x), (y + turned) % classes)  # noqa: E731
    _, report, said = measured(kind, step, classes=classes, **options)
    refused = turned or name == "a threshold"
    assert (report is None) == ("does not measure" in said) == refused, said
