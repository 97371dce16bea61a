"""Lightning Fabric: swap, CLAD+, ISNet and the measurement in a loop of one's own, in every precision of the CPU."""

from __future__ import annotations

import pytest
import small_training as small
import torch
import torch.nn.functional as F

from torch_bgdebias import BackgroundSwap, CLADLoss, ISNet, ISNetLoss, evaluate_background_bias
from torch_bgdebias.models import find_head, tap

fabric_package = pytest.importorskip("lightning.fabric")
pytestmark = pytest.mark.filterwarnings("ignore")

#: what comes out of a network in this precision differs from float32 by so much at most
PRECISIONS = {"32-true": 0.0, "64-true": 1e-5, "bf16-mixed": 0.03, "16-mixed": 0.03, "bf16-true": 0.03, "16-true": 0.03}


def swapped(network, image, label, mask, parts, generator):
    other = parts["swap"](image, mask=mask, label=label, generator=generator)
    return F.cross_entropy(network(other), label)


def clad_plus(network, image, label, mask, parts, generator):
    head, _ = find_head(network)
    swap = parts["swap"]
    other = swap(image, mask=mask, label=label, different_class=True, generator=generator)
    with tap(network, [head]) as seen:  # what enters the last linear layer is the embedding
        logits, logits_of_other = network(image), network(other)
    anchor, positive = seen.inputs[head]
    contrast = parts["clad"](anchor, positive, label, swap.drawn["background_label"])
    return F.cross_entropy(logits, label) + F.cross_entropy(logits_of_other, label) + contrast


def heatmaps(network, image, label, mask, parts, generator):
    explanation = ISNet(network, "selective").explain(image, create_graph=True)
    heatmap = ISNetLoss(mask_dilation=0)(explanation.relevance, mask, explanation.hidden)
    return F.cross_entropy(explanation.logits, label) + heatmap


LOSSES = {"swap": swapped, "clad+": clad_plus, "isnet": heatmaps}


def trained(loss_of, precision=None):
    """Losses of a loop and the network; by Fabric in a precision, or plainly."""
    network = small.network()
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    loader, backward = small.loader(), torch.Tensor.backward
    if precision is not None:
        fabric = fabric_package.Fabric(accelerator="cpu", precision=precision, devices=1)
        fabric.launch()
        network, optimizer = fabric.setup(network, optimizer)
        loader, backward = fabric.setup_dataloaders(loader), fabric.backward
    parts = {"swap": BackgroundSwap(), "clad": CLADLoss(small.CLASSES)}
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(2):
        for image, label, mask in loader:
            loss = loss_of(network, image, label, mask, parts, generator)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
            losses.append(float(loss.detach()))
    return torch.tensor(losses), network


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_trains_as_a_plain_loop(name, precision):
    (ours, network), (plain, reference) = trained(LOSSES[name], precision), trained(LOSSES[name])
    torch.testing.assert_close(ours, plain, rtol=PRECISIONS[precision], atol=PRECISIONS[precision])
    assert not torch.equal(small.weights(network), small.weights(small.network())), "it was trained"
    assert all("forward" not in vars(module) for module in network.modules() if module is not network)
    if precision == "32-true":
        assert torch.equal(small.weights(network), small.weights(reference))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_measurement_is_that_of_the_network_itself(precision):
    _, network = trained(swapped, precision)
    report = evaluate_background_bias(network, small.loader(), probabilities=True)
    with torch.no_grad():
        logits = network.eval()(small.tensors()[0]).float()
    images = report.images
    expected = logits.argmax(1)[torch.from_numpy(images.position)]
    assert images.prediction["original"].tolist() == expected.tolist()
    assert report.settings["embedding_layer"].endswith(".5")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_heatmaps_are_those_of_the_plain_network(precision):
    fabric = fabric_package.Fabric(accelerator="cpu", precision=precision, devices=1)
    fabric.launch()
    network = small.network()
    wrapped, _ = fabric.setup(network, torch.optim.SGD(network.parameters(), 0.1))
    image = small.tensors()[0][:4]
    explanation, expected = ISNet(wrapped).explain(image), ISNet(small.network()).explain(image)
    assert explanation.relevance.dtype == torch.float32
    torch.testing.assert_close(explanation.logits, wrapped(image), rtol=0, atol=0)
    torch.testing.assert_close(explanation.relevance, expected.relevance, rtol=0.2, atol=0.05)
