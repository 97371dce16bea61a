"""What ISNetCallback's errors advise works: each error first, then a training that follows its advice."""

from __future__ import annotations

import pytest
import small_training as small
import torch
import torch.nn.functional as F
from torch import nn

from torch_bgdebias import ISNet, ISNetLoss
from torch_bgdebias.callbacks import ISNetCallback

pytestmark = pytest.mark.filterwarnings("ignore")


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {"model": model, "head": nn.Linear(6, small.CLASSES), "net": None}


def of(training_step, **methods):
    """A module of a backbone and a head that nothing joins."""
    module = small.theirs(training_step=training_step, **methods)
    if training_step is parts_of_one:
        module.net, module.whole = None, nn.Sequential(*parts()["model"], parts()["head"])
        return module
    for name, part in parts().items():
        setattr(module, name, part)
    return module


def apart(self, batch, batch_idx):
    return F.cross_entropy(self.head(self.model(batch[0])), batch[1])


def parts_of_one(self, batch, batch_idx):
    """As ``forward_features`` and ``forward_head`` of one network."""
    features = self.whole[:4](batch[0])
    return F.cross_entropy(self.whole[4:](features), batch[1])


def joined(self, image):
    return self.head(self.model(image))


def by_forward(self, batch, batch_idx):
    return F.cross_entropy(self.forward(batch[0]), batch[1])


def no_grad(self, image):
    with torch.no_grad():
        features = self.model(image)
    return self.head(features)


def frozen(self, image):
    self.model.requires_grad_(False)
    return self.head(self.model(image))


def cropping(self, batch, batch_idx):
    return F.cross_entropy(joined(self, batch[0][..., 1:, 1:]), batch[1])


def before(self, batch, dataloader_idx):
    image, label, mask = batch
    return image[..., 1:, 1:], label, mask[..., 1:, 1:]


ADVICE = {
    "parts called one after the other": (
        (apart, {}, {}),
        r"network=\('model', 'head'\)",
        (apart, {}, {"network": ("model", "head")}),
    ),
    "a network of which only parts are called": (
        (parts_of_one, {}, {"network": "whole"}),
        r"network=\('whole.0', 'whole.4'\)",
        (parts_of_one, {}, {"network": ("whole.0", "whole.4")}),
    ),
    "features for logits": (
        (by_forward, {"forward": joined}, {"network": "model"}),
        r"further layers .* network=\('backbone', 'head'\)",
        (by_forward, {"forward": joined}, {"network": ("model", "head")}),
    ),
    "the submodule whose output is the logits": (
        (by_forward, {"forward": joined}, {"network": "model"}),
        "with the submodule whose output is the logits",
        (by_forward, {"forward": joined}, {}),
    ),
    "no_grad": (
        (by_forward, {"forward": no_grad}, {}),
        r"freeze weights with requires_grad_\(False\) instead",
        (by_forward, {"forward": frozen}, {}),
    ),
    "a crop in the step": (
        (cropping, {"forward": joined}, {"network": ("model", "head")}),
        "in on_after_batch_transfer, before training_step gets them",
        (by_forward, {"forward": joined, "on_after_batch_transfer": before}, {}),
    ),
}


def fit(step, methods, options):
    module = of(step, **methods)
    module.validation_step = None
    run = small.trainer(
        [ISNetCallback("selective", loss=ISNetLoss(mask_dilation=0), **options)], max_epochs=1, limit_val_batches=0
    )
    run.fit(module, small.loader())
    return run


@pytest.mark.parametrize("case", ADVICE)
def test_the_advice_of_an_error_works(case):
    wrong, text, right = ADVICE[case]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=text):
        fit(*wrong)
    run = fit(*right)
    assert float(run.callback_metrics["isnet/background"]) > 0, "something was explained"


def test_a_network_that_is_no_module_of_the_module_lists_near_names():
    with pytest.raises(LookupError, match="near names: .*head"):
        fit(apart, {}, {"network": "haed"})


def test_manual_optimisation_is_told_what_to_use_by_hand():
    module = of(apart)
    module.automatic_optimization = False
    with pytest.raises(TypeError, match="use ISNet and ISNetLoss in its training_step"):
        small.trainer([ISNetCallback()], max_epochs=1).fit(module, small.loader())
    isnet, loss = ISNet(nn.Sequential(module.model, module.head)), ISNetLoss()
    for image, label, mask in small.loader():
        explanation = isnet.explain(image, create_graph=True)
        total = (
            F.cross_entropy(explanation.logits, label) + loss(explanation.relevance, mask, explanation.hidden).mean()
        )
        total.backward()
    assert module.head.weight.grad.isfinite().all()


def timm_network():
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit", img_size=32, num_classes=small.CLASSES)
    return net, net.set_grad_checkpointing, lambda: net.set_grad_checkpointing(False)


def transformers_network():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_labels=small.CLASSES,
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config)
    return net, net.gradient_checkpointing_enable, net.gradient_checkpointing_disable


def larger(self, batch, dataloader_idx):
    image, label, mask = batch
    return [F.interpolate(image, (32, 32)), label, F.interpolate(mask, (32, 32))]


@pytest.mark.parametrize("make", [timm_network, transformers_network])
def test_gradient_checkpointing_is_refused_and_without_it_the_training_runs(make):
    net, switch_on, switch_off = make()

    def training_step(self, batch, batch_idx):
        output = self.net(batch[0])
        return F.cross_entropy(getattr(output, "logits", output), batch[1])

    def fit():
        module = small.theirs(training_step=training_step, on_after_batch_transfer=larger)
        module.net = net
        small.trainer([ISNetCallback(network="net")], max_epochs=1).fit(module, small.loader())
        assert small.weights(module).isfinite().all()

    switch_on()
    with pytest.raises(RuntimeError, match=r"torch.utils.checkpoint.*set_grad_checkpointing\(False\); transformers"):
        fit()
    switch_off()
    fit()
