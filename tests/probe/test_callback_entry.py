"""The probe measures what the module sees, or says that it does not; in every stage, and never in silence."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import pytorch_lightning as pl
import small_training
import torch
from probe_modules import Cheat, Plain, fit
from probe_toy import K, ToyImages, cheat
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.callbacks import BackgroundBiasProbe
from torch_bgdebias.probe import EvaluationSettings, evaluate_background_bias


class NormalisesInItsStep(Cheat):
    """Its network reads the background of images in [-1, 1], which its steps make; its forward takes those."""

    def forward(self, image):
        return self.reader((image + 1) / 2)

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0] * 2 - 1).argmax(1) == batch[1]).float().mean())


class FlipsInItsStep(Cheat):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0].flip(3)).argmax(1) == batch[1]).float().mean())


def test_a_normalisation_inside_the_step_is_measured_as_it_is() -> None:
    probe = BackgroundBiasProbe()
    trainer = fit(NormalisesInItsStep(), probe, epochs=1)
    expected = evaluate_background_bias(
        cheat(), DataLoader(ToyImages(40), batch_size=40), variants=["mixed_same", "mixed_rand"]
    )
    metrics = trainer.callback_metrics
    assert metrics["bias/acc_original"] == metrics["val_acc"] == 1
    assert float(metrics["bias/bg_gap"]) == pytest.approx(expected.bg_gap.value)
    assert "channels times [2.0, 2.0, 2.0] plus [-1.0, -1.0, -1.0]" in probe.report.settings["preprocess"]
    said = probe.report.settings["images_enter"]
    assert re.fullmatch(r"as in the module's own step, in the 6 batch\(es\) that were looked at", said)


def test_what_cannot_be_told_is_said_and_no_number_given() -> None:
    probe = BackgroundBiasProbe()
    with pytest.warns(UserWarning, match=r"does not measure FlipsInItsStep: it is given the batch's images changed"):
        trainer = fit(FlipsInItsStep(), probe, epochs=2)
    assert probe.report is None
    for name in ("bg_gap", "abs_gap", "worst_variant"):
        assert math.isnan(trainer.callback_metrics[f"bias/{name}"])
    assert "bias/acc_original" not in trainer.callback_metrics
    flipping = BackgroundBiasProbe(preprocess=lambda image: image.flip(3))
    metrics = fit(FlipsInItsStep(), flipping, epochs=1).callback_metrics
    assert metrics["bias/acc_original"] == metrics["val_acc"]
    assert flipping.report.settings["preprocess"].endswith("<lambda>")


class AtRandom(Cheat):
    """What happens to a batch before the network has it; the first one is left as it is."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def validation_step(self, batch, batch_idx):
        self(self.change(batch[0]) if batch_idx % 4 == 2 else batch[0])


def test_what_a_step_does_to_some_batches_only_is_seen() -> None:
    with pytest.warns(UserWarning, match=r"does not measure AtRandom: it is given the batch's images changed"):
        trainer = fit(AtRandom(lambda image: image.flip(3)), BackgroundBiasProbe(), epochs=1)
    assert math.isnan(trainer.callback_metrics["bias/bg_gap"])
    with pytest.warns(
        UserWarning, match="AtRandom: the module's own step changes images in another way in every batch"
    ):
        trainer = fit(AtRandom(lambda image: image * 0.5 + 0.1), BackgroundBiasProbe(), epochs=1)
    assert math.isnan(trainer.callback_metrics["bias/bg_gap"])
    probe = BackgroundBiasProbe()
    fit(AtRandom(lambda image: image), probe, epochs=2)
    said = probe.report.settings["images_enter"]
    assert "in the 12 batch(es) that were looked at; by which labels was not seen" in said


