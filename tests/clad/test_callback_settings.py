from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from clad_fit import SIZE, K, Objects, Plain, fit, fresh, network
from torch import nn

from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(precision):
    module = fresh()
    fit(module, CLADCallback(BackgroundSwap(), plus=True), precision=precision, epochs=2)
    assert all(torch.tensor(total).isfinite() and total > own for own, total in module.losses)


def test_half_precision_autocast_by_hand():
    # Lightning refuses fp16 on the CPU, so the step brings its own autocast
    class Half(Plain):
        def classify(self, image):
            with torch.autocast("cpu", torch.float16):
                return super().classify(image)

    module = Half()
    with torch.autocast("cpu", torch.float16):
        fit(module, CLADCallback(BackgroundSwap(), plus=True))
    assert all(torch.tensor(total).isfinite() for _, total in module.losses)


def test_a_compiled_network_gives_the_same():
    module, compiled = fresh(), fresh()
    compiled.model = torch.compile(compiled.model, backend="eager")
    fit(module, CLADCallback(BackgroundSwap()))
    with pytest.warns(UserWarning, match="compiled: it runs eagerly"):
        fit(compiled, CLADCallback(BackgroundSwap()))
    assert compiled.losses == module.losses


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_published_networks(kind):
    if kind == "torchvision":
        model, width = pytest.importorskip("torchvision").models.resnet18(num_classes=K), 512
    else:
        model = pytest.importorskip("timm").create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=2, num_classes=K
        )
        width = 192
    for joint in (False, True):
        callback = CLADCallback(BackgroundSwap(), plus=True, joint=joint)
        module = Plain(model, lr=1e-3)
        fit(module, callback)
        assert callback.loss.queue.dim == width
        assert all(torch.tensor(total).isfinite() and total > own for own, total in module.losses)


def test_a_step_that_skips_its_batch_is_left_alone():
    class Skipping(Plain):
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
    data = Objects(classes=1)
    module, callback = fresh(), CLADCallback(BackgroundSwap())
    with pytest.warns(UserWarning, match="some images keep their background"):
        fit(module, callback, data=data)
    assert all(own == total for own, total in module.losses)  # nothing to contrast with
    assert callback.loss.queue.fill.sum() == 0


def test_a_batch_of_one():
    module = fresh(model=network(batch_norm=False))
    with pytest.warns(UserWarning, match="some images keep their background"):
        fit(module, CLADCallback(BackgroundSwap()), batch=1, limit_train_batches=3)
    bank = BackgroundBank(torch.rand(12, 3, SIZE, SIZE), torch.arange(12) % K)
    fit(module, CLADCallback(BackgroundSwap(bank)), batch=1, epochs=2)
    assert all(torch.tensor(total).isfinite() for _, total in module.losses)


def test_a_label_outside_the_classes_is_named():
    data = Objects()
    data.label += 1
    module = fresh()
    module.criterion = lambda logits, target: logits.sum()
    with pytest.raises(ValueError, match=r"label: expected classes in \[0, 3\].*, got \[\d, 4\]"):
        fit(module, CLADCallback(BackgroundSwap()), data=data)


def test_non_finite_embeddings_are_named():
    class Poisoned(Plain):
        def classify(self, image):
            return self.model(torch.where(image.amax((1, 2, 3), keepdim=True) > 1, torch.nan, image))

        forward = classify

        def training_step(self, batch, batch_idx):
            return self(batch[0]).nansum()

    data = Objects()
    data.image[5, :, 4, 4] = 2  # in front, so that no other image gets it
    module = Poisoned(model=network(batch_norm=False))
    with pytest.raises(ValueError, match=r"positive: expected finite values.*sample\(s\) \[5\]"):
        fit(module, CLADCallback(BackgroundSwap()), data=data)


def test_no_masks_says_what_to_do():
    with pytest.raises(KeyError, match=r"no mask at 2.*BatchSpec\(mask=.*grabcut_masks"):
        fit(fresh(), CLADCallback(BackgroundSwap()), form="no mask")


def test_bad_settings_are_named():
    class Manual(Plain):
        automatic_optimization = False

    class Bare(Plain):
        def __init__(self):
            super().__init__()
            self.body, self.head = self.model[:-1], self.model[-1]
            del self.model

        def classify(self, image):
            return self.head(self.body(image))

    with pytest.raises(TypeError, match="optimises manually.*use CLADLoss"):
        fit(Manual(), CLADCallback(BackgroundSwap()))
    with pytest.raises(LookupError, match="no module around 'head' was called with the images.*has no forward"):
        fit(Bare(), CLADCallback(BackgroundSwap()))
    with pytest.raises(LookupError, match="joint: no module around 'head' .*; pass joint=False"):
        fit(Bare(), CLADCallback(BackgroundSwap(), joint=True))
    with pytest.raises(TypeError, match="swap: expected a BackgroundSwap, got str 'batch'"):
        CLADCallback("batch")
    with pytest.raises(TypeError, match="weight: expected a number or a function"):
        CLADCallback(BackgroundSwap(), weight="1")
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
        CLADCallback(BackgroundSwap(), temperature=0.0)
    with pytest.raises(ValueError, match="num_classes: expected a positive integer"):
        CLADCallback(BackgroundSwap(), num_classes=0)
    with pytest.raises(ValueError, match="num_classes: expected how many"):
        fit(fresh(), CLADCallback(BackgroundSwap(), layer="model.3"))


def test_several_views_of_a_batch_are_named():
    class Views(Plain):
        def training_step(self, batch, batch_idx):
            image, label = batch[:2]
            return F.cross_entropy(self.classify(torch.cat([image, image.flip(-1)])), label.repeat(2))

    with pytest.raises(ValueError, match=r"expected 8 samples to enter it.*2 views of each image in one batch"):
        fit(Views(), CLADCallback(BackgroundSwap()))


def test_one_logit_and_its_targets():
    class OneLogit(Plain):
        def criterion(self, logits, target):
            return F.binary_cross_entropy_with_logits(logits[:, 0], target.float())

    for kind in (torch.long, torch.float32):
        data = Objects(classes=2)
        data.label = data.label.to(kind)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5), nn.ReLU(), nn.Linear(5, 1))
        callback = CLADCallback(BackgroundSwap(), plus=True)
        trainer = fit(OneLogit(model=model), callback, data=data)
        assert callback.loss.queue.num_classes == 2
        assert trainer.callback_metrics["clad/ce_positive"] > 0


def test_mixing_in_the_step_is_noticed():
    class Mixing(Plain):
        def classify(self, image):
            return self.model((image + image.roll(1, 0)) / 2)

    with pytest.warns(UserWarning, match="not after flips, crops, mixup or CutMix.*the targets of CLAD"):
        fit(Mixing(), CLADCallback(BackgroundSwap(), plus=True))
