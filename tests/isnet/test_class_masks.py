"""A mask a class, and classes that may use the background."""

from __future__ import annotations

import pytest
import torch
from network_to_explain import PlainHeatmaps, assert_differ, assert_same, data, loader, trainer
from small_training import Module
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.isnet import ISNet, ISNetLoss
from torch_bgdebias.isnet.class_masks import dimming_mask, loss_mask
from torch_bgdebias.isnet.rules import Rules
from torch_bgdebias.isnet.shares import pixel_ratio

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def heatmaps(batch: int = 3, maps: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    relevance = torch.randn(batch, maps, 2, 6, 7, generator=g)
    return relevance, (torch.rand(batch, maps, 1, 6, 7, generator=g) < 0.4).float()


@pytest.mark.parametrize("loss", [ISNetLoss(mask_dilation=1), ISNetLoss.paper(mask_dilation=0)])
def test_every_heatmap_is_judged_by_its_own_mask(loss):
    relevance, mask = heatmaps()
    void = torch.zeros(3, 1, 6, 7)
    void[:, :, 0] = 1
    terms = loss.terms(relevance, mask, void=void)
    alone = [loss.terms(relevance[:, m : m + 1], mask[:, m], void=void) for m in range(4)]
    for name in ("loss", "background", "foreground"):
        torch.testing.assert_close(getattr(terms, name), torch.stack([getattr(t, name) for t in alone], 1).mean(1))
    same = loss.terms(relevance, mask[:, :1].expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(same.loss, loss.terms(relevance, mask[:, 0]).loss)
    shares = torch.stack([pixel_ratio(relevance[:, m : m + 1], mask[:, m]) for m in range(4)], 1).mean(1)
    torch.testing.assert_close(pixel_ratio(relevance, mask), shares)


def test_hidden_layers_too_and_other_numbers_of_masks_are_refused():
    relevance, mask = heatmaps()
    hidden = {"a": torch.randn(3, 4, 5, 3, 3, generator=torch.Generator().manual_seed(1))}
    loss = ISNetLoss(mask_dilation=0)
    alone = [loss.terms(relevance[:, m : m + 1], mask[:, m], {"a": hidden["a"][:, m : m + 1]}).loss for m in range(4)]
    torch.testing.assert_close(loss.terms(relevance, mask, hidden).loss, torch.stack(alone, 1).mean(1))
    with pytest.raises(ValueError, match=r"mask: expected \(3, 4, 1, H, W\), a mask for each heatmap, got \(3, 2"):
        loss.terms(relevance, mask[:, :2])


@pytest.mark.parametrize("variant", ["original", "dual", "stochastic"])
def test_exempt_classes_are_not_explained(variant):
    """A gradient of the heatmaps reaches the last layer's weights of the other classes alone."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    image, g = torch.rand(5, 3, 4, 4), torch.Generator().manual_seed(0)
    explained = ISNet(net, variant, exempt=[1, 3]).explain(image, create_graph=True, generator=g)
    assert explained.relevance.shape[1] == {"original": 2, "dual": 2, "stochastic": 1}[variant]
    explained.relevance.abs().sum().backward()
    by_class = net[-1].weight.grad.abs().sum(1)
    assert by_class[[1, 3]].tolist() == [0, 0]
    assert (by_class[[0, 2]] > 0).all()
    if variant == "original":
        every = ISNet(net, variant).explain(image).relevance
        torch.testing.assert_close(explained.relevance, every[:, [0, 2]])


def test_classes_that_cannot_be_exempt():
    with pytest.raises(ValueError, match="exempt: the selective variant explains the log-odds"):
        Rules(exempt=[0])
    with pytest.raises(ValueError, match=r"exempt: expected different classes, numbers from 0, got \[0, 0\]"):
        Rules("dual", exempt=[0, 0])
    for exempt in ([7], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="expected some but not all of the 4 classes 0 to 3"):
            ISNet(Module().net, "dual", exempt=exempt).explain(data().tensors[0][:2])


def test_in_a_training_masks_of_classes_are_taken_from_the_batch():
    image, label, mask = data().tensors
    same = DataLoader(TensorDataset(image, label, mask.expand(-1, 4, -1, -1).contiguous()), batch_size=8)
    with_classes, with_one, other = Module(), Module(), Module()
    options = {"dimming": 1.0, "validate": True}
    trainer(PlainHeatmaps("original", **options)).fit(with_classes, same)
    trainer(PlainHeatmaps("original", **options)).fit(with_one, loader())
    trainer(PlainHeatmaps("original", exempt=[2], **options)).fit(other, same)
    assert_same(with_classes, with_one, rtol=1e-4, atol=1e-6)
    assert_differ(with_classes, other)
    with pytest.raises(ValueError, match="which variant='original' has and 'selective' has not"):
        trainer(PlainHeatmaps()).fit(Module(), same)


def test_one_mask_an_image_stays_as_it_is():
    for shape in ((2, 1, 3, 3), (2, 3, 3)):
        mask = torch.ones(shape)
        assert dimming_mask(mask) is mask
        assert loss_mask(mask, Rules()) is mask
    masks = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    masks[0, 1, 0, 0] = True
    assert dimming_mask(masks).shape == (2, 1, 2, 2)
    assert int(dimming_mask(masks).sum()) == 1
    assert loss_mask(masks, Rules("original", exempt=[1])).shape == (2, 2, 1, 2, 2)
