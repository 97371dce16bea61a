"""Batches and modules of other kinds: with every callback the same training as with a tuple and a plain module."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import pytest
import small_training as small
import torch
import torch.nn.functional as F
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


#: name -> how a loader is made, and how image and label are read
BATCHES = {
    "named tuple": (lambda: DataLoader([ByName(*row) for row in rows()], batch_size=8), getattr),
    "dataclass": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(Fields)), getattr),
    "frozen dataclass": (lambda: DataLoader(rows(), batch_size=8, collate_fn=collated(Frozen)), getattr),
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
