from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.clad import CLADLoss
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap

K, N_IMAGES, SIZE = 4, 24, 8
#: what the callback's draws need of a module in a run of one process
RANK_0 = SimpleNamespace(global_rank=0, device="cpu")


class Objects(Dataset):
    """Random images with a square in front; ``form`` says how the batch looks."""

    def __init__(self, form="tuple", length=N_IMAGES, classes=K):
        g = torch.Generator().manual_seed(1)
        self.form, self.length = form, length
        self.image = torch.rand(length, 3, SIZE, SIZE, generator=g)
        self.mask = torch.zeros(length, 1, SIZE, SIZE)
        self.mask[..., 2:6, 2:6] = 1
        self.label = torch.randint(classes, (length,), generator=g)
        self.site = torch.randint(2, (length,), generator=g)
        self.many = (torch.rand(length, K, generator=g) > 0.5).float()

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if self.form == "dict":
            names = ("image", "mask", "label", "site", "many")
            return {name: getattr(self, name)[i] for name in names}
        if self.form == "no mask":
            return self.image[i], self.label[i]
        return self.image[i], self.label[i], self.mask[i]


def network(batch_norm=True):
    norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10), nn.ReLU(), nn.Linear(10, K)
    )


class Plain(pl.LightningModule):
    """Someone else's module."""

    def __init__(self, model=None, image=0, label=1, lr=0.05):
        super().__init__()
        self.model = network() if model is None else model
        self.image, self.label, self.lr, self.losses, self.shapes = image, label, lr, [], []

    def classify(self, image):
        return self.model(image)

    def criterion(self, logits, target):
        return F.cross_entropy(logits, target)

    def training_step(self, batch, batch_idx):
        logits = self.classify(batch[self.image])
        self.shapes.append(tuple(logits.shape))
        loss = self.criterion(logits, batch[self.label])
        self.losses.append(loss.detach().clone())
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses[-1] = (self.losses[-1].item(), outputs["loss"].item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def fit(module, *callbacks, form="tuple", epochs=1, ckpt=None, batch=8, data=None, **options):
    settings = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False} | options
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, callbacks=list(callbacks), **settings
    )
    loader = DataLoader(data or Objects(form), batch_size=batch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, loader, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return trainer


def fresh(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Plain(**kwargs)


def by_hand(module, steps, plus=False, weight=1.0, **settings):
    """The same training as a plain loop: own swap with the callback's draws, own losses, own passes."""
    reference = CLADCallback(BackgroundSwap(), **settings)
    loss = reference.settings.new_loss(K)
    optimizer, values = module.configure_optimizers(), []
    module.train()
    for image, label, mask in DataLoader(Objects(), batch_size=8):
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        background = reference.swap.drawn["background_label"]
        body, head = module.model[:-1], module.model[-1]
        if reference.settings.joint:
            anchor, positive = body(torch.cat([image, other])).chunk(2)
        else:
            anchor, positive = body(image), body(other)
        total = F.cross_entropy(head(anchor), label) + weight * loss(anchor, positive, label, background)
        if plus:
            total = total + F.cross_entropy(head(positive), label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        reference.steps += 1
        values.append(total.item())
        if len(values) == steps:
            break
    return values


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_equals_a_plain_loop(plus, joint):
    module = fresh()
    callback = CLADCallback(BackgroundSwap(), plus=plus, joint=joint, weight=0.7, num_negatives=5)
    fit(module, callback)
    expected = by_hand(fresh(), 3, plus=plus, weight=0.7, joint=joint, num_negatives=5)
    assert [total for _, total in module.losses] == pytest.approx(expected, rel=1e-5)
    assert module.shapes == [(8, K)] * 3  # the user's step sees its own batch only


def test_without_batch_norm_one_pass_equals_two():
    runs = []
    for joint in (False, True):
        module = fresh(model=None)
        module.model = network(batch_norm=False)
        module.model.load_state_dict(runs[0][1] if runs else module.model.state_dict())
        start = copy.deepcopy(module.model.state_dict())
        fit(module, CLADCallback(BackgroundSwap(), joint=joint, plus=True))
        runs.append((module.losses, start))
    for one, two in zip(runs[0][0], runs[1][0], strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_weight_zero_leaves_the_loss_and_a_schedule_is_followed():
    module = fresh()
    fit(module, CLADCallback(BackgroundSwap(), weight=0.0))
    assert all(own == total for own, total in module.losses)
    seen = []

    def schedule(epoch, step):
        seen.append((epoch, step))
        return float(epoch)

    module = fresh()
    fit(module, CLADCallback(BackgroundSwap(), weight=schedule), epochs=2)
    assert seen == [(epoch, 3 * epoch + i) for epoch in range(2) for i in range(3)]
    assert all(own == total for own, total in module.losses[:3])
    assert all(own < total for own, total in module.losses[3:])


def test_parts_are_logged():
    trainer = fit(fresh(), CLADCallback(BackgroundSwap(), plus=True, weight=0.5, num_negatives=3), epochs=2)
    logged = trainer.callback_metrics
    assert set(logged) >= {"clad/loss", "clad/ce_positive", "clad/queue_fill", "clad/weight"}
    assert logged["clad/queue_fill"] == 1
    assert logged["clad/weight"] == 0.5
    assert logged["clad/loss"] > 0


def test_module_is_as_it_was():
    module = fresh()
    names = [name for name, _ in module.named_modules()], list(module.state_dict())
    own = module.training_step
    callback = CLADCallback(BackgroundSwap())
    fit(module, callback)
    assert ([name for name, _ in module.named_modules()], list(module.state_dict())) == names
    assert "training_step" not in vars(module)
    assert module.training_step == own
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())
    fit(module, callback)  # and again


def test_module_is_as_it_was_after_a_failure():
    class Failing(Plain):
        def training_step(self, batch, batch_idx):
            self.classify(batch[0])
            raise RuntimeError("the user's own error")

    module = Failing()
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(module, CLADCallback(BackgroundSwap(), joint=True))
    assert "training_step" not in vars(module)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())


class ByForward(Plain):
    def forward(self, image):
        return self.model(image)

    def classify(self, image):
        return self(image)


class ByForwardMethod(ByForward):
    def __init__(self):
        super().__init__()
        self.body, self.head = self.model[:-1], self.model[-1]
        del self.model

    def forward(self, image):
        return self.head(self.body(image))

    def classify(self, image):
        return self.forward(image)  # around the hooks


class WholeBatch(ByForward):
    def forward(self, batch):
        return {"logits": self.model(batch["image"])}

    def training_step(self, batch, batch_idx):
        return {"loss": F.cross_entropy(self(batch)["logits"], batch["label"])}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses.append((0, outputs["loss"].item()))


@pytest.mark.parametrize("kind", [Plain, ByForward, ByForwardMethod])
def test_ways_to_the_network_give_the_same(kind):
    torch.manual_seed(0)
    module = kind()
    fit(module, CLADCallback(BackgroundSwap()))
    assert [total for _, total in module.losses] == pytest.approx(by_hand(fresh(), 3), rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_dict_batches_and_dict_outputs(joint):
    torch.manual_seed(0)
    module = WholeBatch()
    spec = BatchSpec(image="image", label="label", mask="mask")
    fit(module, CLADCallback(BackgroundSwap(), spec=spec, joint=joint), form="dict")
    assert [total for _, total in module.losses] == pytest.approx(by_hand(fresh(), 3, joint=joint), rel=1e-5)


def test_images_normalised_by_the_step_are_swapped_as_they_enter_the_network():
    class Normalising(Plain):
        def classify(self, image):
            return self.model(image - 0.5)

    callback = CLADCallback(BackgroundSwap())
    with pytest.warns(UserWarning, match="training_step changes the images before Sequential gets them"):
        fit(Normalising(), callback)
    assert callback.loss.queue.fill.sum() > 0


def test_any_layer_by_name_and_maps_are_averaged():
    for layer, width in (("model.4", 216), ("model.2", 6), ("model.6", 10)):
        callback = CLADCallback(BackgroundSwap(), num_classes=K, layer=layer, plus=True)
        fit(fresh(), callback)
        assert callback.loss.queue.dim == width


def test_an_ambiguous_head_lists_the_candidates():
    class TwoHeads(Plain):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(10, K)

    with pytest.raises(
        LookupError, match=r"name one of: model\.6 \(10 -> 4\), other \(10 -> 4\); pass CLADCallback\(layer"
    ):
        fit(TwoHeads(), CLADCallback(BackgroundSwap()))
    fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="model.6"))
    with pytest.raises(LookupError, match="'other' took no part in training_step"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="other"))
    with pytest.raises(KeyError, match=r"layer 'model\.60' is not in TwoHeads; near names: model\.6"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), num_classes=K, layer="model.60"))


