"""A report as fields of FiftyOne's samples, where it is installed; and of samples like them, everywhere."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from probe_pages import NAMES, make_report

from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.probe.results.heatmaps import unpacked_heatmap

N = 40


@pytest.fixture
def report() -> BackgroundBiasReport:
    report = make_report(n=N, examples=2, score=True)
    order = np.random.default_rng(0).permutation(N)
    return dataclasses.replace(report, images=dataclasses.replace(report.images, position=order))


@dataclasses.dataclass
class Label:
    """What FiftyOne's labels are made with."""

    label: str = ""
    confidence: float = 0.0
    map: Any = None
    range: Any = None
    classifications: Any = None


class Sample(dict[str, Any]):
    """A sample in memory: fields by name, saved on demand."""

    in_dataset = True
    saved = 0

    def save(self) -> None:
        self.saved += 1


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fiftyone")
    module.Classification = module.Classifications = module.Heatmap = Label  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", module)


def check(report: BackgroundBiasReport, samples: Any, field: str) -> None:
    """Every sample holds what the model said of the image at its position."""
    images = report.images
    for row, position in enumerate(images.position.tolist()):
        sample = samples[position]
        for variant in images.variants:
            answer = sample[f"{field}_{variant}"]
            assert answer.label == NAMES[images.prediction[variant][row]]
            assert answer.confidence == pytest.approx(float(images.confidence[variant][row]))
        own, rand = (images.correct(v)[row] for v in ("mixed_same", "mixed_rand"))
        assert sample[f"{field}_hurt"] == (own and not rand)
    for example in report.examples:
        row = int(np.flatnonzero(images.id == example.id)[0])
        heatmap = samples[int(images.position[row])][f"{field}_heatmap_grad_cam"]
        assert np.allclose(heatmap.map, unpacked_heatmap(example.heatmaps["grad_cam"]))
        assert list(heatmap.range) == [-1, 1]


def test_samples_get_what_was_said_of_their_image(report: BackgroundBiasReport, stand_in: None) -> None:
    samples = [Sample() for _ in range(N)]
    assert report.to_fiftyone(samples, field="bias") == N
    check(report, samples, "bias")
    assert {sample.saved for sample in samples} == {1}
    undefined = {int(report.images.position[row]) for row in range(3)}
    assert {i for i, s in enumerate(samples) if "bias_pixel_ratio_grad_cam" not in s} == undefined


def test_a_view_saves_by_itself_and_images_that_were_not_measured_stay(
    report: BackgroundBiasReport, stand_in: None
) -> None:
    class View(list[Sample]):
        def iter_samples(self, autosave: bool) -> Any:
            assert autosave
            yield from self

    images = dataclasses.replace(report.images, position=report.images.position + 2)
    view = View(Sample() for _ in range(N + 5))
    assert dataclasses.replace(report, images=images).to_fiftyone(view) == N
    assert [i for i, sample in enumerate(view) if not sample] == [0, 1, N + 2, N + 3, N + 4]
    assert not any(sample.saved for sample in view)


def test_too_few_samples_and_unknown_positions_are_refused(report: BackgroundBiasReport, stand_in: None) -> None:
    with pytest.raises(ValueError, match=f"samples: expected one for each image .* at least {N}, got fewer: 3 of {N}"):
        report.to_fiftyone([Sample() for _ in range(N - 3)])
    unknown = dataclasses.replace(report, images=dataclasses.replace(report.images, position=None))
    with pytest.raises(ValueError, match="samples: expected a report that knows each image's place"):
        unknown.to_fiftyone([Sample() for _ in range(N)])


def fiftyone_or_skip() -> Any:
    """FiftyOne keeps data sets in a database, whose server it must find; samples in memory need it on import alone."""
    try:
        return pytest.importorskip("fiftyone")
    except Exception as error:  # its server is not there
        pytest.skip(f"fiftyone cannot be imported: {error}")


def test_real_samples(report: BackgroundBiasReport) -> None:
    fiftyone = fiftyone_or_skip()
    samples = [fiftyone.Sample(filepath=f"/pictures/{i}.jpg") for i in range(N)]
    assert report.to_fiftyone(samples) == N
    check(report, samples, "background")


READ = """
import json, sys, fiftyone
samples = list(fiftyone.load_dataset(sys.argv[1]))
rows = [[s.filepath, s.bias_original.label, s.bias_hurt, s.bias_heatmap_grad_cam is not None] for s in samples]
print(json.dumps(rows))
"""


def test_a_data_set_on_disk_keeps_what_was_written(report: BackgroundBiasReport, tmp_path: Path) -> None:
    """Read by another process from the database, and from a folder to which the data set was exported."""
    fiftyone = fiftyone_or_skip()
    name = f"bgdebias-{tmp_path.name}-{os.getpid()}"
    dataset = fiftyone.Dataset(name, persistent=True)
    try:
        dataset.add_samples([fiftyone.Sample(filepath=str(tmp_path / f"{i}.jpg")) for i in range(N)], progress=False)
        assert report.to_fiftyone(dataset, field="bias") == N
        done = subprocess.run([sys.executable, "-c", READ, name], capture_output=True, text=True, check=True)
        rows = json.loads(done.stdout.splitlines()[-1])
        heated = {int(np.flatnonzero(report.images.id == example.id)[0]) for example in report.examples}
        for row, position in enumerate(report.images.position.tolist()):
            path, label, hurt, has_heatmap = rows[position]
            assert path == str(tmp_path / f"{position}.jpg")
            assert label == NAMES[report.images.prediction["original"][row]]
            own, rand = (report.images.correct(v)[row] for v in ("mixed_same", "mixed_rand"))
            assert (hurt, has_heatmap) == (own and not rand, row in heated)
        kind = fiftyone.types.FiftyOneDataset
        dataset.export(str(tmp_path / "out"), dataset_type=kind, export_media=False, progress=False)
        again = fiftyone.Dataset.from_dir(str(tmp_path / "out"), dataset_type=kind, progress=False)
        check(report, list(again), "bias")
        again.delete()
    finally:
        dataset.delete()
