"""What became of gap and accuracy over a fit, in the line with which the probe ends it."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
from probe_modules import Plain, fit
from probe_pages import make_report
from probe_toy import Reader, ToyImages, cheat, honest
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.callbacks import BackgroundBiasProbe
from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.callback_course import FitCourse, changes_of_accuracy


class Becomes(Plain):
    """Classifies as one network until its first training step, and as another one from its second epoch on."""

    def __init__(self, first: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then
        self.steps = 0

    def forward(self, image):
        return (self.then if self.steps > 4 else self.first)(image)

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.net[0].weight.square().sum()


def guesser() -> Reader:
    """Reads a pixel that is the same in all images."""
    return Reader(1, 0, 0)


def lines(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if "to the end of the fit" in r.getMessage()]


def test_accuracy_that_was_lost_for_nothing_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="to the end of the fit") as caught:
        fit(Becomes(cheat(), guesser()), BackgroundBiasProbe(figures=False), epochs=2)
    (text,) = [str(w.message) for w in caught if "to the end of the fit" in str(w.message)]
    assert text.startswith("BackgroundBiasProbe: from the end of epoch 0 to the end of the fit: BG-Gap from ")
    assert "accuracy on the images as they are from 100.0% to 25.0%, on random backgrounds from " in text
    assert "it has unlearned the background, and not learned the objects" in text
    assert "train several times as long" in text


def test_a_repair_is_a_line_and_no_warning(caplog) -> None:
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.filterwarnings("error", ".*to the end of the fit")
        fit(Becomes(cheat(), honest()), BackgroundBiasProbe(figures=False), epochs=2)
    (text,) = lines(caplog)
    assert "accuracy on the images as they are from 100.0% to 100.0%" in text
    assert "on random backgrounds from " in text
    assert text.endswith("to 100.0% (40 images).")


def test_one_measurement_is_no_course(caplog) -> None:
    with caplog.at_level("INFO"):
        fit(Becomes(cheat(), honest()), BackgroundBiasProbe(figures=False), epochs=1)
    assert lines(caplog) == []


def test_what_was_validated_before_the_fit_is_what_it_is_compared_with() -> None:
    import pytorch_lightning as pl

    module, probe = Becomes(cheat(), guesser()), BackgroundBiasProbe(figures=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    validation = DataLoader(ToyImages(40), batch_size=7)
    pl.Trainer(callbacks=probe, **quiet).validate(module, validation, verbose=False)
    assert probe.report.accuracy("original").value == 1.0
    module.steps = 4  # the first epoch ends as the guesser
    with pytest.warns(UserWarning, match="from before the fit to the end of the fit: .* from 100.0% to 25.0%"):
        fit(module, probe, epochs=1)


def test_the_changes_are_those_of_the_comparison() -> None:
    before, after = make_report(), make_report("after", same=0.6, rand=0.5, seed=3)
    comparison = compare_models([before, after])[0]
    assert changes_of_accuracy(before, after) == comparison.changes_of_accuracy()
    assert changes_of_accuracy(before, make_report(first_id=1000)) == (None, None)


def test_only_common_images_are_compared_and_a_model_that_knew_nothing_unlearns_nothing() -> None:
    course, module = FitCourse(), nn.Identity()
    course.begin(module, None)
    course.take(make_report(first_id=0), 3)
    text, unlearned = course.words(make_report("later", same=0.3, rand=0.3, first_id=200, seed=1))
    assert text.startswith("from the end of epoch 3 to the end of the fit")
    assert "(200 images)" in text
    assert unlearned
    assert course.words(make_report(first_id=1000)) == ("", False)
    assert course.words(None) == ("", False)
    course.begin(module, make_report(same=0.2, rand=0.2))
    text, unlearned = course.words(make_report("later", same=0.05, rand=0.05, seed=1))
    assert "from before the fit" in text
    assert not unlearned


def test_gains_are_given_without_a_price() -> None:
    course, module = FitCourse(), nn.Identity()
    course.begin(module, None)
    course.begin(module, make_report(same=0.9, rand=0.4))
    text, unlearned = course.words(make_report("later", same=0.8, rand=0.8, seed=1))
    assert not unlearned
    assert "It costs" in text, "less accurate as they are"
    assert "unlearned" not in text
    text, _ = course.words(make_report("later", same=0.97, rand=0.97, seed=1))
    assert "It costs" not in text


def test_another_module_is_not_compared_with_the_one_before(caplog) -> None:
    """Folds of a cross-validation: each has a module of its own, and all of them one probe."""
    probe = BackgroundBiasProbe(figures=False)
    fit(Becomes(cheat(), cheat()), probe, epochs=2)
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.filterwarnings("error", ".*to the end of the fit")
        caplog.clear()
        fit(Becomes(guesser(), guesser()), probe, epochs=2)
    (text,) = lines(caplog)
    assert "from the end of epoch 0 to the end of the fit" in text
    assert "accuracy on the images as they are from 25.0% to 25.0%" in text


def test_copies_know_no_module() -> None:
    probe, module = BackgroundBiasProbe(figures=False), Becomes(cheat(), honest())
    fit(module, probe, epochs=1)
    course = pickle.loads(pickle.dumps(copy.deepcopy(probe)))._course
    course.begin(module, make_report())
    assert course.before is None
