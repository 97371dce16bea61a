from __future__ import annotations

import warnings
from functools import partial

import pytest
import small_training
import torch
import torch.nn.functional as F
from small_training import CLASSES, SIDE, CallsItsNetwork, Module, loader, tensors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap

fit = partial(small_training.fit, max_epochs=1)


def contrasted(module) -> bool:
    """Every step's total is finite and larger than the module's own loss."""
    pairs = zip(module.losses, module.totals, strict=True)
    return all(total.isfinite() and total > own for own, total in pairs)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(precision):
    module = Module()
    fit(module, CLADCallback(BackgroundSwap(), plus=True), precision=precision, max_epochs=2)
    assert contrasted(module)


def test_half_precision_autocast_by_hand():
    # Lightning refuses fp16 on the CPU, so the step brings its own autocast
    class Half(Module):
        def classify(self, image):
            with torch.autocast("cpu", torch.float16):
                return super().classify(image)

    module = Half()
    with torch.autocast("cpu", torch.float16):
        fit(module, CLADCallback(BackgroundSwap(), plus=True))
    assert all(total.isfinite() for total in module.totals)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 looks into no compiled module")
def test_a_compiled_network_gives_the_same():
    module, compiled = Module(), Module()
    compiled.net = torch.compile(compiled.net, backend="eager")
    fit(module, CLADCallback(BackgroundSwap()))
    with pytest.warns(UserWarning, match="compiled: it runs eagerly"):
        fit(compiled, CLADCallback(BackgroundSwap()))
    assert (compiled.losses, compiled.totals) == (module.losses, module.totals)


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_published_networks(kind):
    if kind == "torchvision":
        model, width = pytest.importorskip("torchvision").models.resnet18(num_classes=CLASSES), 512
    else:
        model = pytest.importorskip("timm").create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=2, num_classes=CLASSES
        )
        width = 192
    for joint in (False, True):
        callback = CLADCallback(BackgroundSwap(), plus=True, joint=joint)
        module = Module(model, lr=1e-3)
        fit(module, callback)
        assert callback.loss.queue.dim == width
        assert contrasted(module)


def test_a_step_that_skips_its_batch_is_left_alone():
    class Skipping(Module):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.seen = batch_idx

    module = Skipping()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned `None`.*")
        fit(module, CLADCallback(BackgroundSwap()))
    assert module.seen == 2


def test_one_class_in_all_batches_is_defined():
    module, callback = Module(), CLADCallback(BackgroundSwap())
    with pytest.warns(UserWarning, match="some images keep their background"):
        fit(module, callback, train=loader(*tensors(classes=1)))
    assert module.losses == module.totals  # nothing to contrast with
    assert callback.loss.queue.fill.sum() == 0


def test_a_batch_of_one():
    module = Module(norm=False)
    with pytest.warns(UserWarning, match="some images keep their background"):
        fit(module, CLADCallback(BackgroundSwap()), train=loader(batch_size=1), limit_train_batches=3)
    bank = BackgroundBank(torch.rand(12, 3, SIDE, SIDE), torch.arange(12) % CLASSES)
    fit(module, CLADCallback(BackgroundSwap(bank)), train=loader(batch_size=1), max_epochs=2)
    assert all(total.isfinite() for total in module.totals)


def test_a_label_outside_the_classes_is_named():
    image, label, mask = tensors()
    module = Module()
    module.criterion = lambda logits, target: logits.sum()
    with pytest.raises(ValueError, match=r"label: expected classes in \[0, 3\].*, got \[\d, 4\]"):
        fit(module, CLADCallback(BackgroundSwap()), train=loader(image, label + 1, mask))


def test_non_finite_embeddings_are_named():
    class Poisoned(Module):
        def classify(self, image):
            return self.net(torch.where(image.amax((1, 2, 3), keepdim=True) > 1, torch.nan, image))

        forward = classify

        def training_step(self, batch, batch_idx):
            return self(batch[0]).nansum()

    image, label, mask = tensors()
    image[5, :, 4, 4] = 2  # in front, so that no other image gets it
    module = Poisoned(norm=False)
    with pytest.raises(ValueError, match=r"positive: expected finite values.*sample\(s\) \[5\]"):
        fit(module, CLADCallback(BackgroundSwap()), train=loader(image, label, mask))


def test_no_masks_says_what_to_do():
    with pytest.raises(KeyError, match=r"no mask at 2.*BatchSpec\(mask=.*grabcut_masks"):
        fit(Module(), CLADCallback(BackgroundSwap()), train=loader(*tensors()[:2]))


