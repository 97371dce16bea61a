"""The key is any nuisance label: the hospital site of chest radiographs."""

from __future__ import annotations

import csv

import numpy as np
import torch
from PIL import Image
from small_training import Module, fit, loader
from torch import nn
from torch.utils.data import TensorDataset

from torch_bgdebias import BatchSpec
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap

SITES = ("montgomery", "shenzhen")


def read(root, each=8, size=48):
    """``each`` radiographs of every site and diagnosis."""
    groups = {}
    with (root / "index.csv").open() as file:
        for row in csv.DictReader(file):
            groups.setdefault((row["site"], row["class"]), []).append(row)
    images, masks, labels, sites = [], [], [], []
    for (site, diagnosis), rows in sorted(groups.items()):
        for row in rows[:each]:
            for name, store in (("image", images), ("mask", masks)):
                with Image.open(root / row[name]) as picture:
                    store.append(torch.tensor(np.asarray(picture.convert("L").resize((size, size)))))
            labels.append(int(diagnosis != "normal"))
            sites.append(SITES.index(site))
    image = torch.stack(images)[:, None].float() / 255
    return image, torch.tensor(labels), (torch.stack(masks)[:, None] > 127).float(), torch.tensor(sites)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2)
    )


class Rows(TensorDataset):
    def __getitem__(self, i):
        return dict(zip(("xray", "finding", "lungs", "site"), super().__getitem__(i), strict=True))


def test_the_key_is_the_hospital_site(shared_data):
    image, label, mask, site = read(shared_data("chest_xray_tb"))
    spec = BatchSpec(image="xray", label="finding", mask="lungs", background_label="site")
    bank = BackgroundBank.from_dataset(Rows(image, label, mask, site), spec=BatchSpec("xray", "site", "lungs"))
    for source in ("batch", bank):
        callback = CLADCallback(BackgroundSwap(source), num_classes=2, spec=spec, num_negatives=64)
        module = Module(network(), image="xray", label="finding")
        batches = loader(Rows(image, label, mask, site), shuffle=True)
        trainer = fit(module, callback, train=batches, max_epochs=1)
        queue = callback.loss.queue
        if source == "batch":  # a batch of one site has no other: those keep their background and its site
            assert queue.fill.sum() == len(image)
        else:
            # every radiograph was put on a background of the other site, and is there with its finding
            assert queue.fill.tolist() == [(site == 1).sum(), (site == 0).sum()]
            rows = [queue.foreground[key][queue.foreground[key] >= 0].sort().values for key in range(2)]
            assert torch.equal(rows[0], label[site == 1].sort().values)
        _, valid = queue.negatives(site, foreground=label)
        same = queue.foreground[site] == label[:, None]
        assert not (valid & same).any()  # nobody of one's own class is a negative
        assert valid.any()
        assert trainer.callback_metrics["clad/loss"] > 0
