"""The probe in a training with label sets, one logit, no labels and groups: the log holds what the report says."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from probe_modules import fit
from probe_targets import SetReader, label_sets, set_images
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundBiasProbe

TARGETS = label_sets(60)
IMAGE, MASK = set_images(TARGETS)


class Sets(pl.LightningModule):
    """Validates as a model that reads the background; training changes nothing."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.reader = SetReader(corner=True, outputs=outputs)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.reader(image)

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self(batch[0] if isinstance(batch, (list, tuple)) else batch["image"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def logged(probe: BackgroundBiasProbe, module: pl.LightningModule, val: DataLoader) -> dict[str, float]:
    trainer = fit(module, probe, epochs=1, val=val)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def items(label) -> list[tuple]:
    return [(IMAGE[i], label[i], MASK[i]) for i in range(len(IMAGE))]


def test_label_sets_and_groups_in_the_log() -> None:
    site = [("north", "south")[i % 2] for i in range(60)]
    probe = BackgroundBiasProbe(
        task="multilabel", budget=None, groups={"site": site, "row": [i // 20 for i in range(60)]}
    )
    log = logged(probe, Sets(), DataLoader(items(TARGETS), batch_size=7))
    report = probe.report
    assert len(report.images) == 60
    assert log["bias/bg_gap"] == pytest.approx(report.bg_gap.value, abs=1e-6)
    assert log["bias/bg_gap"] > 0.3
    assert log["bias/acc_mixed_rand"] == pytest.approx(report.variants["mixed_rand"].accuracy.value, abs=1e-6)
    assert log["bias/exact_match_mixed_rand"] == pytest.approx(
        report.variants["mixed_rand"].exact_match.value, abs=1e-6
    )
    worst = min(c.accuracy[v].value for c in report.per_class for v in ("original", "mixed_same", "mixed_rand"))
    assert log["bias/worst_class"] == pytest.approx(worst, abs=1e-6)
    of_sites = min(g.accuracy["mixed_rand"].value for g in report.per_group["site"])
    assert log["bias/worst_group_site"] == pytest.approx(of_sites, abs=1e-6)
    assert log["bias/worst_group"] == pytest.approx(min(log["bias/worst_group_site"], log["bias/worst_group_row"]))
    by_position = {int(p): str(s) for p, s in zip(report.images.position, report.images.groups["site"], strict=True)}
    assert [by_position[i] for i in range(60)] == site


def test_one_logit_in_the_log() -> None:
    probe = BackgroundBiasProbe(task="binary", budget=None)
    log = logged(probe, Sets(1), DataLoader(items(TARGETS[:, 0].float()), batch_size=7))
    images = probe.report.images
    assert log["bias/acc_mixed_rand"] == pytest.approx(
        (images.prediction["mixed_rand"] == images.label).mean(), abs=1e-6
    )
    assert log["bias/worst_class"] == pytest.approx(min(c.accuracy["mixed_rand"].value for c in probe.report.per_class))


def test_no_labels_in_the_log() -> None:
    probe = BackgroundBiasProbe(spec=BatchSpec(label=None, mask=1), budget=None, figures=False)
    log = logged(probe, Sets(), DataLoader([(IMAGE[i], MASK[i]) for i in range(60)], batch_size=7))
    assert 0 < log["bias/decision_consistency"] < 1
    assert not {"bias/bg_gap", "bias/worst_variant", "bias/worst_class", "bias/acc_original"} & set(log)
    with pytest.raises(ValueError, match="variants: expected mixed_same and mixed_rand for bg_gap"):
        BackgroundBiasProbe(spec=BatchSpec(label=None), metrics=["bg_gap"])


def test_groups_from_the_batch_stay_with_their_images_in_a_shuffled_loader() -> None:
    rows = [{"image": IMAGE[i], "label": 0, "mask": MASK[i], "site": f"site {i % 3}", "place": i} for i in range(60)]
    spec = BatchSpec("image", "label", "mask")
    val = DataLoader(rows, batch_size=7, shuffle=True)
    options = {"spec": spec, "budget": None, "figures": False, "ids": "place", "unit": "place"}
    probe = BackgroundBiasProbe(groups="site", **options)
    logged(probe, Sets(), val)
    images = probe.report.images
    assert set(images.groups) == {"site"}
    assert [f"site {int(place) % 3}" for place in images.unit] == images.groups["site"].tolist()
    listed = BackgroundBiasProbe(groups={"site": [f"site {i % 3}" for i in range(60)]}, **options)
    with pytest.raises(ValueError, match="a list of names goes by the images' places in the data set"):
        logged(listed, Sets(), val)
    short = BackgroundBiasProbe(groups={"site": ["a"] * 59}, **options)
    with pytest.raises(
        ValueError, match=r"groups\['site'\]: expected a name for each image.*got 59 names for at least 60"
    ):
        logged(short, Sets(), DataLoader(rows, batch_size=7))
    with pytest.raises(TypeError, match=r"groups\['site'\]: expected a place in the batch or a list of names"):
        BackgroundBiasProbe(groups={"site": 0.5})
