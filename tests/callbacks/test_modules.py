"""Batches and modules of other kinds: with every callback the same training as with a tuple and a plain module."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import pytest
import small_training as small
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, default_collate

from torch_bgdebias import BatchSpec

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ("image", "label", "mask")
ByName = namedtuple("ByName", NAMES)


@dataclasses.dataclass
class Fields:
    image: torch.Tensor
    label: torch.Tensor
    mask: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A batch that nobody may write to, moved by itself since Lightning writes to what it moves."""

    image: torch.Tensor
    label: torch.Tensor
    mask: torch.Tensor

    def to(self, device, **options):
        return Frozen(*(getattr(self, name).to(device) for name in NAMES))


def rows():
    return list(zip(*small.tensors(), strict=True))


def collated(make):
    return lambda items: make(*default_collate(items))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(rows())


def encoding(image, label, mask):
    transformers = pytest.importorskip("transformers")
    return transformers.BatchEncoding({"image": image, "label": label, "mask": mask})


def images_and_masks(image, label, mask):
    """Two kinds of tensors that refuse to meet in an operation."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    return Fields(tv_tensors.Image(image), label, tv_tensors.Mask(mask))


#: name -> how a loader is made, and how image and label are read
BATCHES = {
    "named tuple": (lambda: DataLoader([ByName(*row) for row in rows()], batch_size=8), getattr),
    "dataclass": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(Fields)), getattr),
    "frozen dataclass": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(Frozen)), getattr),
    "tv_tensors": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(images_and_masks)), getattr),
    "BatchEncoding": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(encoding)), dict.get),
    "stream": (lambda: DataLoader(Stream(), batch_size=8), lambda batch, name: batch[NAMES.index(name)]),
}


def fitted(name, module, loader, spec=None, **options):
    run = small.trainer([small.CALLBACKS[name](spec)], max_epochs=1, **options)
    run.fit(module, loader, loader)
    assert "training_step" not in vars(module)
    logged = {key: value for key, value in run.callback_metrics.items() if "/" in key and "seconds" not in key}
    return small.weights(module), logged


def assert_as_plain(name, module, loader, spec=None, **options):
    weights, logged = fitted(name, module, loader, spec, **options)
    plain, expected = fitted(name, small.theirs(), small.loader())
    torch.testing.assert_close(weights, plain)
    assert logged.keys() >= expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(logged[key], value, equal_nan=True)


@pytest.mark.parametrize("name", small.CALLBACKS)
@pytest.mark.parametrize("kind", BATCHES)
def test_batches(kind, name):
    make, get = BATCHES[kind]
    read = (lambda batch, key: batch[key]) if get is dict.get else get

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(read(batch, "image")), read(batch, "label"))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(read(batch, "image")), read(batch, "label")), batch_size=8)

    module = small.theirs(training_step=training_step, validation_step=validation_step)
    assert_as_plain(name, module, make(), None if kind == "stream" else BatchSpec(*NAMES))


def without_index(self, batch):
    return F.cross_entropy(self(batch[0]), batch[1])


def of_other_names(self, sample, number):
    return F.cross_entropy(self(sample[0]), sample[1])


def with_a_dict(self, batch, batch_idx):
    logits = self(batch[0])
    return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits.detach()}


def by_hand(self, batch, batch_idx):
    one = F.one_hot(batch[1], small.CLASSES)
    return -(one * self(batch[0]).log_softmax(1)).sum(1).mean()


STEPS = {"without an index": without_index, "other names": of_other_names, "a dict": with_a_dict, "by hand": by_hand}
OPTIONS = {
    "validation within the epoch": {"val_check_interval": 1 / 3},
    "no inference mode": {"inference_mode": False},
    "anomalies": {"detect_anomaly": True},
    "deterministic": {"deterministic": True},
}


class Hyper(small.Module):
    """Has its batch's layout among its hyperparameters."""

    def __init__(self, spec: BatchSpec) -> None:
        super().__init__()
        self.save_hyperparameters()


def test_a_layout_among_the_hyperparameters_loads_as_any_other(tmp_path):
    run = small.trainer(max_epochs=1)
    run.fit(Hyper(BatchSpec(("image", 0), hide_mask=True)), small.loader())
    run.save_checkpoint(tmp_path / "theirs.ckpt")
    assert Hyper.load_from_checkpoint(tmp_path / "theirs.ckpt").hparams.spec == BatchSpec(("image", 0), hide_mask=True)


@pytest.mark.parametrize("name", small.CALLBACKS)
@pytest.mark.parametrize("kind", STEPS)
def test_steps(kind, name):
    assert_as_plain(name, small.theirs(training_step=STEPS[kind]), small.loader())