class MultiLabel(Plain):
    def criterion(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits, target)


def test_multi_label_targets():
    spec = BatchSpec(image="image", label="many", mask="mask")

    def module():
        return MultiLabel(image="image", label="many")

    with pytest.raises(TypeError, match="expected one class a sample .* pass label_of="):
        fit(module(), CLADCallback(BackgroundSwap(), spec=spec), form="dict")
    callback = CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda target: target.argmax(1))
    fit(module(), callback, form="dict")
    assert callback.loss.queue.fill.sum() > 0
    with pytest.raises(TypeError, match="pass criterion=F.binary_cross_entropy_with_logits"):
        fit(module(), CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda t: t.argmax(1), plus=True), form="dict")
    criterion = F.binary_cross_entropy_with_logits
    settings = {"label_of": lambda t: t.argmax(1), "plus": True, "criterion": criterion}
    trainer = fit(module(), CLADCallback(BackgroundSwap(), spec=spec, **settings), form="dict")
    assert trainer.callback_metrics["clad/ce_positive"] > 0
    site = BatchSpec(image="image", label="many", mask="mask", background_label="site")
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=site)  # the batch says the key
    fit(module(), callback, form="dict")
    assert callback.loss.queue.fill.tolist() == [(Objects().site == 1).sum(), (Objects().site == 0).sum()]