def test_a_step_that_runs_another_network_than_forward_is_not_measured() -> None:
    class Averaged(Cheat):
        def __init__(self) -> None:
            super().__init__()
            self.theirs = nn.Sequential(cheat())

        def validation_step(self, batch, batch_idx):
            self.theirs(batch[0])

    with pytest.warns(UserWarning, match="its own step runs its part 'theirs', and its forward 'reader'"):
        assert math.isnan(fit(Averaged(), BackgroundBiasProbe(), epochs=1).callback_metrics["bias/bg_gap"])
    probe = BackgroundBiasProbe(forward=lambda module, image: module.theirs(image))
    assert fit(Averaged(), probe, epochs=1).callback_metrics["bias/acc_original"] == 1


class Alone(Cheat):
    """Its step runs no network."""

    def validation_step(self, batch, batch_idx):
        self.log("mean", batch[0].mean())


class Flat(Cheat):
    """Its step runs a part that is given no picture."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(3 * 10 * 10, 1)

    def validation_step(self, batch, batch_idx):
        self.log("mean", self.scores(batch[0].flatten(1)).mean())


class Silent(Alone):
    """Nor does its training step, of the network that is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight.square()


SHOWN = {
    Silent: r"could not be seen .*may measure another .*module\(image\) if",
    Flat: r"judges answers \(1 numbers an image\) that its forward does not return",
}


@pytest.mark.parametrize("kind", SHOWN)
def test_no_number_where_a_step_shows_nothing_of_the_network(kind: type) -> None:
    with pytest.warns(UserWarning, match=SHOWN[kind]) as caught:
        assert math.isnan(fit(kind(), BackgroundBiasProbe(), epochs=2).callback_metrics["bias/bg_gap"])
    assert sum("does not measure" in str(one.message) for one in caught) == 1
    advised = BackgroundBiasProbe(forward=lambda module, image: module(image))
    assert fit(kind(), advised, epochs=1).callback_metrics["bias/acc_original"] == 1


@pytest.mark.parametrize("how", ["as it is", "normalised", "flipped"])
def test_where_the_validation_step_runs_nothing_the_training_step_shows_how_images_enter(how: str) -> None:
    class Trains(Alone):
        def training_step(self, batch, batch_idx):
            image = {"as it is": batch[0], "normalised": batch[0] * 0.5 + 0.1, "flipped": batch[0].flip(3)}[how]
            return nn.functional.cross_entropy(self(image), batch[1])

    probe, module = BackgroundBiasProbe(), Trains()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = fit(module, probe, epochs=2).callback_metrics
    assert "training_step" not in vars(module)
    refused = any("could not be seen" in str(one.message) for one in caught)
    assert refused == math.isnan(metrics["bias/bg_gap"]) == (how == "flipped")
    if how == "flipped":
        return
    assert probe.report.settings["images_enter"].endswith(
        "training step, in the first 2 batch(es); its validation step runs nothing"
    )
    assert ("preprocess" in str(probe.report.settings) and "0.5" in str(probe.report.settings["preprocess"])) == (
        how == "normalised"
    )


def test_without_a_training_a_validation_step_that_runs_nothing_gets_no_number() -> None:
    probe = BackgroundBiasProbe()
    with pytest.warns(UserWarning, match="could not be seen"):
        small_training.trainer([probe]).validate(Alone(), DataLoader(ToyImages(40), batch_size=8), verbose=False)
    assert probe.report is None


def test_what_is_seen_in_a_later_epoch_is_told_then() -> None:
    class Turns(Cheat):
        def validation_step(self, batch, batch_idx):
            self(batch[0].flip(3) if self.current_epoch else batch[0])

    with pytest.warns(UserWarning, match="does not measure Turns") as caught:
        metrics = fit(Turns(), BackgroundBiasProbe(), epochs=3).callback_metrics
    assert math.isnan(metrics["bias/bg_gap"])
    assert sum("does not measure" in str(one.message) for one in caught) == 1


