"""What runs a network: ISNet, LRP, attributions, concepts, heads, measurements; the network has drawn weights."""

from __future__ import annotations

from typing import Any

import torch
from any_tensors import Drawn
from promises import promise
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from torch_bgdebias import attribution, audit, concepts, heads, isnet, lrp, probe
from torch_bgdebias.batch import BatchSpec

#: errors may name the network's layers, what is computed of it, and the parts of a batch
WORDS = ("relevance", "logits", "layer", "image", "mask", "label", "activations", "vectors", "features", "feature")


def network(t: Drawn, *, classes: int = 3, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()]
    layers += [nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(4, 4, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    t.network(net)
    return net.eval()


def batches(t: Drawn, count: int = 2) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(t.image().detach(), t.labels(3).long(), t.mask()) for _ in range(count)]


@promise("isnet.dim_background", "isnet.BackgroundDimming", "isnet.draw_keep")
def dimmed(t: Drawn) -> Any:
    keep = isnet.draw_keep(t.batch, t.choose((1.0, 0.0, 0.5)), generator=t.generator)
    return (
        isnet.dim_background(t.image(), t.mask(), keep),
        isnet.BackgroundDimming(t.choose((1.0, 0.5)))(t.image(), t.mask(), generator=t.generator),
    )


@promise("isnet.heatmap_loss")
def heatmaps(t: Drawn) -> Any:
    relevance = t.floats(t.batch, t.choose((1, 2)), t.choose((3, 1)), *t.size)
    return isnet.heatmap_loss(
        relevance,
        t.mask(),
        relevance_range=t.choose(((1.0, 25.0), (1e-6, 1e-3))),
        rank_decay=t.choose((0.9, 1.0, 0.1)),
        foreground=t.choose(("hybrid", "l2")),
        normalization=t.choose(("absolute", "signed")),
        reduction=t.choose(("mean", "none")),
    )


@promise("isnet.ISNetLoss")
def heatmap_module(t: Drawn) -> Any:
    form = t.choose((None, "share", "paper"))
    loss = isnet.ISNetLoss(mask_dilation=t.choose((2, 0)), reduction=t.choose(("mean", "none")), form=form)
    relevance = t.floats(t.batch, t.choose((1, 2)), 3, *t.size)
    hidden = t.choose((None, {"a": t.floats(*relevance.shape[:2], 4, *((s + 1) // 2 for s in t.size))}))
    return loss(relevance, t.mask(), hidden, t.void())


@promise("isnet.ISNet", words=(*WORDS, "epsilon"), heavy=True)
def explained(t: Drawn) -> Any:
    wrapped = isnet.ISNet(
        network(t, norm=t.choose((True, False))), t.choose(("selective", "stochastic", "dual", "original")),
        attribution=t.choose(("lrp", "gradient")) if t.choose((True, False)) else "lrp",
        deep_supervision=t.choose(((), ("2",))),
    )  # fmt: skip
    explanation = wrapped.explain(t.image(), generator=t.generator)
    t.leaves.extend(parameter for parameter in wrapped.parameters() if parameter.requires_grad)
    loss = isnet.ISNetLoss()(explanation.relevance, t.mask(), explanation.hidden)
    return explanation.logits, explanation.relevance.detach(), loss


@promise("isnet.GradientBalance", words=("parameters",))
def balance(t: Drawn) -> Any:
    weight = t.floats(4)
    if not weight.requires_grad:
        return None
    scale = isnet.GradientBalance(every=1)
    own, other = weight.double().square().mean(), weight.double().sum() * 3
    return [scale(own, other, [weight]) for _ in range(2)], scale.scale


@promise("isnet.heatmap_figure", heavy=True)
def figure(t: Drawn) -> Any:
    from matplotlib import pyplot as plt

    relevance = t.floats(t.batch, t.choose((1, 2)), 3, *t.size)
    drawn = isnet.heatmap_figure(t.image(), relevance, t.choose((None, t.mask())))
    drawn.canvas.draw()
    plt.close(drawn)


@promise("isnet.calibrate_relevance_range", "isnet.calibrate_relevance_ranges", words=WORDS, heavy=True)
def calibrated(t: Drawn) -> Any:
    return isnet.calibrate_relevance_range(isnet.ISNet(network(t)), batches(t))


@promise("isnet.Watch", words=WORDS, heavy=True)
def watched(t: Drawn) -> Any:
    rules = isnet.Rules(t.choose(("selective", "dual")))
    wrapped = isnet.ISNet(network(t), rules)
    image = t.image()
    with wrapped.watching() as seen:
        wrapped(image)
    return seen.explain(create_graph=False)


@promise("lrp.relevance", words=(*WORDS, "target"), heavy=True)
def propagated(t: Drawn) -> Any:
    composite = lrp.FlexComposite(t.choose((1e-2, 0.0)), batch_norm=t.choose(("linear", "exact")))
    target = t.choose((None, t.labels(3).long()))
    return lrp.relevance(network(t), t.image(), target, composite, create_graph=t.choose((None, True, False)))


@promise("lrp.FlexPass", "lrp.FlexComposite", words=WORDS)
def inside(t: Drawn) -> Any:
    net, image = network(t), t.image().detach().clone().requires_grad_()
    flex = lrp.FlexPass(t.choose((1e-2, 0.0)))
    with flex:
        logits = net(image)
        (gradient,) = torch.autograd.grad(logits.sum(), image)
    return image.detach() * gradient


@promise("lrp.trainable", words=WORDS)
def rules_for_training(t: Drawn) -> Any:
    return lrp.relevance(network(t), t.image(), None, lrp.trainable(lrp.FlexComposite(1e-2)), create_graph=True)


@promise("attribution.grad_cam", "attribution.find_map_layer", words=(*WORDS, "target"), heavy=True)
def cam(t: Drawn) -> Any:
    net, image = network(t), t.image()
    layer = t.choose((None, "5", attribution.find_map_layer(net, image)))
    return attribution.grad_cam(net, image, t.choose((None, 1, t.labels(3))), layer=layer)


@promise("attribution.kernel_shap", "attribution.superpixels", "attribution.sample_coalitions", words=WORDS, heavy=True)
def shap(t: Drawn) -> Any:
    grid = t.choose(((2, 2), (1, 1), (1, 3)))
    given = t.choose((grid, attribution.superpixels(t.size, grid)))
    coalitions = attribution.sample_coalitions(grid[0] * grid[1], 16, generator=t.generator)
    baseline = t.choose(("mean", "blur", "black", t.floats(3, *t.size)))
    return attribution.kernel_shap(
        network(t), t.image(), t.choose((None, 1, t.labels(3))), segments=given, samples=16, baseline=baseline,
        coalitions=t.choose((None, coalitions)), probability=t.choose((False, True)), generator=t.generator,
    )  # fmt: skip


@promise("attribution.lrp", words=(*WORDS, "target"), heavy=True)
def lrp_maps(t: Drawn) -> Any:
    return attribution.lrp(network(t), t.image(), t.choose((None, 1, t.labels(3))))


def maps(t: Drawn) -> Tensor:
    return t.floats(t.batch, 4, t.choose((3, 1)), t.choose((2, 1)))


def vectors(t: Drawn) -> Tensor:
    return t.choose((t.floats(4), t.floats(t.batch, 4)))


@promise("concepts.concept_iou", undefined=("result",))
def iou(t: Drawn) -> Any:
    return concepts.concept_iou(vectors(t), maps(t), t.mask(), t.void())


@promise("concepts.concept_objective")
def objective(t: Drawn) -> Any:
    return concepts.concept_objective(vectors(t), maps(t), t.mask(), t.void())


@promise("concepts.fit_concepts", "concepts.fit_loce", "concepts.fit_net2vec", heavy=True)
def fitted(t: Drawn) -> Any:
    activations, mask, void = maps(t), t.mask(), t.void()
    return (
        concepts.fit_concepts(activations, mask, void=void, group=t.choose((None, t.labels(2).long())), epochs=2),
        concepts.fit_loce(activations, mask, 2, void=void),
        concepts.fit_net2vec(activations, mask, 2, void=void),
    )


@promise("concepts.concept_neighbours", "concepts.concept_outliers", "concepts.concept_tree", undefined=("result",))
def neighbours(t: Drawn) -> Any:
    points, labels = t.floats(t.choose((6, 1, 0)), 4), t.choose((3, 1))
    which = t.labels(labels, rows=len(points)).long()
    count = t.choose((1, 5))
    tree = concepts.concept_tree(points, which)
    return concepts.concept_outliers(points, which, count), concepts.concept_neighbours(points, which, count), tree


@promise("concepts.ConceptProbe", "concepts.ConceptSamples", "concepts.ActivationReader", "concepts.choose_layers",
         words=(*WORDS, "images", "masks", "concepts", "layers"), least=4, heavy=True,
         undefined=("result",))  # fmt: skip
def concept_fit(t: Drawn) -> Any:
    net, image, mask = network(t), t.image(), t.mask()
    layers = t.choose((("2",), concepts.choose_layers(net, image)))
    read = concepts.ActivationReader(net, layers)(image)
    fitted = concepts.ConceptProbe(net, layers, epochs=2).fit(image, mask, t.labels(2).long())
    samples = concepts.ConceptSamples(image, mask, t.labels(2).long())
    return read, fitted.vectors, samples.images


@promise("concepts.concept_transfer", words=(*WORDS, "train", "test", "concept", "images"), least=4, heavy=True,
         undefined=("result",))  # fmt: skip
def transferred(t: Drawn) -> Any:
    samples = concepts.ConceptSamples(t.image(), t.mask(), t.labels(1).long())
    return concepts.concept_transfer(concepts.ConceptProbe(network(t), ["2"], epochs=2), samples, samples).iou


@promise("heads.fit_debiased_head", words=(*WORDS, "loader", "class", "classes", "embedding"), heavy=True)
def head(t: Drawn) -> Any:
    rows = [(t.image().detach(), t.labels(3).long(), t.mask()) for _ in range(4)]
    return heads.fit_debiased_head(network(t), rows, layer="8").head


@promise("probe.evaluate_background_bias", words=(*WORDS, "loader", "images"), heavy=True, undefined=("result",))
def evaluated(t: Drawn) -> Any:
    return probe.evaluate_background_bias(network(t), batches(t), num_classes=3, examples=1)


@promise("probe.certify_backgrounds", words=(*WORDS, "loader", "images"), heavy=True, undefined=("result",))
def certified(t: Drawn) -> Any:
    pool = torch.randint(0, 256, (5, 3, *t.size), generator=t.generator, dtype=torch.uint8)
    return probe.certify_backgrounds(network(t), batches(t), pool, source="noise", per_object=2)


@promise("probe.mask_sensitivity", words=(*WORDS, "loader", "images"), heavy=True, undefined=("result",))
def sensitive(t: Drawn) -> Any:
    settings = probe.EvaluationSettings(num_classes=3)
    return probe.mask_sensitivity(network(t), batches(t, 1), settings=settings)


@promise("audit.discover", words=(*WORDS, "dataset", "images", "pictures", "class"), least=4, heavy=True,
         undefined=("result",))  # fmt: skip
def discovered(t: Drawn) -> Any:
    images = torch.cat([t.image().detach() for _ in range(3)])
    dataset = TensorDataset(images, torch.arange(len(images)) % 3, torch.zeros(len(images), 1, *t.size))
    return audit.discover(network(t), dataset, spec=BatchSpec(mask=None) if t.choose((False, True)) else None)