def test_the_key_may_be_the_site():
    spec = BatchSpec(image="image", label="label", mask="mask", background_label="site")
    module = fresh(image="image", label="label")
    with pytest.raises(ValueError, match="num_classes: expected how many background labels there are"):
        fit(module, CLADCallback(BackgroundSwap(), spec=spec), form="dict")
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=spec, num_negatives=50)
    fit(module, callback, form="dict")
    data = Objects()
    # every image was put on a background of the other site
    assert callback.loss.queue.fill.tolist() == [(data.site == 1).sum(), (data.site == 0).sum()]
    assert sorted(callback.loss.queue.foreground[callback.loss.queue.foreground >= 0].tolist()) == sorted(
        data.label.tolist()
    )


def test_positives_from_a_bank():
    bank = BackgroundBank(torch.rand(12, 3, SIZE, SIZE), torch.arange(12) % K)
    callback = CLADCallback(BackgroundSwap(bank))
    fit(fresh(), callback)
    queue = callback.loss.queue
    filled = torch.arange(queue.size) < queue.fill[:, None]
    assert (queue.foreground[filled] >= 0).all()
    assert (queue.foreground != torch.arange(K)[:, None])[filled].all()


@pytest.mark.parametrize("joint", [False, True])
def test_a_resumed_fit_equals_an_uninterrupted_one(tmp_path, joint):
    def callback():
        return CLADCallback(BackgroundSwap(pattern="voronoi", cells=3), joint=joint, plus=True, num_negatives=5)

    whole = fresh()
    fit(whole, callback(), epochs=4)
    first = fresh()
    trainer = fit(first, callback(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(7)  # the global generator may be anywhere
    second = fresh(seed=5)
    fit(second, callback(), epochs=4, ckpt=tmp_path / "half.ckpt")
    assert first.losses + second.losses == whole.losses
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_two_at_once_keep_their_own_state(tmp_path):
    def callbacks():
        site = BatchSpec(image="image", label="label", mask="mask", background_label="site")
        plain = BatchSpec(image="image", label="label", mask="mask")
        return CLADCallback(BackgroundSwap(), num_classes=2, spec=site), CLADCallback(BackgroundSwap(), spec=plain)

    first = callbacks()
    trainer = fit(fresh(image="image", label="label"), *first, form="dict")
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    second = callbacks()
    fit(fresh(image="image", label="label"), *second, form="dict", ckpt=tmp_path / "two.ckpt")  # nothing left to do
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.loss.queue.rows, two.loss.queue.rows)


def test_gradient_accumulation_equals_the_sum_of_its_parts():
    module = fresh(lr=0.1)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)
    start = copy.deepcopy(module.model)
    fit(module, CLADCallback(BackgroundSwap(), num_negatives=4), accumulate_grad_batches=3)
    reference = CLADCallback(BackgroundSwap(), num_negatives=4)
    loss = CLADLoss(K, None, 4)
    for image, label, mask in DataLoader(Objects(), batch_size=8):
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        anchor, positive = start[:-1](image), start[:-1](other)
        total = F.cross_entropy(start[-1](anchor), label)
        ((total + loss(anchor, positive, label, reference.swap.drawn["background_label"])) / 3).backward()
        reference.steps += 1
    for ours, theirs in zip(module.model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


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
