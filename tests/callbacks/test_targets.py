"""Targets that are no class an image: several labels, one logit, shares of classes. They work, or say which option."""

from __future__ import annotations

import pytest
import small_training as small
import torch
import torch.nn.functional as F
from torch import nn

from torch_bgdebias import BackgroundSwap, BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe, BackgroundSwapCallback, CLADCallback, ISNetCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
BINARY, CROSS_ENTROPY = F.binary_cross_entropy_with_logits, F.cross_entropy


def targets(kind: str) -> torch.Tensor:
    label = small.tensors()[1]
    if kind == "several labels":
        return (torch.rand(len(label), small.CLASSES, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    if kind == "shares of classes":
        return 0.9 * F.one_hot(label, small.CLASSES).float() + 0.1 / small.CLASSES
    binary = (label % 2).float()
    if kind == "one logit of shares":
        return 0.8 * binary[:, None] + 0.1
    return binary[:, None] if kind == "one logit (B, 1)" else binary


def module_for(kind: str):
    loss_of = CROSS_ENTROPY if kind == "shares of classes" else BINARY
    one = kind.startswith("one logit")

    def logits(self, batch):
        output = self(batch[0])
        return output[:, 0] if kind == "one logit (B,)" else output

    def training_step(self, batch, batch_idx):
        return loss_of(logits(self, batch), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", loss_of(logits(self, batch), batch[1]))

    module = small.theirs(training_step=training_step, validation_step=validation_step)
    if one:
        module.net[-1] = nn.Linear(module.net[-1].in_features, 1)
        nn.init.constant_(module.net[-1].weight, 0.1)
        nn.init.zeros_(module.net[-1].bias)
    return module


def batches(kind: str):
    image, _, mask = small.tensors()
    return small.loader(image, targets(kind), mask)


def largest(target):
    return target.argmax(1)


KINDS = ["several labels", "shares of classes", "one logit (B,)", "one logit (B, 1)"]
SWAP = BackgroundSwap("batch")
WORKS = {
    "swap": {kind: {} for kind in KINDS},
    "clad": {kind: {} if kind.startswith("one") else {"label_of": largest} for kind in KINDS},
    "clad+": {
        "several labels": {"label_of": largest, "criterion": BINARY, "plus": True},
        "shares of classes": {"label_of": largest, "criterion": CROSS_ENTROPY, "plus": True},
        "one logit (B,)": {"plus": True},
        "one logit (B, 1)": {"plus": True},
    },
    "isnet": {kind: {"multi_label": True} if kind == "several labels" else {} for kind in KINDS},
    "probe": {
        "several labels": {"task": "multilabel"},
        "shares of classes": {},
        "one logit (B,)": {"task": "binary"},
        "one logit (B, 1)": {"task": "binary"},
    },
}


def make(name: str, **options):
    if name == "swap":
        return BackgroundSwapCallback(SWAP, **options)
    if name == "isnet":
        return ISNetCallback("selective", **options)
    if name == "probe":
        return BackgroundBiasProbe(figures=False, **options)
    return CLADCallback(SWAP, num_negatives=4, **options)


def fit(kind: str, callback):
    module = module_for(kind)
    run = small.trainer([callback], max_epochs=1)
    run.fit(module, batches(kind), batches(kind))
    return module, run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORKS)
def test_works(name, kind):
    module, run = fit(kind, make(name, **WORKS[name][kind]))
    plain, _ = fit(kind, make("swap", schedule=lambda epoch, step: 0.0))
    assert torch.equal(small.weights(module), small.weights(plain)) == (name == "probe"), "otherwise nothing was added"
    assert small.weights(module).isfinite().all()
    logged = {key: float(value) for key, value in run.callback_metrics.items() if "/" in key}
    assert logged
    assert all(value == value for value in logged.values()), logged


def test_a_swap_that_needs_no_label_takes_batches_without():
    image, _, mask = small.tensors()
    module = small.theirs(training_step=lambda self, batch, batch_idx: self(batch[0]).square().mean())
    run = small.trainer([make("swap", spec=BatchSpec(0, None, 1))], max_epochs=1)
    run.fit(module, small.loader(image, mask))
    assert float(run.callback_metrics["background_swap/fraction"]) > 0.5


ASKS = [
    ("several labels", lambda: CLADCallback(SWAP), r"pass label_of=, for example lambda target: target.argmax\(1\)"),
    ("shares of classes", lambda: CLADCallback(SWAP), "multi-label or soft targets pass label_of="),
    (
        "several labels",
        lambda: CLADCallback(SWAP, plus=True, label_of=largest),
        "criterion: .* for multi-label targets pass criterion=F.binary_cross_entropy_with_logits",
    ),
    (
        "shares of classes",
        lambda: CLADCallback(SWAP, plus=True, label_of=largest),
        "for soft labels criterion=F.cross_entropy",
    ),
    (
        "several labels",
        lambda: BackgroundSwapCallback(BackgroundSwap("batch", different_class=True)),
        r"BackgroundSwap\(different_class=False\), which needs no labels, or BatchSpec\(label=function",
    ),
    ("one logit (B, 1)", lambda: BackgroundBiasProbe(figures=False), "task='binary' for a model with one logit"),
    (
        "one logit of shares",
        lambda: BackgroundBiasProbe(figures=False),
        "label: expected integer classes .* pass task='binary' for a model with one logit",
    ),
]


@pytest.mark.parametrize(("kind", "ask", "text"), ASKS)
def test_what_is_needed_is_asked_for_by_the_options_name(kind, ask, text):
    with pytest.raises((TypeError, ValueError), match=text):
        fit(kind, ask())


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
@pytest.mark.parametrize("name", ["clad+", "isnet"])
def test_images_mixed_inside_the_step_are_noticed(name, how):
    def training_step(self, batch, batch_idx):
        image, label = batch[0], batch[1]
        order = torch.arange(len(image)).roll(1)
        if how == "mixup":
            mixed, share = 0.7 * image + 0.3 * image[order], 0.7
        else:
            mixed, share = image.clone(), 0.5
            mixed[..., :4] = image[order][..., :4]
        logits = self(mixed)
        return share * F.cross_entropy(logits, label) + (1 - share) * F.cross_entropy(logits, label[order])

    callback = make(name, **({"plus": True} if name == "clad+" else {}))
    with pytest.warns(UserWarning, match="training_step changes the images before .* mix"):
        small.trainer([callback], max_epochs=1).fit(small.theirs(training_step=training_step), small.loader())