def test_a_queue_that_stays_empty_is_told_once_in_every_fit():
    callback = CLADCallback(BackgroundSwap("batch", "voronoi"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="its queue is empty") as caught:
            fit(Module(), callback, max_epochs=3)
        assert sum("CLADCallback added nothing in this epoch" in str(one.message) for one in caught) == 1


class Bare(CallsItsNetwork):
    """Its step calls body and head one after the other."""

    def __init__(self, change=lambda image: image):
        super().__init__()
        self.body, self.head, self.change = self.net[:-1], self.net[-1], change
        del self.net

    def classify(self, image):
        return self.head(self.body(self.change(image)))


class WithForward(Bare):
    """The same with a forward, which knows nothing of the change."""

    def forward(self, image):
        return self.head(self.body(image))


class CallsForward(WithForward):
    """Its step calls the forward, which runs no hooks."""

    def classify(self, image):
        return self.forward(self.change(image))


def test_a_forward_that_works_in_place_is_refused():
    class InPlace(CallsForward):
        def forward(self, image):
            return super().forward(image.sub_(0.4).div_(0.2))

    with pytest.raises(LookupError, match="InPlace.forward changes the batch's images in place.*forward=lambda"):
        fit(InPlace(), CLADCallback(BackgroundSwap()))
    fit(InPlace(), CLADCallback(BackgroundSwap(), forward=lambda module, image: module.head(module.body(image))))


def test_of_a_forward_that_does_more_than_its_network_the_network_is_called_again():
    class Mixing(Module):
        def forward(self, image, label):
            self.calls = getattr(self, "calls", 0) + 1
            return self.net(image), label

        def training_step(self, batch, batch_idx):
            logits, label = self.forward(batch[0], batch[1])
            loss = F.cross_entropy(logits, label)
            self.losses.append(loss.detach().clone())
            return loss

    module, expected = Mixing(), Module()
    for each in (module, expected):
        fit(each, CLADCallback(BackgroundSwap(), plus=True))
    assert module.calls == 3
    torch.testing.assert_close(torch.stack(module.totals), torch.stack(expected.totals))


CHANGES = {"as they are": lambda image: image, "normalised": lambda image: (image - 0.4) / 0.2}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["forward", "parts", "parts with a forward"])
def test_positives_enter_as_the_images_do(kind, change):
    """As where the step calls its network: what it does to the images before is done to the positives too."""

    class Hooked(CallsItsNetwork):
        def classify(self, image):
            return self.net(CHANGES[change](image))

    expected = Hooked()
    fit(expected, CLADCallback(BackgroundSwap(), plus=True))
    make = {"forward": CallsForward, "parts": Bare, "parts with a forward": WithForward}[kind]
    module = make(CHANGES[change])
    options = {} if kind == "forward" else {"forward": lambda module, image: module.head(module.body(image))}
    if kind == "parts with a forward":
        if change == "normalised":
            with pytest.raises(LookupError, match=r"training_step changes them \(a normalisation\?\).*forward=lambda"):
                fit(make(CHANGES[change]), CLADCallback(BackgroundSwap(), plus=True))
        else:
            options = {}
    fit(module, CLADCallback(BackgroundSwap(), plus=True, **options))
    torch.testing.assert_close(torch.stack(module.totals), torch.stack(expected.totals))
    assert all("forward" not in vars(part) for part in module.modules())


def test_bad_settings_are_named():
    without = "no module around 'head' was called with the images.*has no forward; pass CLADCallback\\(forward=lambda"
    with pytest.raises(LookupError, match=without):
        fit(Bare(), CLADCallback(BackgroundSwap()))
    with pytest.raises(TypeError, match="forward: expected a function of \\(module, image\\), got str"):
        CLADCallback(BackgroundSwap(), forward="net")
    with pytest.raises(ValueError, match="forward: .*; pass joint=False"):
        CLADCallback(BackgroundSwap(), forward=lambda module, image: module(image), joint=True)
    with pytest.raises(LookupError, match="joint: no module around 'head' .*; pass joint=False"):
        fit(Bare(), CLADCallback(BackgroundSwap(), joint=True))
    with pytest.raises(TypeError, match="swap: expected a BackgroundSwap, got str 'batch'"):
        CLADCallback("batch")
    with pytest.raises(TypeError, match="weight: expected a number or a function"):
        CLADCallback(BackgroundSwap(), weight="1")
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
        CLADCallback(BackgroundSwap(), temperature=0.0)
    with pytest.raises(ValueError, match="num_classes: expected a whole number of at least 1, got 0"):
        CLADCallback(BackgroundSwap(), num_classes=0)
    with pytest.raises(ValueError, match="num_classes: expected how many"):
        fit(Module(), CLADCallback(BackgroundSwap(), layer="net.4"))


class Views(CallsItsNetwork):
    """Without batch norm, so that views go through the network as if they were alone."""

    def __init__(self, together, apart=False):
        super().__init__(norm=False)
        self.together, self.apart = together, apart

    def training_step(self, batch, batch_idx):
        image, label = batch[:2]
        views = self.together(image)
        logits = torch.cat([self.net(image), self.net(views[8:])]) if self.apart else self.net(views)
        return F.cross_entropy(logits, torch.cat([label, label]))


