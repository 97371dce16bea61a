"""The day with a GPU: tests and figures in one run of at most eight minutes.

    bash .ci/gpu.sh                                       # on the machine with the card
    python benchmarks/gpu.py --device cpu --tiny --out x.json   # without one: shows mistakes in the script, no figures

Each part has a process and a time limit of its own. One that fails or hangs is written down, the others go on, and the
file is written anew after every part, so that whatever ends the run leaves what was measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


Part = dict[str, Any]
#: seconds that each part may take on a card, in order of worth: what comes last is what an end of the time cuts off
SECONDS = {
    "build": 120, "composite": 50, "no step waits": 60, "swap": 40, "isnet": 70, "clad": 30, "kernel_shap": 60,
    "evaluation": 40, "compile": 60, "graph": 20, "tests": 150,
}  # fmt: skip
#: those that are functions of gpu_parts.py
MEASURED = ("composite", "swap", "isnet", "clad", "kernel_shap", "evaluation", "compile", "graph")


def isolated(command: list[str], limit: float) -> tuple[str, str]:
    """How a command ended, and the end of what it said; its whole group of processes is stopped at the limit."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            state = "finished" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            state = f"stopped after {limit:.0f} s"
        log.seek(0)
        return state, log.read().decode(errors="replace")[-4000:]


def build(limit: float, word: str) -> Part:
    command = ["env", f"TORCH_BGDEBIAS_BUILD={word}", sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    state, said = isolated(command, limit)
    return {"state": state, "said": said if state != "finished" else ""}


def tests(limit: float, arguments: list[str]) -> Part:
    """Counts by pytest's own record, and the names of what failed."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += ["-o", "addopts=", "--import-mode=importlib", "--continue-on-collection-errors"]
        state, said = isolated([*command, f"--junitxml={record}", *arguments], limit)
        part: Part = {"state": state, "said": said if state != "finished" else ""}
        if record.exists():
            suite = next(ElementTree.parse(record).iter("testsuite"))
            part |= {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
            part["failed"] = [
                f"{case.get('classname')}::{case.get('name')}" for case in suite.iter("testcase")
                if case.find("failure") is not None or case.find("error") is not None
            ]  # fmt: skip
    return part


def measured(name: str, device: str, tiny: bool, limit: float) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "benchmarks/gpu_parts.py", name, "--device", device, "--out", str(out)]
        state, said = isolated(command + ["--tiny"] * tiny, limit)
        rows = json.loads(out.read_text()) if out.exists() else []
    return {"state": state, "said": said if state != "finished" else "", "rows": rows}


def device_tests() -> list[str]:
    """Files with tests that take a device: the others need packages that the machine may lack, and time to be read."""
    takes_one = re.compile(r"def test_\w+\([^)]*\b(device|accelerator)\b|mark\.cuda\b")
    files = sorted({*(ROOT / "tests").rglob("test_*.py")} - {ROOT / "tests" / "test_no_waiting.py"})  # a part by itself
    return [str(path.relative_to(ROOT)) for path in files if takes_one.search(path.read_text())]


def parts(args: argparse.Namespace) -> dict[str, Callable[[float], Part]]:
    """What is run, by name: each is given the seconds that it may take."""
    ids = "cuda" if args.device == "cuda" else "simulated"
    marked = [*device_tests(), "--device", args.device, "-k", "cuda"]
    if args.tiny:
        marked = ["tests/ops/test_composite_devices.py", "--device", args.device]
    chosen: dict[str, Callable[[float], Part]] = {
        "build": lambda limit: build(limit, args.build),
        "no step waits": lambda limit: tests(limit, ["tests/test_no_waiting.py", "-k", ids]),
        "tests": lambda limit: tests(limit, marked),
    }
    for name in MEASURED:
        chosen[name] = lambda limit, name=name: measured(name, args.device, args.tiny, limit)
    wanted = args.parts or [name for name in SECONDS if name != "build" or args.build != "none"]
    return {name: chosen[name] for name in wanted}


def card(device: str) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "none"
    return {"card": name, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="sizes that show mistakes, and no speed")
    parser.add_argument("--build", default="cuda", choices=["cuda", "cpu", "none"])
    parser.add_argument("--parts", nargs="+", choices=list(SECONDS), help="only these")
    parser.add_argument("--limit", type=float, default=480, help="seconds, all parts together")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = card(args.device)
    slug = re.sub(r"[^a-z0-9]+", "-", about["card"].lower()).strip("-")
    out = args.out or ROOT / "benchmarks" / "results" / f"gpu-{slug}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": about, "tiny": args.tiny, "parts": {}}
    started = time.monotonic()
    for name, run in parts(args).items():
        begun = time.monotonic()
        left = float("inf") if args.tiny else args.limit - (begun - started)
        limit = min(SECONDS[name] * (10 if args.tiny else 1), left)
        part = run(limit) if left > 20 else {"state": "left out: no time"}
        result["parts"][name] = {**part, "seconds": round(time.monotonic() - begun, 1)}
        out.write_text(json.dumps(result, indent=2) + "\n")
        report(name, result["parts"][name])
    print(f"written: {out}")
    sys.exit(any(part["state"] != "finished" for part in result["parts"].values()))


def report(name: str, part: Part) -> None:
    counts = ", ".join(f"{part[key]} {key}" for key in ("tests", "failures", "errors", "skipped") if key in part)
    print(f"\n== {name}: {part['state']} in {part.get('seconds')} s {counts}", flush=True)
    for failed in part.get("failed", []):
        print("  ", failed)
    for row in part.get("rows", []):
        goal = "" if row["goal"] is None else f"  ({row['sense']} {row['goal']}: {'yes' if row['reached'] else 'NO'})"
        print(f"   {row['name']:64}{row['figure']:10.3f} {row['unit']}{goal}")
    if part.get("said"):
        print(part["said"][-1500:])


if __name__ == "__main__":
    main()
