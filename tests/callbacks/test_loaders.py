"""Several loaders, several views, compiled modules, steps that fetch their own batches: with every callback."""

from __future__ import annotations

import pytest
import small_training as small
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
LABELLED = BatchSpec(("labelled", 0), "labelled.1", ("labelled", 2))


def of_both(self, batch, batch_idx):
    """Supervised where there are labels, else whatever keeps the outputs small."""
    if batch["labelled"] is None:
        return 0 * self(batch["unlabelled"][0]).square().mean()
    return F.cross_entropy(self(batch["labelled"][0]), batch["labelled"][1])


def evaluation_of_both(self, batch, batch_idx):
    self.log("val_loss", F.cross_entropy(self(batch["labelled"][0]), batch["labelled"][1]))


def loaders(unlabelled: int = 24):
    return {"labelled": small.loader(), "unlabelled": small.loader(small.tensors(unlabelled)[0])}


def combined(mode: str, **options):
    return small.package().utilities.CombinedLoader(loaders(**options), mode)


@pytest.mark.parametrize("mode", ["min_size", "max_size_cycle", "max_size"])
@pytest.mark.parametrize("name", small.CALLBACKS)
def test_combined_loaders(name, mode):
    make = small.CALLBACKS[name]
    plain = small.theirs()
    one = small.trainer([make()], max_epochs=1)
    one.fit(plain, small.loader(), small.loader())
    module = small.theirs(training_step=of_both, validation_step=evaluation_of_both)
    both = small.trainer([make(LABELLED)], max_epochs=1)
    both.fit(module, combined(mode), combined(mode))
    assert torch.equal(small.weights(module), small.weights(plain))
    logged = {key: value for key, value in one.callback_metrics.items() if "/" in key and not key.endswith("seconds")}
    assert logged
    for key, value in logged.items():
        torch.testing.assert_close(both.callback_metrics[key], value, equal_nan=True)


def without_momentum(self):
    """So that a step without a loss changes nothing."""
    return torch.optim.SGD(self.parameters(), lr=0.05)


@pytest.mark.parametrize("name", small.TRAINING)
def test_a_loader_that_has_run_out(name):
    """In mode max_size its batches are None: the step's own way with them is left alone, and the count goes on."""
    methods = {"training_step": of_both, "configure_optimizers": without_momentum}
    module, callback = small.theirs(**methods), small.CALLBACKS[name](LABELLED)
    plain = small.theirs(**methods)
    other = small.CALLBACKS[name](LABELLED)
    small.trainer([callback], max_epochs=1).fit(module, combined("max_size", unlabelled=40))
    small.trainer([other], max_epochs=1).fit(plain, combined("max_size"))
    assert (callback.steps, other.steps) == (5, 3)
    torch.testing.assert_close(small.weights(module), small.weights(plain))


@pytest.mark.parametrize("name", small.TRAINING)
def test_a_dict_of_loaders_repeats_the_shorter_one(name):
    module, callback = small.theirs(training_step=of_both), small.CALLBACKS[name](LABELLED)
    small.trainer([callback], max_epochs=1).fit(module, loaders(unlabelled=40))
    assert callback.steps == 5


def test_loaders_one_after_the_other_are_refused_by_the_trainer_in_training_and_measured_in_validation():
    with pytest.raises(ValueError, match="sequential"):
        small.trainer([small.make_swap()]).fit(small.theirs(), combined("sequential"))

    def step(self, batch, batch_idx, dataloader_idx=0):
        self(batch[0])

    probe = small.make_probe(dataloader_idx=1)
    run = small.trainer([probe])
    two = [small.loader(*small.tensors(8)), small.loader()]
    run.validate(small.theirs(validation_step=step), small.package().utilities.CombinedLoader(two, "sequential"))
    assert run.callback_metrics["bias/images"] == 24


def two_views(self, batch, batch_idx):
    image, label = batch[:2]
    return F.cross_entropy(self(torch.cat([image, image.flip(3)])), torch.cat([label, label]))


@pytest.mark.parametrize("name", small.CALLBACKS)
def test_two_views_in_one_batch(name):
    module = small.theirs(training_step=two_views)
    run = small.trainer([small.CALLBACKS[name]()], max_epochs=1)
    run.fit(module, small.loader(), small.loader())
    assert any("/" in key for key in run.callback_metrics)
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("name", small.CALLBACKS)
def test_one_of_two_views_has_a_place(name):
    """Batches ((view, view), label, mask), of which the step reads the first as well as the second."""

    def training_step(self, batch, batch_idx):
        (first, second), label, _ = batch
        with torch.no_grad():
            target = self.net(second).softmax(1)
        logits = self(first)
        return F.cross_entropy(logits, label) + 0.1 * F.cross_entropy(logits, target)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0][0]), batch[1]))

    image, label, mask = small.tensors()
    rows = [((x, x.flip(2)), y, m) for x, y, m in zip(image, label, mask, strict=True)]
    batches = DataLoader(rows, batch_size=8)
    module = small.theirs(training_step=training_step, validation_step=validation_step)
    run = small.trainer([small.CALLBACKS[name](BatchSpec((0, 0), 1, 2))], max_epochs=1)
    run.fit(module, batches, batches)
    assert small.weights(module).isfinite().all()
    assert any("/" in key for key in run.callback_metrics)


@pytest.mark.parametrize("how", ["torch.compile", "module.compile"])
@pytest.mark.parametrize("name", small.CALLBACKS)
@pytest.mark.filterwarnings("ignore:.*is compiled. it runs eagerly")
def test_compiled_modules(name, how):
    module = small.theirs()
    if how == "torch.compile":
        compiled = torch.compile(module, backend="eager")
    else:
        compiled = module
        module.compile(backend="eager")
    epochs = 4 if name == "probe" else 1  # which looks at fewer things from the ninth batch on
    run = small.trainer([small.CALLBACKS[name]()], max_epochs=epochs)
    run.fit(compiled, small.loader(), small.loader())
    plain = small.theirs()
    expected = small.trainer([small.CALLBACKS[name]()], max_epochs=epochs)
    expected.fit(plain, small.loader(), small.loader())
    torch.testing.assert_close(small.weights(module), small.weights(plain))
    for key, value in expected.callback_metrics.items():
        if name in small.READING and "seconds" not in key:
            torch.testing.assert_close(run.callback_metrics[key], value)  # numbers, where the plain module has them


@pytest.mark.parametrize("name", small.READING)
def test_reading_callbacks_where_the_steps_fetch_their_own_batches(name):
    def training_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=8)

    module = small.theirs(training_step=training_step, validation_step=validation_step)
    run = small.trainer([small.CALLBACKS[name]()], max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, small.loader(), small.loader())
    assert any("/" in key for key in run.callback_metrics)