TOGETHER = {
    "the batch's first": lambda image: torch.cat([image, image.flip(3)]),
    "the batch's last": lambda image: torch.cat([image.flip(3), image]),
    "side by side": lambda image: torch.stack([image, image.flip(3)], 1).flatten(0, 1),
    "normalised": lambda image: torch.cat([image, image.flip(3)]) * 2 - 1,
}


@pytest.mark.parametrize("joint", [False, True], ids=["one by one", "joint"])
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.filterwarnings("ignore:training_step runs several views")
def test_of_several_views_the_batch_s_own_is_contrasted(name, joint):
    """As in a step that runs each view by itself, of which the first call is looked at."""
    added = []
    for apart in (False, True) if name == "the batch's first" else (False,):
        module, callback = Views(TOGETHER[name], apart), CLADCallback(BackgroundSwap(), plus=True, joint=joint)
        fit(module, callback)
        own = torch.stack(module.totals)
        added.append((own, callback.loss.queue.rows.clone()))
        assert bool(callback.loss.queue.fill.any())
    for totals_, rows in added[1:]:
        torch.testing.assert_close(totals_, added[0][0])
        torch.testing.assert_close(rows, added[0][1])


def test_views_of_which_none_is_the_batch_s_own_are_refused():
    with pytest.raises(ValueError, match="runs 16 images through the network for a batch of 8, and no part of them"):
        fit(Views(lambda image: torch.cat([image.flip(3), image.flip(2)])), CLADCallback(BackgroundSwap()))


def test_of_views_through_parts_of_a_module_none_is_guessed():
    class Parts(Module):
        def training_step(self, batch, batch_idx):
            image, label = torch.cat([batch[0], batch[0].flip(3)]), torch.cat([batch[1], batch[1]])
            for layer in self.net:
                image = layer(image)
            return F.cross_entropy(image, label)

    with pytest.raises(ValueError, match="hands 2 views of each image to parts of the module, not to one"):
        fit(Parts(), CLADCallback(BackgroundSwap()))


def test_another_head_that_the_forward_does_not_run_is_named():
    class TwoHeads(Module):
        def __init__(self):
            super().__init__()
            self.nuisance = nn.Linear(96, 9)

        def training_step(self, batch, batch_idx):
            features = self.net[:-1](batch[0])
            site = F.cross_entropy(self.nuisance(features), batch[1])
            return F.cross_entropy(self.net[-1](features), batch[1]) + site

    with pytest.raises(LookupError, match="'nuisance' took no part .* name the layer of the classes that it runs"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap()))
    fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="net.5"))


def test_one_logit_and_its_targets():
    class OneLogit(Module):
        def criterion(self, logits, target):
            return F.binary_cross_entropy_with_logits(logits[:, 0], target.float())

    for kind in (torch.long, torch.float32):
        image, label, mask = tensors(classes=2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5), nn.ReLU(), nn.Linear(5, 1))
        callback = CLADCallback(BackgroundSwap(), plus=True)
        run = fit(OneLogit(model), callback, train=loader(image, label.to(kind), mask))
        assert callback.loss.queue.num_classes == 2
        assert run.callback_metrics["clad/ce_positive"] > 0


def test_mixing_in_the_step_is_noticed():
    class Mixing(CallsItsNetwork):
        def classify(self, image):
            return self.net((image + image.roll(1, 0)) / 2)

    with pytest.warns(UserWarning, match="not after flips, crops, mixup or CutMix.*the targets of CLAD"):
        fit(Mixing(), CLADCallback(BackgroundSwap(), plus=True))


def test_categories_that_are_not_called_like_the_classes_are_told():
    class Named(TensorDataset):
        classes = tuple(f"Class_{c}" for c in range(CLASSES))

    def warned(names, **options):
        bank = BackgroundBank(torch.rand(CLASSES, 3, SIDE, SIDE), torch.arange(CLASSES), classes=names)
        callback = CLADCallback(BackgroundSwap(bank), **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(Module(), callback, train=DataLoader(Named(*tensors()), 8))
        return [str(w.message) for w in caught if "category 0 of the bank" in str(w.message)]

    assert len(warned([f"scene {c}" for c in range(CLASSES)])) == 1
    assert "'class 1', class 0 'Class_0'" in warned([f"class {(c + 1) % CLASSES}" for c in range(CLASSES)])[0]
    assert not warned([f"class {c}" for c in range(CLASSES)])
    assert not warned(None)
    assert not warned([f"scene {c}" for c in range(CLASSES)], label_of=lambda target: target)


def test_keys_in_checkpoints_of_before_there_was_a_forward_are_the_same():
    def key(**options):
        return CLADCallback(BackgroundSwap(), **options).state_key

    assert "'forward'" not in key()
    assert "'logits': None, 'max_batch': None, 'seed': 3}" in key(seed=3)
    assert key(forward=lambda module, image: module(image)) != key()
