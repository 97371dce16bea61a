"""Methods of others, on the photographs' network and with its training: the same data, epochs and learning rates."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from experiments.photos.attributed import pixel_ratios
from experiments.photos.run import TESTS, Classifier, fit, once
from experiments.photos.settings import MEAN, OBJECTS, SCENES, STD, Photographs, network
from torch_bgdebias.heads import fit_debiased_head
from torch_bgdebias.masks import grabcut_masks

__all__ = ["RIVALS"]

#: answers to images and masks
Answer = Callable[[Tensor, Tensor], Tensor]
#: how it answers, the network where that needs no masks, and what the training cost
Result = tuple[Answer, nn.Module | None, dict[str, Any]]


class RightReasons(Classifier):
    """Input gradients outside of the object are penalised (right for the right reasons, arXiv 1703.03717).

    The weight makes both losses equal in the first step; their advice is that they be of similar size.
    """

    weight: float | None = None

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        image = batch[0].detach().requires_grad_()
        logits = self(image)
        answer = F.cross_entropy(logits, batch[1])
        (gradient,) = torch.autograd.grad(logits.log_softmax(1).sum(), image, create_graph=True)
        reason = ((1 - batch[2]) * gradient).square().sum() / len(image)
        if self.weight is None:
            self.weight = float(answer.detach() / reason.detach())
        return answer + self.weight * reason


class MaskedImages(Classifier):
    """Sees the object alone, on grey, in training and in the tests: it needs masks for ever."""

    def answer(self, image: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.net(image * mask)
        return logits

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.answer(batch[0], batch[2]), batch[1])


class MaskedPooling(MaskedImages):
    """Features outside of the object do not reach the last layer; it needs masks for ever."""

    def answer(self, image: Tensor, mask: Tensor) -> Tensor:
        features = self.net.forward_features(image)
        weight = F.adaptive_avg_pool2d(mask, features.shape[-2:])
        pooled = (features * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        logits: Tensor = self.net.classifier(pooled)
        return logits


class GroupDRO(Classifier):
    """The worst group of class and background leads (arXiv 1911.08731); a batch has the group at its end."""

    def __init__(self, args: argparse.Namespace, step: float = 0.01) -> None:
        super().__init__(args)
        self.step = step
        groups = len(OBJECTS) * len(SCENES)
        self.register_buffer("share", torch.full((groups,), 1 / groups))

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        losses = F.cross_entropy(self(batch[0]), batch[1], reduction="none")
        count = torch.zeros_like(self.share).index_add_(0, batch[3], torch.ones_like(losses))
        mean = torch.zeros_like(self.share).index_add(0, batch[3], losses) / count.clamp(min=1)
        share = self.share * torch.exp(self.step * mean.detach())
        self.share = share / share.sum()
        return (self.share * mean).sum()


def scored(answer: Answer, tests: dict[str, tuple[Tensor, ...]]) -> dict[str, float]:
    """Percent right, for answers that may need the masks."""
    scores = {}
    with torch.inference_mode():
        for name in TESTS:
            batches = DataLoader(TensorDataset(*tests[name]), 250)
            right = [answer(image, mask).argmax(1) == label for image, label, mask in batches]
            scores[name] = round(100 * float(torch.cat(right).float().mean()), 1)
    return scores


def without_mask(net: nn.Module) -> Answer:
    return lambda image, mask: net.eval()(image)


def plainly(make: Callable[[argparse.Namespace], Classifier]) -> Callable[[Photographs, argparse.Namespace], Result]:
    """A rival that is a training step of its own."""

    def run(data: Photographs, args: argparse.Namespace) -> Result:
        module = make(args)
        train = TensorDataset(*data.train.tensors, data.train.tensors[1] * len(SCENES) + data.scenes)
        _, cost = fit(module, train, args)
        module.eval()
        if isinstance(module, MaskedImages):
            return module.answer, None, cost
        return without_mask(module.net), module.net, cost

    return run


def segmented(data: Photographs, args: argparse.Namespace) -> Result:
    """As masked images, but nobody has masks for the tests: GrabCut makes them."""
    module = MaskedImages(args)
    _, cost = fit(module, data.train, args)
    module.eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def answer(image: Tensor, mask: Tensor) -> Tensor:
        return module.answer(image, grabcut_masks((image * std + mean).clamp(0, 1)))

    return answer, None, cost


def just_train_twice(data: Photographs, args: argparse.Namespace, repeats: int = 6) -> Result:
    """Half of the epochs find what is hard, the other half train anew with it repeated (arXiv 2107.09044)."""
    half = copy.copy(args)
    half.epochs = max(1, args.epochs // 2)
    first, second = Classifier(half), Classifier(half)
    _, cost = fit(first, data.train, half)
    image, label, _ = data.train.tensors
    with torch.inference_mode():
        first.eval()
        wrong = torch.cat([first(x).argmax(1) for x in image.split(250)]) != label
    hard = Subset(data.train, wrong.nonzero().flatten().tolist())
    _, more = fit(second, ConcatDataset([data.train, *[hard] * (repeats - 1)]), half)
    for name in ("seconds", "cpu_seconds"):
        cost[name] = round(cost[name] + more[name], 1)
    return without_mask(second.net), second.net, {**cost, "logged": {"hard": int(wrong.sum())}}


def reweighted_features(data: Photographs, args: argparse.Namespace, draws: int = 10) -> Result:
    """A plain network whose last layer is fitted on as many of each group (deep feature reweighting, arXiv 2204.02937).

    No data are held out: the groups that plain training has seen are balanced. The mean of ``draws`` fits.
    """
    module = Classifier(args)
    _, cost = fit(module, data.train, args)
    start = time.process_time()
    net = module.net.eval()
    image, label, _ = data.train.tensors
    with torch.inference_mode():
        parts = [net.forward_head(net.forward_features(x), pre_logits=True) for x in image.split(250)]
    features, labels = torch.cat(parts).numpy(), label.numpy()
    mean, std = features.mean(0), features.std(0) + 1e-6
    group = labels * len(SCENES) + data.scenes.numpy()
    present, sizes = np.unique(group, return_counts=True)
    random = np.random.default_rng(args.seed[0])
    weights, biases = [], []
    for _ in range(draws):
        chosen = np.concatenate(
            [random.choice(np.flatnonzero(group == g), sizes.min(), replace=False) for g in present]
        )
        fitted = LogisticRegression(C=0.01, max_iter=500).fit((features[chosen] - mean) / std, labels[chosen])
        weights.append(fitted.coef_ / std)
        biases.append(fitted.intercept_ - (fitted.coef_ * mean / std).sum(1))
    with torch.no_grad():
        net.classifier.weight.copy_(torch.from_numpy(np.mean(weights, 0)))
        net.classifier.bias.copy_(torch.from_numpy(np.mean(biases, 0)))
    cost["cpu_seconds"] = round(cost["cpu_seconds"] + time.process_time() - start, 1)
    return without_mask(net), net, {**cost, "logged": {"groups": len(present)}}


def debiased_head(data: Photographs, args: argparse.Namespace) -> Result:
    """This package's: a new last layer on the pretrained network."""
    net = network(len(OBJECTS)).eval()
    image, label, mask = data.train.tensors
    photograph = torch.arange(len(label)) % (len(label) // 4)  # four composites of each, one after the other
    loader = DataLoader(TensorDataset(image, label, mask, photograph), 64, shuffle=True)
    wall, cpu = time.perf_counter(), time.process_time()
    fit_debiased_head(net, loader, group=3).apply_(net)
    seconds = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return without_mask(net), net, {**seconds, "logged": {}}


RIVALS: dict[str, Callable[[Photographs, argparse.Namespace], Result]] = {
    "right-reasons": plainly(RightReasons),
    "masked-images": plainly(MaskedImages),
    "masked-pooling": plainly(MaskedPooling),
    "segment-then-classify": segmented,
    "GroupDRO": plainly(GroupDRO),
    "JTT": just_train_twice,
    "DFR": reweighted_features,
    "head": debiased_head,
}


def run(method: str, seed: int, args: argparse.Namespace, data: Photographs) -> dict[str, Any]:
    """One rival with a seed: accuracies, cost, and the pixel ratios where its network needs no masks."""
    pl.seed_everything(seed, verbose=False)
    args = copy.copy(args)
    args.seed = [seed]
    answer, net, cost = RIVALS[method](data, args)
    line = {"last": scored(answer, data.tests), **cost}
    if net is not None and args.attributions:
        line["pixel_ratio"] = pixel_ratios(net.eval(), once(data.tests["random"]))
    return line
