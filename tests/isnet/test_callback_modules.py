"""``ISNetCallback`` on modules as other people write them: how the network is called, and what enters it."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from network_to_explain import PlainHeatmaps, assert_differ, assert_same, by_hand, data, loader, trainer
from small_training import NAMED, Module, network
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.isnet import ISNet

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


class CallsForward(Module):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.forward(batch[0]), batch[1])


class CallsForwardOfAPart(Module):
    def forward(self, image: Tensor) -> Tensor:
        return self.net.forward(image)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.forward(batch[0]), batch[1])


class Parts(Module):
    """Backbone and head, called one after the other by the step itself."""

    def __init__(self) -> None:
        super().__init__()
        whole = self.net
        self.net = None
        self.backbone, self.head = whole[:-1], whole[-1]

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.backbone(batch[0])), batch[1])


class Joined(Parts):
    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.forward(batch[0]), batch[1])


class MadeLate(Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = Module().net


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        (CallsForward, None), (CallsForward, "net"), (CallsForwardOfAPart, None), (CallsForwardOfAPart, "net"),
        (Parts, ("backbone", "head")), (Joined, None), (Joined, ("backbone", "head")), (MadeLate, None),
        (MadeLate, "net"),
    ],
)  # fmt: skip
def test_trains_however_the_network_is_called(kind, network):
    module = kind()
    trainer(PlainHeatmaps(network=network)).fit(module, loader())
    expected = by_hand(Module())
    for mine, its in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)
    assert all("forward" not in vars(part) for part in module.modules())


def test_a_part_of_the_batch_is_explained_where_forward_is_called():
    module, hooked = CallsForward(norm=False), Module(norm=False)
    trainer(PlainHeatmaps(fraction=0.5)).fit(module, loader())
    trainer(PlainHeatmaps(fraction=0.5)).fit(hooked, loader())
    assert_same(module, hooked, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "network"), [(Joined, "backbone"), (Parts, "backbone")])
def test_features_are_not_taken_for_logits(kind, network):
    text = r"network 'backbone' returned a float32 tensor of shape \(8, 96\) that goes through further layers"
    with pytest.raises(RuntimeError, match=text + r".*network=\('backbone', 'head'\)"):
        trainer(PlainHeatmaps(network=network)).fit(kind(), loader())


def test_features_are_told_from_logits_also_where_the_head_is_frozen():
    class Frozen(Joined):
        def __init__(self) -> None:
            super().__init__()
            self.head.requires_grad_(False)

    with pytest.raises(RuntimeError, match="that goes through further layers"):
        trainer(PlainHeatmaps(network="backbone")).fit(Frozen(), loader())


class Regularised(Module):
    """A loss with more in it: weights, a learned temperature, a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        penalty = 1e-3 * (self.net[0].weight.flatten(1) @ self.net[0].weight.flatten(1).T).square().sum()
        return F.cross_entropy(logits * self.temperature, batch[1], label_smoothing=0.1) + penalty


class SoftLabels(Module):
    """A matrix of known label noise after the softmax."""

    def training_step(self, batch, batch_idx):
        noise = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4)
        return F.nll_loss((self(batch[0]).softmax(1) @ noise).log(), batch[1])


@pytest.mark.parametrize("kind", [Regularised, SoftLabels])
def test_losses_with_more_in_them_are_no_further_layers(kind):
    module, plain = kind(), kind()
    trainer(PlainHeatmaps()).fit(module, loader())
    trainer().fit(plain, loader())
    assert_differ(module, plain)


def test_an_output_that_the_loss_does_not_use_is_refused():
    class Elsewhere(Module):
        def training_step(self, batch, batch_idx):
            self(batch[0])
            return F.cross_entropy(copy.copy(self.net)(batch[0] * 1.0), batch[1])

    with pytest.raises(RuntimeError, match="training_step's loss does not depend on what Elsewhere.forward returned"):
        trainer(PlainHeatmaps()).fit(Elsewhere(), loader())


class Backboned(Module):
    frozen_by = "requires_grad"

    def __init__(self) -> None:
        super().__init__(norm=False)
        if self.frozen_by == "requires_grad":
            self.net[0].requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_by == "requires_grad"):
            features = self.net[:-1](image)
        return self.net[-1](features)