@pytest.fixture
def own_determinism(monkeypatch):
    """Lightning sets the process's and leaves it so."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.mark.usefixtures("own_determinism")
@pytest.mark.parametrize("name", small.CALLBACKS)
@pytest.mark.parametrize("kind", OPTIONS)
def test_trainer_options(kind, name):
    assert_as_plain(name, small.theirs(), small.loader(), **OPTIONS[kind])


@pytest.mark.parametrize("name", small.TRAINING)
def test_images_that_nobody_has_stacked_are_named(name):
    loader = DataLoader(rows(), batch_size=8, collate_fn=lambda items: [list(x) for x in zip(*items, strict=True)])
    with pytest.raises(TypeError, match="these are single images: let the loader's collate_fn stack them"):
        small.trainer([small.CALLBACKS[name]()], max_epochs=1).fit(small.theirs(), loader)


def adversarial(keep: bool):
    """Images that the step makes by a gradient of its own, of a pass of the batch."""

    def training_step(self, batch, batch_idx):
        image = batch[0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(self(image), batch[1]), image, retain_graph=keep)
        return F.cross_entropy(self((batch[0] + 0.01 * gradient.sign()).clamp(0, 1)), batch[1])

    return training_step


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", small.TRAINING)
def test_steps_that_take_gradients_themselves(name, keep):
    module = small.theirs(training_step=adversarial(keep))
    run = small.trainer([small.CALLBACKS[name]()], max_epochs=1)
    if name == "clad" and not keep:
        with pytest.raises(RuntimeError) as caught:
            run.fit(module, small.loader())
        assert "let it keep the graph: torch.autograd.grad(..., retain_graph=True)" in caught.value.__notes__[-1]
        return
    run.fit(module, small.loader())
    plain = small.theirs(training_step=adversarial(keep))
    small.trainer(max_epochs=1).fit(plain, small.loader())
    assert small.weights(module).isfinite().all()
    assert not torch.equal(small.weights(module), small.weights(plain))


def of_bytes():
    image, label, mask = small.tensors()
    return small.loader((image * 255).round().to(torch.uint8), label, mask)


def in_step(self, batch, batch_idx):
    return F.cross_entropy(self(batch[0] / 255), batch[1])


def on_the_device(self, batch, dataloader_idx):
    return batch[0] / 255, *batch[1:]


@pytest.mark.parametrize("name", ["swap", "isnet"])
def test_images_that_the_step_converts_are_refused_with_the_place_to_convert_them(name):
    with pytest.raises(TypeError, match=r"got uint8 .*before the step \(on_after_batch_transfer\)"):
        small.trainer([small.CALLBACKS[name]()], max_epochs=1).fit(small.theirs(training_step=in_step), of_bytes())
    module = small.theirs(on_after_batch_transfer=on_the_device)
    small.trainer([small.CALLBACKS[name]()], max_epochs=1).fit(module, of_bytes())
    assert small.weights(module).isfinite().all()


@pytest.mark.parametrize("where", ["step", "forward"])
def test_the_probe_measures_images_that_are_converted_late(where):
    def forward(self, image):
        return self.net(image / 255)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", in_step(self, batch, batch_idx))

    def kind():
        return small.theirs(validation_step=validation_step) if where == "step" else small.theirs(forward=forward)

    def measured(module, batches, **options):
        run = small.trainer([small.make_probe(**options)])
        run.validate(module, batches, verbose=False)
        return {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("bias/acc")}

    with pytest.raises(TypeError, match=r"got uint8 .*BatchSpec\(image=lambda batch: batch\[0\] / 255\)"):
        measured(kind(), of_bytes())
    advised = {} if where == "step" else {"preprocess": lambda image: image * 255}
    numbers = measured(kind(), of_bytes(), spec=BatchSpec(image=lambda batch: batch[0] / 255), **advised)
    image, label, mask = small.tensors()
    rounded = small.loader((image * 255).round() / 255, label, mask)
    assert numbers == measured(small.theirs(), rounded)


class Copies(nn.DataParallel):
    """As on two devices, of which a machine without any has none."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.device_ids = [0, 1]

    def forward(self, *args):
        return self.module(*args)


@pytest.mark.parametrize("name", ["clad", "isnet", "concepts"])
def test_a_network_that_is_copied_to_several_devices_is_refused_by_name(name):
    module = small.theirs()
    module.net = Copies(module.net)
    with pytest.raises(TypeError, match=r"'net' of Theirs is an nn.DataParallel.*strategy='ddp'"):
        small.fit(module, small.CALLBACKS[name](), val=small.loader())
    module.net = module.net.module
    small.fit(module, small.CALLBACKS[name](), val=small.loader())


def by_the_training_step(self, batch, batch_idx):
    self.log("val_loss", self.training_step(batch, batch_idx))


def by_itself(self, batch, batch_idx):
    self.log("val_loss", F.cross_entropy(self(batch[0]), batch[-1]))


def image_first_label_last(self, batch, batch_idx):
    image, label = batch
    return F.cross_entropy(self(image), label)


@pytest.mark.parametrize("name", small.CALLBACKS)
def test_a_validation_step_may_call_the_training_step(name):
    """Its loss is that of the images as they are, and the training goes on as if it had its own."""
    image, label, mask = small.tensors()
    batches = small.loader(image, mask, label)
    outcomes = []
    for step in (by_the_training_step, by_itself):
        module = small.theirs(training_step=image_first_label_last, validation_step=step)
        callback = small.CALLBACKS[name](BatchSpec(label=2, mask=1, hide_mask=True))
        run = small.fit(module, callback, train=batches, val=batches)
        outcomes.append((small.weights(module), run.callback_metrics))
    (weights, logged), (expected, expected_logged) = outcomes
    assert torch.equal(weights, expected)
    assert sorted(logged) == sorted(expected_logged)
    for key in set(logged) - {"bias/seconds"}:
        torch.testing.assert_close(logged[key], expected_logged[key], equal_nan=True)
