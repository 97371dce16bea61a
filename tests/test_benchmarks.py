"""The scripts that measure and that draw mutants: they run, read what is printed, and note what fails."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.floors import Floor, described, floors

ROOT = Path(__file__).resolve().parents[1]
PRINTED = {
    "bench_voronoi.py --starts": "2, fresh           12.10         11.90          0.98          1.17         21.70",
    "bench_data.py": "reading            6.89 ms an image, 1.17 x by hand",
    "bench_train.py": "| bgdebias train | 1.17 s | 1.04 |",
    "bench_voronoi.py": "voronoi_composite             9.15       9.01-9.40     1.17    9.00    0.90     111",
    "bench_swap.py": "bank  voronoi:    47.0 ms (46.0 to 48.0),    681 images/s,  4.2 x clone(), of it drawing 1.3 ms;"
    " loop 1188.0 ms, 1.17 x",
    "bench_clad.py": "| CLADLoss | 1.17 | 1.90-2.10 | 1.80 | 1.0 | 1.0 |",
    "bench_kernel_shap.py": "| resnet18 | 32 | 34.6 | 25.4 | 331.2 | 44.3 | 1.17 x | 1.7 x |",
    "bench_isnet.py": '{"model": "resnet18", "ratio": {"plain": 1.0, "selective": 1.17, "stochastic": 2.0}, '
    '"processor_ratio": {"plain": 1.0, "selective": 3.0, "stochastic": 2.0}}',
    "bench_probe.py": "| off | 1 | 160 | 10.95 s | 2.20 s | 1.17 |",
    "bench_scale.py": "evaluate_background_bias: 1.17 s beyond model (1.8 s) and loader (1.3 s); peak 0.56 GB above",
    "bench_concepts.py": "plain, one class at a time: 22.8 s, 1.17 x; relative difference 1.0e-06",
}


def mutants():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / ".ci" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("floor", floors(), ids=lambda floor: floor.name)
def test_a_floor_has_a_command_and_is_read_off_what_it_prints(floor):
    script, *options = floor.command.split()
    text = (ROOT / script).read_text()
    assert all(f'"{option}"' in text for option in options if option.startswith("--"))
    assert not floor.quoted or Path(script).name in (ROOT / floor.quoted).read_text()
    sample = next(line for key, line in PRINTED.items() if key in floor.command)
    threads = re.match(r"\^(\d), (\w+)", floor.figure)
    if threads:
        sample = re.sub(r"^2, \w+", ", ".join(threads.groups()), sample)
    assert floor.read(f"machine\n{sample}\n") == 1.17 or floor.name == "swap, bank, Voronoi cells"


@pytest.mark.parametrize("floor", floors(), ids=lambda floor: floor.name)
def test_a_floor_says_what_it_printed_and_why_a_goal_is_missed(floor):
    assert floor.machine
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", floor.date)
    held = floor.printed is not None and floor.reached(floor.printed)
    assert bool(floor.missed) != held, "a reason where the goal is missed or open, and only there"
    assert ("held" if held else "open" if floor.printed is None else "missed") in described(floor)
    assert floor.command in described(floor)
    assert floor.missed in described(floor)


def test_every_command_beside_a_figure_of_speed_has_a_floor():
    quoted = {
        name for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for name in re.findall(r"benchmarks/\s*(bench_\w+\.py)", path.read_text())
    }  # fmt: skip
    assert quoted - {Path(floor.command.split()[0]).name for floor in floors()} == {"bench_concepts_memory.py"}


def test_a_floor_knows_its_side_and_says_what_it_cannot_read():
    there = ("a machine", "2026-11-28")
    most = Floor("time", "bench.py", r"(\d+) ms", "ms", 2.0, *there)
    least = Floor("speed", "bench.py", r"(\d+) x", "x", 2.0, *there, least=True)
    assert [most.reached(x) for x in (1.0, 2.0, 3.0)] == [True, True, False]
    assert [least.reached(x) for x in (1.0, 2.0, 3.0)] == [False, True, True]
    with pytest.raises(ValueError, match=r"time: expected .* in what bench.py prints"):
        most.read("no figure")


def test_parts_of_the_gpu_script_are_isolated():
    assert gpu.isolated([sys.executable, "-c", "print('here')"], 30) == ("finished", "here\n")
    state, said = gpu.isolated([sys.executable, "-c", "raise SystemExit('no card')"], 30)
    assert state == "failed with 1"
    assert "no card" in said
    assert gpu.isolated([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)[0].startswith("stopped after")


@pytest.mark.parametrize("parts", [["composite", "clad"], pytest.param([], marks=pytest.mark.slow)])
def test_the_gpu_script_runs_to_its_end_without_a_card(tmp_path, parts):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--tiny", "--build", "none", "--out", str(out)]
    done = subprocess.run([*command, *(["--parts", *parts] if parts else [])], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert list(result["parts"]) == (parts or ["composite", "no step waits", *gpu.MEASURED[1:], "tests"])
    for name, part in result["parts"].items():
        assert part["state"] == "finished", (name, part)
        assert part.get("rows") or part.get("tests"), name
    bits = [row for row in result["parts"]["composite"]["rows"] if "bits" in row["name"]]
    assert len(bits) == 4
    assert all(row["reached"] for row in bits)


def test_mutants_are_drawn_by_the_seed_and_change_one_operation():
    script = mutants()
    drawn = script.drawn(60, 3)
    assert drawn == script.drawn(60, 3)
    assert drawn != script.drawn(60, 4)
    for mutant in drawn:
        before = mutant.path.read_text()
        after = mutant.applied(before)
        assert ast.dump(ast.parse(before)) != ast.dump(ast.parse(after)), mutant
        changed = [
            i for i, pair in enumerate(zip(before.splitlines(), after.splitlines(), strict=True), 1) if len({*pair}) > 1
        ]
        assert changed == [mutant.line]
        assert script.mirror(mutant.path), mutant


def test_mutants_leave_docstrings_messages_and_annotations_alone(tmp_path):
    path = tmp_path / "example.py"
    path.write_text(
        '"""One of 2."""\ndef f(x: Literal[1], y=3):\n    """Of 4."""\n    warnings.warn("5" + str(6))\n'
        '    if x < y:\n        raise ValueError(f"{7 + x}", 8)\n    return x + "9" + y * 10\n'
    )
    places = {(mutant.line, mutant.old) for mutant in mutants().Places(path).mutants}
    assert places == {(2, "3"), (5, "<"), (7, "*"), (7, "10"), (7, "+")}