class WithoutGradients(Backboned):
    frozen_by = "no_grad"


def test_frozen_weights_are_explained_and_parts_without_gradients_refused_by_cause():
    module = Backboned()
    before = copy.deepcopy(module)
    trainer(PlainHeatmaps()).fit(module, loader())
    assert torch.equal(module.net[0].weight, before.net[0].weight)
    assert not torch.equal(module.net[-1].weight, before.net[-1].weight)
    with pytest.raises(
        RuntimeError, match=r"runs under torch.no_grad or on detached values; .*requires_grad_\(False\)"
    ):
        trainer(PlainHeatmaps()).fit(WithoutGradients(), loader())


def smooth_loader() -> DataLoader:
    """Images that are no noise, and masks of their left halves, which a flip turns into the background."""
    _, label, mask = data().tensors
    image = F.interpolate(
        torch.rand(len(label), 3, 3, 3, generator=torch.Generator().manual_seed(0)), 8, mode="bilinear"
    )
    mask = torch.zeros_like(mask)
    mask[..., :4] = 1
    return DataLoader(TensorDataset(image, label, mask), batch_size=8)


class Changing(Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(self.change(batch[0])), batch[1])


class ChangingHook(Changing):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [self.change(batch[0]), *batch[1:]]

    training_step = Module.training_step


class MovingBoth(Changing):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0].flip(3), batch[1], batch[2].flip(3)]

    training_step = Module.training_step


CHANGES = {
    "flip": (lambda x: x.flip(3), True),
    "some flips": (lambda x: torch.cat([x[:2].flip(3), x[2:]]), True),
    "crop": (lambda x: F.pad(x, (1, 1, 1, 1))[..., 2:, :-2], True),
    "mix": (lambda x: (x + x.roll(1, 0)) / 2, True),
    "mix in place": (lambda x: x.mul_(0.6).add_(x.flip(0).mul_(0.4 / 0.6)), True),
    "normalisation in place": (lambda x: x.sub_(0.4).div_(0.2), False),
    "normalisation": (lambda x: (x - 0.4) / torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1), False),
    "brightness": (lambda x: x * torch.linspace(0.5, 1.5, len(x)).view(-1, 1, 1, 1), False),
    "nothing": (lambda x: x, False),
    "a copy": (lambda x: x.clone(memory_format=torch.channels_last), False),
}


@pytest.mark.parametrize("kind", [Changing, ChangingHook])
@pytest.mark.parametrize("name", CHANGES)
def test_images_that_no_longer_fit_their_masks_are_noticed_once(kind, name):
    change, noticed = CHANGES[name]
    where = "training_step changes the images before" if kind is Changing else "the batch-transfer hooks"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = kind(change)
        trainer(PlainHeatmaps()).fit(module, smooth_loader())
    messages = [str(warning.message) for warning in caught if "masks" in str(warning.message)]
    assert len(messages) == noticed
    assert all(where in text and "by more than a normalisation" in text for text in messages)
    assert not {"on_after_batch_transfer", "on_before_batch_transfer", "forward"} & set(vars(module))


def test_images_that_a_step_exchanges_in_the_batch_itself_are_noticed():
    class Exchanging(Module):
        def training_step(self, batch, batch_idx):
            batch["image"] = batch["image"].flip(3)
            return F.cross_entropy(self(batch["image"]), batch.pop("label"))

    rows = [dict(zip(("image", "label", "mask"), row, strict=True)) for row in smooth_loader().dataset]
    for options in ({}, {"fraction": 0.5}):
        with pytest.warns(UserWarning, match="training_step changes the images before"):
            trainer(PlainHeatmaps(spec=NAMED, **options)).fit(Exchanging(), DataLoader(rows, batch_size=8))


def test_the_advice_of_moving_both_is_quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*masks.*")
        module = MovingBoth(None)
        trainer(PlainHeatmaps()).fit(module, smooth_loader())
    moved = [(image.flip(3), label, mask.flip(3)) for image, label, mask in smooth_loader()]
    assert_same(module, by_hand(Module(), batches=moved), rtol=1e-4, atol=1e-6)
    assert_differ(module, by_hand(Module(), batches=list(smooth_loader())))