@pytest.mark.parametrize("flips", [False, True])
def test_validation_batches_of_another_layout_than_the_probe_s_own_loader(flips) -> None:
    class Dicts(Cheat):
        def validation_step(self, batch, batch_idx):
            image = batch["pixels"].flip(3) if flips else batch["pixels"]
            self.log("val_acc", (self(image).argmax(1) == batch["y"]).float().mean())

    probe = BackgroundBiasProbe(DataLoader(ToyImages(40), batch_size=40))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = fit(
            Dicts(), probe, epochs=1, val=DataLoader(ToyImages(40, kind="dict"), batch_size=8)
        ).callback_metrics
    said = [str(one.message) for one in caught if "BackgroundBiasProbe" in str(one.message)]
    assert [("changed in a way" in text) for text in said if "enter" in text or "changed" in text] == [True] * flips
    assert math.isnan(metrics["bias/bg_gap"]) is flips


def of_a_part(module, image):
    return module.net(image)


@pytest.mark.parametrize("first", [True, False], ids=["averaging first", "probe first"])
@pytest.mark.parametrize("reads", ["probe", "concepts"])
def test_weights_that_were_exchanged_for_the_validation_are_not_taken_for_the_validated_ones(reads, first) -> None:
    """What averages weights puts the module's own back when the validation ends, before or after the measurement."""

    class Averaging(pl.Callback):
        def on_validation_epoch_start(self, trainer, pl_module):
            self.own = pl_module.weight.detach().clone()
            pl_module.weight.data.fill_(5.0)

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.weight.data.copy_(self.own)

    class Reading(Cheat):
        def forward(self, image):
            right = self.reader(image)
            return right if float(self.weight) == 5 else right.roll(1, 1)

    callback = BackgroundBiasProbe() if reads == "probe" else small_training.make_concepts(forward=of_a_part)
    order = [Averaging(), callback][:: 1 if first else -1]
    if first:
        with pytest.warns(
            UserWarning, match="its weights were exchanged between the batches .* list this callback before"
        ):
            metrics = fit(Reading(), *order, epochs=1).callback_metrics
        assert (
            math.isnan(metrics["bias/bg_gap"]) if reads == "probe" else not any("concepts/" in key for key in metrics)
        )
    else:
        metrics = fit(Reading(), *order, epochs=1).callback_metrics
        assert metrics["bias/acc_original"] == 1 if reads == "probe" else any("concepts/" in key for key in metrics)


@pytest.mark.parametrize("error", [IndexError, AssertionError])
def test_a_forward_of_another_kind_is_told_what_to_pass(error: type[Exception]) -> None:
    class OfBatches(Cheat):
        def forward(self, batch):
            assert error is IndexError or isinstance(batch, dict)
            return self.reader(batch["image"])

        def validation_step(self, batch, batch_idx):
            self({"image": batch[0]})

    with pytest.raises(error) as caught:
        fit(OfBatches(), BackgroundBiasProbe(), epochs=1)
    (note,) = caught.value.__notes__
    assert "BackgroundBiasProbe calls OfBatches(image); where its forward takes something else, pass Back" in note
    probe = BackgroundBiasProbe(forward=lambda module, image: module({"image": image}))
    assert fit(OfBatches(), probe, epochs=1).callback_metrics["bias/acc_original"] == 1


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_it_measures_in_every_stage(stage: str) -> None:
    module, probe = Cheat(), BackgroundBiasProbe(every_n_epochs=7)
    module.test_step = module.validation_step
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[probe]
    )
    getattr(trainer, stage)(module, DataLoader(ToyImages(20), batch_size=5), verbose=False)
    assert trainer.callback_metrics["bias/acc_mixed_same"] == 1
    assert trainer.callback_metrics["bias/worst_variant"] == trainer.callback_metrics["bias/acc_mixed_rand"]


def test_a_fit_without_validation_says_that_nothing_was_measured() -> None:
    loader = DataLoader(ToyImages(20), batch_size=5)
    with pytest.warns(UserWarning, match="BackgroundBiasProbe measured nothing: it measures at the end of validation"):
        fit(Plain(), BackgroundBiasProbe(loader), epochs=1, limit_val_batches=0, num_sanity_val_steps=0)


