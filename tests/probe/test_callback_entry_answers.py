"""Steps that judge by losses, distances and metrics of their own: another layer than forward's last is noticed."""

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

from torch_bgdebias.callbacks import BackgroundBiasProbe


class Features(Cheat):
    """Forward returns features, of which a layer of the classes makes logits and prototypes make distances."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head, self.prototypes = nn.Linear(K, K), nn.Parameter(torch.randn(K, K))
        self.kept: list[tuple[Tensor, Tensor]] = []

    def logits(self, image: Tensor) -> Tensor:
        return self.head(self(image))

    def distances(self, image: Tensor) -> Tensor:
        return torch.cdist(self(image), self.prototypes)


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, K).float()


def keep(module: Features, values: Tensor, y: Tensor) -> None:
    module.kept.append((values, y))


def by_logits(module: Features, image: Tensor) -> Tensor:
    return module.logits(image)


def by_distances(module: Features, image: Tensor) -> Tensor:
    return -module.distances(image)


#: a validation step -> what it judges
STEPS: dict[str, tuple[Callable[[Features, Tensor, Tensor], object], Callable[[Features, Tensor], Tensor]]] = {
    "argmin": (lambda m, x, y: m.distances(x).argmin(1) == y, by_distances),
    "min": (lambda m, x, y: m.distances(x).min(1).indices == y, by_distances),
    "cross-entropy by hand": (lambda m, x, y: (one_hot(y) * m.logits(x).log_softmax(1)).sum(), by_logits),
    "Brier": (lambda m, x, y: F.mse_loss(m.logits(x).softmax(1), one_hot(y)), by_logits),
    "squares": (lambda m, x, y: F.mse_loss(m.logits(x), one_hot(y)), by_logits),
    "margins": (lambda m, x, y: F.multi_margin_loss(m.logits(x), y), by_logits),
    "kept": (lambda m, x, y: keep(m, m.logits(x), y), by_logits),
    "returned": (lambda m, x, y: m.logits(x), by_logits),
}


def step_of(judge: Callable[[Features, Tensor, Tensor], object]) -> Callable[..., object]:
    return lambda self, batch, batch_idx: judge(self, batch[0], batch[1])


def measured(module: Cheat, **options):
    probe = BackgroundBiasProbe(figures=False, budget=None, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(module, probe, epochs=1, val=DataLoader(ToyImages(40), batch_size=8))
    said = " ".join(str(one.message) for one in caught if "BackgroundBiasProbe" in str(one.message))
    return trainer.callback_metrics, probe.report, said


@pytest.mark.parametrize("name", STEPS)
def test_what_goes_on_from_forward_is_not_measured_as_forward(name: str) -> None:
    judge, judged = STEPS[name]
    kind = type("Theirs", (Features,), {"validation_step": step_of(judge)})
    metrics, report, said = measured(kind())
    assert report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert "judges answers (4 numbers an image) that its forward does not return" in said
    assert "pass forward=lambda module, image: ..." in said
    metrics, report, said = measured(kind(), forward=judged)
    assert said == ""
    images = torch.stack([image for image, _, _ in ToyImages(40)])
    with torch.no_grad():
        winners = judged(kind().eval(), images).argmax(1)
    assert report.images.prediction["original"].tolist() == winners[torch.from_numpy(report.images.position)].tolist()


@pytest.mark.parametrize("name", STEPS)
def test_what_forward_returns_is_measured_however_it_is_judged(name: str) -> None:
    judge, judged = STEPS[name]

    class Theirs(Features):
        validation_step = step_of(judge)

        def forward(self, image):
            features = super().forward(image)
            return self.head(features) if judged is by_logits else -torch.cdist(features, self.prototypes)

        def logits(self, image):
            return self(image)

        def distances(self, image):
            return -self(image)

    metrics, report, said = measured(Theirs())
    assert said == ""
    unseen = "; by which labels was not seen, those of the batch are taken" * (name in ("kept", "returned"))
    assert report.settings["images_enter"].endswith(f"in the 5 batch(es) that were looked at{unseen}")
    assert not math.isnan(metrics["bias/bg_gap"])


def test_what_is_judged_when_the_validation_ends_is_not_seen() -> None:
    class Neighbours(Features):
        """Keeps features, whose neighbours' labels are what counts."""

        def validation_step(self, batch, batch_idx):
            self.kept.append((self(batch[0]), batch[1]))

        def on_validation_epoch_end(self):
            features, label = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
            nearest = (torch.cdist(features, features) + 1e9 * torch.eye(len(label))).argmin(1)
            self.log("val_acc", (label[nearest] == label).float().mean())

    metrics, report, said = measured(Neighbours())
    assert report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert "its own step judges nothing, and what its on_validation_epoch_end does is not seen" in said
    advised = measured(Neighbours(), forward=lambda module, image: module(image))
    assert advised[2] == ""
    assert advised[0]["bias/acc_original"] == 1


def test_a_loss_of_shares_is_judged_whatever_the_end_of_the_validation_does() -> None:
    """One-hot labels in a loss, and predictions in numpy for the end, as camera traps' classifiers have them."""

    class Collects(Cheat):
        def __init__(self, turned: int = 0) -> None:
            super().__init__()
            self.turned, self.kept = turned, []

        def validation_step(self, batch, batch_idx):
            logits, label = self(batch[0]), one_hot((batch[1] + self.turned) % K)
            self.log("val_loss", F.cross_entropy(logits, label))
            self.kept.append((logits.cpu().numpy(), label.cpu().numpy()))

        def on_validation_epoch_end(self):
            self.kept.clear()

    metrics, report, said = measured(Collects())
    assert said == ""
    assert report is not None
    assert metrics["bias/acc_original"] == 1
    assert measured(Collects(1))[1] is None
