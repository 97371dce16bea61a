"""Steps that judge something else than forward's answer: no number, and the option that gives the right one."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from probe_modules import Cheat, fit
from probe_toy import K, ToyImages, cheat
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe


class Judges(Cheat):
    """Its answers hang on every pixel a little; a step logs the accuracy of what it judges."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = nn.Sequential(nn.Flatten(), nn.Linear(300, K))
        self.drop = nn.Dropout(0.9)

    def forward(self, image):
        return self.reader(image) + 2 * self.rest(image)

    def validation_step(self, batch, batch_idx):
        logits, label = self.judged(batch[0], batch_idx), batch[1]
        self.log("loss", F.cross_entropy(logits, label))
        self.log("val_acc", (logits.argmax(1) == label).float().mean())

    def judged(self, image, batch_idx):
        return self(image)


def flipped_too(module, image):
    return (module(image) + module(image.flip(3))) / 2


def in_one_batch(module, image):
    views = module(torch.cat([image, image.flip(2), image.roll(1, 3)]))
    return views.softmax(1).view(3, len(image), K).mean(0)


def five_crops(module, image):
    crops = torch.stack([image.roll(shift, 3) for shift in range(5)], 1)
    return module(crops.flatten(0, 1)).view(len(image), 5, K).mean(1)


def scales(module, image):
    larger = F.interpolate(F.interpolate(image, scale_factor=2), size=image.shape[2:])
    return torch.stack([module(image), module(F.avg_pool2d(image, 3, 1, 1)), module(larger + 0.01)]).mean(0)


class Teaches(Judges):
    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Sequential(nn.Flatten(), nn.Linear(300, K))


class Several(Judges):
    """An ensemble; forward is its first member."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(300, K)) for _ in range(3)])

    def forward(self, image):
        return self.members[0](image)


def by_teacher(module, image):
    return module.teacher(image)


def all_members(module, image):
    return sum(member(image) for member in module.members)


#: what a step judges -> the module, and what the warning says
JUDGED: dict[Callable, tuple[type, str]] = {
    flipped_too: (Judges, "it runs 2 times in one validation step, on different images"),
    in_one_batch: (Judges, r"it is given 12 images in 1 call\(s\) for the 4 of the batch"),
    five_crops: (Judges, r"it is given 20 images in 1 call\(s\) for the 4 of the batch"),
    scales: (Judges, "it runs 3 times in one validation step, on different images"),
    by_teacher: (Teaches, "its own step also runs|its own step runs its part 'teacher'|also runs teacher"),
    all_members: (Several, "its own step also runs members.1 and members.2 on the images"),
    lambda module, image: module(image) + torch.tensor([0.0, 4, 0, 0]): (Judges, "judges answers .4 numbers an image."),
    lambda module, image: module(image).roll(1, 1): (Judges, "judges answers .4 numbers an image. that its forward"),
}


def measured(module, **options):
    probe = BackgroundBiasProbe(figures=False, budget=None, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(module, probe, epochs=1, val=DataLoader(ToyImages(80), batch_size=4))
    said = " ".join(str(one.message) for one in caught if "BackgroundBiasProbe" in str(one.message))
    return trainer.callback_metrics, probe.report, said


@pytest.mark.parametrize("number", range(len(JUDGED)))
def test_what_a_step_judges_besides_is_not_measured_in_silence(number: int) -> None:
    judged, (kind, problem) = list(JUDGED.items())[number]
    torch.manual_seed(3)
    module = type("Theirs", (kind,), {"judged": lambda self, image, batch_idx: judged(self, image)})()
    metrics, report, said = measured(module)
    assert report is None
    assert math.isnan(metrics["bias/bg_gap"])
    assert re.search(f"does not measure Theirs: .*({problem}).*; pass .*forward=", said)
    metrics, report, said = measured(module, forward=judged)
    assert said == ""
    assert metrics["bias/acc_original"] == metrics["val_acc"]
    assert report.bg_gap.value == pytest.approx(float(metrics["bias/bg_gap"]))


def test_dropout_masks_that_are_averaged() -> None:
    class Draws(Judges):
        def forward(self, image):
            return F.dropout(super().forward(image), 0.5, training=True)

        def judged(self, image, batch_idx):
            return torch.stack([self(image) for _ in range(20)]).mean(0)

    class InTheHead(Judges):
        def judged(self, image, batch_idx):
            self.drop.train()
            return torch.stack([self.drop(self(image)) for _ in range(20)]).mean(0)

    for kind, problem in ((Draws, "runs 20 times .* answers the same images differently"), (InTheHead, "runs|judges")):
        metrics, _, said = measured(kind())
        assert math.isnan(metrics["bias/bg_gap"])
        assert re.search(f"does not measure {kind.__name__}: .*{problem}.*forward=lambda module, image", said)


def features(module, image):
    return module.online(module(image))


def test_a_head_that_the_forward_lacks() -> None:
    class Probed(Judges):
        """Self-supervised: forward gives features, a linear head of its own is judged."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.online = nn.Sequential(nn.Flatten(), nn.Linear(300, 16)), nn.Linear(16, K)

        def forward(self, image):
            return self.body(image)

        def judged(self, image, batch_idx):
            return self.online(self(image).detach())

    metrics, report, said = measured(Probed())
    assert report is None
    assert "its own step judges answers (4 numbers an image) that its forward does not return" in said
    module = Probed()
    metrics, report, said = measured(module, forward=features)
    assert said == ""
    assert metrics["bias/acc_original"] == metrics["val_acc"]