class ByName(Module):
    """As the models of transformers are called: everything by its name."""

    def forward(self, labels=None, pixel_values=None):
        return self.net(pixel_values), labels

    def training_step(self, batch, batch_idx):
        logits, labels = self(labels=batch[1], pixel_values=batch[0])
        return F.cross_entropy(logits, labels)


def test_an_image_by_name_is_found():
    module = ByName()
    trainer(PlainHeatmaps(logits=0)).fit(module, loader())
    assert_same(module, by_hand(Module()), rtol=1e-4, atol=1e-6)


def test_several_images_by_name_are_not_guessed_between():
    class Two(ByName):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(pixel_values=batch[0], labels=batch[0])[0], batch[1])

    with pytest.raises(TypeError, match=r"image: expected one float tensor .* got 2; give the model its image as the"):
        trainer(PlainHeatmaps(logits=0)).fit(Two(), loader())


class Views(Module):
    def __init__(self, together) -> None:
        super().__init__(norm=False)
        self.together = together

    def training_step(self, batch, batch_idx):
        image = self.together(batch[0])
        return F.cross_entropy(self(image)[: len(batch[1])], batch[1])


@pytest.mark.parametrize(
    "together",
    [
        lambda x: torch.cat([x, x.flip(3)]),
        lambda x: torch.cat([x, torch.rand_like(x), torch.zeros_like(x)]),
    ],
)
def test_of_several_views_the_batch_s_own_is_explained(together):
    module = Views(together)
    with pytest.warns(UserWarning, match="looks at those that are the batch's own"):
        trainer(PlainHeatmaps()).fit(module, loader())
    assert_same(module, by_hand(Module(norm=False)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("together", [lambda x: torch.cat([x.flip(3), x.flip(2)]), lambda x: x[:, :, :6, :6]])
def test_views_without_masks_are_refused_by_cause(together):
    class Pooled(Views):
        def __init__(self, together) -> None:
            super().__init__(together)
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with pytest.raises(ValueError, match=r"runs other images through Pooled.forward than the batch has: .*masks"):
        trainer(PlainHeatmaps()).fit(Pooled(together), loader())


def test_a_compiled_module_runs_eagerly_and_says_so():
    module = torch.compile(Module(), backend="eager")
    with pytest.warns(UserWarning, match="Module is compiled"):
        trainer(PlainHeatmaps()).fit(module, loader())
    assert_same(module._orig_mod, by_hand(Module()), rtol=1e-4, atol=1e-6)


def test_copies_that_are_made_while_watching_call_their_own_forward():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    image = data().tensors[0]
    with ISNet(net).watching() as watch:
        twin = copy.deepcopy(net)
    nn.init.zeros_(twin[3].weight)
    assert len(watch) == 0
    assert float(twin(image).var(0).sum()) == 0
    assert float(net(image).var(0).sum()) > 0
    assert "forward" not in vars(net)
    assert torch.equal(pickle.loads(pickle.dumps(net))(image), net(image))


def test_watches_that_are_closed_in_another_order_leave_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    first, second = ISNet(net).watching(), ISNet(net).watching()
    first.__enter__()
    second.__enter__()
    net.forward(data().tensors[0])
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert len(first) == len(second) == 1
    assert "forward" not in vars(net)
    assert not net._forward_hooks


class OneNumber(Module):
    """One logit an image, as a column or without the second dimension."""

    def __init__(self, column: bool) -> None:
        super().__init__(network(1))
        self.column = column

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image) if self.column else self.net(image).squeeze(-1)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.reshape(-1), (target > 1).float())


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
def test_one_logit_may_have_no_column(variant):
    modules = [OneNumber(column) for column in (True, False)]
    for module in modules:
        trainer(PlainHeatmaps(variant, validate=True)).fit(module, loader(), loader())
    assert_same(*modules, rtol=0, atol=0)
    assert_differ(modules[0], OneNumber(True))