def test_a_wrongly_guessed_embedding_layer_does_not_end_the_training(caplog) -> None:
    class Odd(Cheat):
        """Its last linear layer is asked once for the whole batch."""

        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Linear(K, K)

        def forward(self, image):
            self.extra(torch.zeros(1, K, device=image.device))
            return self.reader(image)

    with caplog.at_level("INFO"):
        trainer = fit(Odd(), BackgroundBiasProbe(), epochs=1)
    assert "feature consistency is left out" in caplog.text
    assert "bias/feature_consistency" not in trainer.callback_metrics
    assert trainer.callback_metrics["bias/acc_original"] == 1
    with pytest.raises(ValueError, match="layer 'extra': expected one embedding an image as its input"):
        fit(Odd(), BackgroundBiasProbe(layer="extra"), epochs=1)


def test_the_best_checkpoint_is_not_the_most_inverted_one() -> None:
    """Epoch 0: right on random backgrounds and never on its own; epoch 1: right everywhere."""

    class Learning(Cheat):
        def forward(self, image):
            right = self.reader(image)
            return right.roll(1, 1) if self.current_epoch == 0 else right

    values = []

    class Noting(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                values.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("bias/")})

    fit(Learning(), BackgroundBiasProbe(), Noting(), epochs=2)
    gaps, worst = ([v[f"bias/{name}"] for v in values] for name in ("bg_gap", "worst_variant"))
    assert gaps[0] < 0 < gaps[1], "the minimum of the signed gap is the inverted model"
    assert worst[0] == 0
    assert worst[0] < worst[1]
    assert [v["bias/abs_gap"] for v in values] == pytest.approx([abs(g) for g in gaps])


def test_settings_in_one_object_and_former_names() -> None:
    settings = EvaluationSettings(variants=["mixed_same", "mixed_rand"], seed=3, confidence=0.9)
    probe = BackgroundBiasProbe(settings=settings)
    assert (probe.settings.seed, probe.settings.confidence) == (3, 0.9)
    assert BackgroundBiasProbe(settings=settings, confidence=0.8).settings.confidence == 0.8
    with pytest.warns(DeprecationWarning, match=r"BackgroundBiasProbe\(loader, every_n_epochs=n\)"):
        assert BackgroundBiasProbe(None, 5).every_n_epochs == 5
    with pytest.warns(DeprecationWarning, match=r"BackgroundBiasProbe\(prefix=...\) is now BackgroundBiasProbe\(log="):
        trainer = fit(Cheat(), BackgroundBiasProbe(prefix="bg"), epochs=1)
    assert "bg/bg_gap" in trainer.callback_metrics
    assert BackgroundBiasProbe().state_key != BackgroundBiasProbe(seed=1).state_key
    silent = fit(Cheat(), BackgroundBiasProbe(log=False), epochs=1)
    assert not [name for name in silent.callback_metrics if "bg_gap" in name]


def test_one_logit() -> None:
    class OneLogit(Cheat):
        def forward(self, image):
            return (image[:, 0, 0, 0] - 0.05)[:, None] * 100  # above 0 where the background is that of class 1

    two = DataLoader(ToyImages(20, classes=2), batch_size=5)
    module = OneLogit()
    module.validation_step = lambda batch, batch_idx: (module(batch[0]) > 0).float()
    with pytest.raises(ValueError, match="or task='binary' for a model with one logit"):  # no layer of one output
        fit(module, BackgroundBiasProbe(two, metrics=["bg_gap"]), epochs=1)
    probe = BackgroundBiasProbe(two, task="binary")
    metrics = fit(module, probe, epochs=1).callback_metrics
    assert metrics["bias/acc_original"] == metrics["bias/acc_mixed_same"] == 1
    rand = probe.report.images
    assert (rand.prediction["mixed_rand"] == rand.background_label["mixed_rand"]).all()
    assert [c.n for c in probe.report.per_class] == [10, 10]
    assert probe.report.settings["task"] == "binary"