class Shifts(Judges):
    """Takes its loss with other labels."""

    def validation_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self(batch[0]), (batch[1] + 1) % K))


class Counts(Judges):
    """Counts hits with other labels."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == (batch[1] + 1) % K).float().mean())


class ShiftsByHand(Judges):
    """Takes a loss of its own with other labels."""

    def validation_step(self, batch, batch_idx):
        one_hot = F.one_hot((batch[1] + 1) % K, K)
        self.log("loss", -(one_hot * self(batch[0]).log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize("kind", [Shifts, ShiftsByHand, Counts])
def test_labels_that_a_step_changes(kind: type) -> None:
    metrics, report, said = measured(kind())
    assert report is None
    assert "judges by other labels than those of the batch" in said
    assert "BatchSpec(label=lambda batch: ...)" in said

    def shifted(batch):
        return (batch[1] + 1) % K

    metrics, report, said = measured(kind(), spec=BatchSpec(label=shifted))
    assert said == ""
    assert report.settings["images_enter"].endswith("in the 20 batch(es) that were looked at")
    assert float(metrics["bias/acc_original"]) < 0.5
    if kind is Counts:
        assert metrics["bias/acc_original"] == metrics["val_acc"]


def once_in_twenty(change):
    def judged(self, image, batch_idx):
        return self(change(image) if batch_idx == 15 else image)

    return judged


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_change_of_one_batch_in_twenty_is_seen(stage: str) -> None:
    changes = (lambda x: x.flip(3), lambda x: x + 0.05 * torch.randn_like(x), lambda x: x * 0.8)
    for change in changes:
        kind = type("Rarely", (Judges,), {"judged": once_in_twenty(change)})
        kind.test_step = kind.validation_step
        if stage == "fit":
            metrics, report, said = measured(kind())
        else:
            metrics, report, said = in_a_test(kind())
        assert report is None
        assert math.isnan(metrics["bias/bg_gap"])
        assert "Rarely: the module's own step changes the images of some batches in another way (at random?)" in said


def in_a_test(module):
    probe = BackgroundBiasProbe(figures=False, budget=None)
    trainer = fit(module, epochs=1)
    trainer.callbacks.append(probe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.test(module, DataLoader(ToyImages(80), batch_size=4), verbose=False)
    said = " ".join(str(one.message) for one in caught if "BackgroundBiasProbe" in str(one.message))
    return trainer.callback_metrics, probe.report, said


class Taught(Teaches):
    """A teacher for a loss; the student is judged."""

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.log("kl", F.kl_div(logits.log_softmax(1), self.teacher(batch[0]).softmax(1), reduction="batchmean"))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())


class Twice(Judges):
    """Loss and accuracy of two calls; a temperature, a softmax."""

    def validation_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self(batch[0]) / 3, batch[1]))
        self.log("val_acc", (self(batch[0]).softmax(1).argmax(1) == batch[1]).float().mean())


class WholeBatch(Judges):
    """Answers from a whole batch at once."""

    def forward(self, image):
        return super().forward(image - image.mean(0))


class Named(Judges):
    def forward(self, image):
        return {"scores": super().forward(image), "features": image.flatten(1)}

    def judged(self, image, batch_idx):
        return self(image)["scores"]


@pytest.mark.parametrize("kind", [Judges, Taught, Twice, WholeBatch, Named])
def test_what_judges_the_forward_s_own_answer_is_measured(kind: type) -> None:
    torch.manual_seed(3)
    module = kind()
    metrics, report, said = measured(module, logits="scores" if kind is Named else None)
    assert said == ""
    assert report.settings["images_enter"] == "as in the module's own step, in the 20 batch(es) that were looked at"
    if kind is not WholeBatch:  # the probe's batches are others
        assert metrics["bias/acc_original"] == metrics["val_acc"]


def test_the_module_s_own_step_is_back_and_a_failing_one_too() -> None:
    class Fails(Judges):
        def judged(self, image, batch_idx):
            if batch_idx == 3:
                raise KeyError("theirs")
            return self(image)

    module = Fails()
    with pytest.raises(KeyError, match="theirs"):
        measured(module)
    assert "validation_step" not in vars(module)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
    module = Judges()
    measured(module)
    assert "validation_step" not in vars(module)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


def test_compiled_and_scripted_parts_are_compared() -> None:
    whole, compiled, scripted = Judges(), Judges(), Judges()
    whole.reader = torch.compile(nn.Sequential(whole.reader), backend="eager")
    compiled.rest = torch.compile(compiled.rest, backend="eager")
    scripted.rest = torch.jit.script(scripted.rest)
    for module in (whole, compiled, scripted):
        metrics, report, said = measured(module)
        assert "does not measure" not in said
        assert report.settings["images_enter"].endswith("in the 20 batch(es) that were looked at")
        assert metrics["bias/acc_original"] == metrics["val_acc"]


def test_a_cheat_beside_is_no_longer_taken_for_the_network() -> None:
    """The wrong number that a plain call gave: the module's forward reads the background, what it judges does not."""

    class Honest(Teaches):
        def judged(self, image, batch_idx):
            return self.teacher(image) + 0 * self(image)

        def forward(self, image):
            return cheat()(image)

    _, report, said = measured(Honest())
    assert report is None
    assert "does not measure Honest" in said
