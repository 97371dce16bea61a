"""Heatmaps of volumes: exact gradients, the rules of 3D layers against those of images, the loss, refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from finite_differences import assert_agree, derivatives, gradients
from small_training import CallsItsNetwork, fit, loader, theirs
from small_volumes import SIZE, network, volumes
from torch import Tensor, nn

from torch_bgdebias import BatchSpec, ISNet, ISNetLoss
from torch_bgdebias.attribution import grad_cam, kernel_shap
from torch_bgdebias.attribution.relevance import lrp
from torch_bgdebias.callbacks import ISNetCallback
from torch_bgdebias.isnet import dim_background, heatmap_figure
from torch_bgdebias.isnet.functional import dilate_mask, heatmap_loss, resize_mask
from torch_bgdebias.isnet.shares import foreground_share, pixel_ratio

STEPS = (1e-6, 1e-7, 1e-8, 1e-5)  # LRP-epsilon jumps where a sum changes its sign
STATS = {"mean": (0.4, 0.5), "std": (0.3, 0.2)}


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
@pytest.mark.parametrize("stats", [{}, STATS], ids=["gradient", "zbox"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(variant, stats, training):
    """To all parameters, but of "dual" not to the biases, which its relevance pass takes for constants."""
    image, _, mask = volumes(2)
    image, mask = image.double(), mask.double()
    model = network().double().train(training)
    isnet = ISNet(model, variant, dual_target="sum", deep_supervision=["4"], **stats)
    criterion = ISNetLoss(mask_dilation=1)

    def function() -> Tensor:
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm3d)):
            norm.reset_running_stats()  # which every pass in training mode would move
        with torch.enable_grad():
            explanation = isnet.explain(image, create_graph=True, generator=torch.Generator().manual_seed(1))
        return criterion(explanation.relevance, mask, explanation.hidden)

    explanation = isnet.explain(image)
    maps = {"dual": 2, "original": 3}.get(variant, 1)
    assert explanation.relevance.shape == (2, maps, 2, *SIZE)
    assert explanation.hidden["4"].shape == (2, maps, 5, 6, 4, 5)
    weights = [(n, p) for n, p in model.named_parameters() if variant != "dual" or not n.endswith("bias")]
    checks = derivatives(function, weights, gradients(function, model), steps=STEPS, directions=2)
    assert sum(abs(check.exact) > 1e-6 for check in checks) > 7
    assert_agree(checks, floor=1e-6)


def as_images(net: nn.Sequential) -> nn.Sequential:
    """The network of the middle planes of its kernels: what volumes of one slice with padded depth see."""
    flat: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, nn.Conv3d):
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
            conv.weight.data, conv.bias.data = layer.weight.data[:, :, 1], layer.bias.data
            flat.append(conv)
        elif isinstance(layer, nn.BatchNorm3d):
            norm = nn.BatchNorm2d(layer.num_features)
            norm.load_state_dict(layer.state_dict())
            flat.append(norm)
        else:
            kinds = {nn.MaxPool3d: nn.MaxPool2d(2), nn.AvgPool3d: nn.AvgPool2d(2)}
            kinds |= {nn.AdaptiveAvgPool3d: nn.AdaptiveAvgPool2d((1, 2))}
            flat.append(kinds.get(type(layer), layer))
    return nn.Sequential(*flat)


@pytest.mark.parametrize("variant", ["selective", "dual", "original"])
@pytest.mark.parametrize("stats", [{}, STATS], ids=["gradient", "zbox"])
def test_one_slice_is_explained_as_an_image(variant, stats):
    net = network().double().eval()
    net[6] = nn.AvgPool3d((1, 2, 2))
    image = volumes(3)[0][:, :, 2].double()
    flat = ISNet(as_images(net).double().eval(), variant, dual_target="sum", **stats).explain(image)
    thin = ISNet(net, variant, dual_target="sum", **stats).explain(image[:, :, None])
    torch.testing.assert_close(thin.logits, flat.logits)
    torch.testing.assert_close(thin.relevance[:, :, :, 0], flat.relevance)


def test_the_loss_of_volumes_is_that_of_their_slices_side_by_side():
    g = torch.Generator().manual_seed(0)
    relevance, mask = torch.randn(3, 2, 2, *SIZE, generator=g), volumes(3)[2]
    mask[1] = 0
    flat, flat_mask = relevance.flatten(3, 4), mask.flatten(2, 3)
    for criterion in (ISNetLoss(mask_dilation=0), ISNetLoss.paper(mask_dilation=0)):
        torch.testing.assert_close(criterion(relevance, mask), criterion(flat, flat_mask))
        each = mask[:, None].expand(-1, 2, -1, -1, -1, -1)
        torch.testing.assert_close(criterion(relevance, each), criterion(relevance, mask))
    torch.testing.assert_close(heatmap_loss(relevance, mask), heatmap_loss(flat, flat_mask))
    for share in (foreground_share, pixel_ratio):
        torch.testing.assert_close(share(relevance, mask, mask * 0.5), share(flat, flat_mask, flat_mask * 0.5))
    grown = dilate_mask(mask, 1)
    assert grown[0].sum() == 4 * 6 * 6
    assert grown[1].sum() == 0
    small = resize_mask(mask, (3, 4, 5))
    expected = F.avg_pool3d(mask, 2) > 0
    assert torch.equal(small, expected.float())
    dimmed = dim_background(torch.ones(3, 2, *SIZE), mask, torch.tensor([0.0, 0.5, 1.0]))
    assert dimmed.flatten(1).mean(1).tolist() == pytest.approx([float(mask[0].mean()), 0.5, 1.0])


def trained(*, mask_rank: int = 5, **options) -> dict[str, float]:
    image, label, mask = volumes()
    module = theirs()
    module.net = network()
    columns = loader(image, label, mask if mask_rank == 5 else mask[:, 0])
    callback = ISNetCallback(options.pop("variant", "selective"), BatchSpec(), validate=True, **options)
    run = fit(module, callback, train=columns, val=columns)
    return {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("isnet/")}


@pytest.mark.parametrize("options", [{}, STATS, {"variant": "dual", "fraction": 0.5}, {"deep_supervision": ["net.4"]}])
def test_the_callback_trains_and_validates(options):
    logged = trained(**options)
    assert logged["isnet/heatmap_loss"] > 0
    assert logged["isnet/val_heatmap_loss"] > 0
    assert 0 < logged["isnet/val_foreground_share"] < 1
    assert 0 <= logged["isnet/val_pixel_ratio"] < 1
    if not options:
        assert trained(mask_rank=4) == logged  # (B, D, H, W) is no mask a class


def test_masks_of_classes_have_a_depth_as_well():
    image, label, mask = volumes()
    masks = torch.cat([mask, mask.flip(2), mask.flip(4)], 1)
    module = theirs()
    module.net = network()
    run = fit(module, ISNetCallback("original", BatchSpec()), train=loader(image, label, masks))
    assert float(run.callback_metrics["isnet/heatmap_loss"]) > 0


def test_a_network_that_takes_names_gets_volumes():
    class Named(CallsItsNetwork):
        def classify(self, image: Tensor) -> Tensor:
            return self.net(input=image)

    image, label, mask = volumes()
    module = Named()
    module.net = network()
    run = fit(module, ISNetCallback(spec=BatchSpec(), network="net"), train=loader(image, label, mask))
    assert float(run.callback_metrics["isnet/heatmap_loss"]) > 0


def test_what_has_no_depth_is_refused_by_name():
    image, _, mask = volumes(2)
    model = network().eval()
    relevance = ISNet(model).explain(image).relevance
    assert lrp(model, image).shape == (2, 1, *SIZE)
    refused = [
        lambda: grad_cam(model, image), lambda: kernel_shap(model, image),
        lambda: heatmap_figure(image, relevance.detach(), mask),
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(ValueError, match=r"volumes \(B, C, D, H, W\) are not taken here"):
            call()
    with pytest.raises(ValueError, match=r"must return maps \(B, c, d, h, w\) of volumes, got \(2, 10\)"):
        ISNet(model, deep_supervision=["8"]).explain(image)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 1, 6, 8, 10\)"):
        ISNetLoss()(relevance, mask[:, :, :, :, :-1])
    with pytest.raises(ValueError, match=r"hidden\['x'\]: expected maps of the input's rank"):
        ISNetLoss()(relevance, mask, {"x": relevance[:, :, :, 0]})
