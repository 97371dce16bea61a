"""``bgdebias doctor``: what is installed on this machine and what is missing, for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

from torch_bgdebias._version import __version__
from torch_bgdebias.cli.colours import coloured
from torch_bgdebias.cli.options import Subparsers, add_command, add_options

__all__ = ["SCHEMA", "add_parser", "findings", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.doctor/1"

_EPILOG = """\
Copy what it prints into a bug report. It opens no file of yours and no connection.

examples:
  bgdebias doctor
  bgdebias doctor --json
"""
#: import name -> what it is called in the package index, where that differs
_DISTRIBUTIONS = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
_NEEDED = ("torch", "torchmetrics", "kornia", "numpy", "scipy", "pillow", "jinja2")
#: the version of one of these that is not there
_MISSING = "missing"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``doctor`` to the command line."""
    parser = add_command(
        subparsers,
        "doctor",
        about="versions, kernels, devices and optional packages, for bug reports",
        description="Say what this machine has: versions, the compiled kernel, Lightning, devices, optional packages.",
        epilog=_EPILOG,
    )
    add_options(parser, "--json")


def run(args: argparse.Namespace) -> int:
    """Look, and print what there is; 1 where something that is needed is missing or broken."""
    report = findings()
    if args.json:
        print(json.dumps({"schema": SCHEMA, **report}, indent=1))
    else:
        width = max(len(name) for part in report.values() if isinstance(part, dict) for name in part)
        for title, part in report.items():
            if isinstance(part, dict):
                print(coloured(title.replace("_", " "), "strong", sys.stdout))
                print("\n".join(f"  {name:<{width}}  {value}" for name, value in part.items()))
        for problem in report["problems"]:
            print(coloured(f"problem: {problem}", "error", sys.stdout))
    return 1 if report["problems"] else 0


def findings() -> dict[str, Any]:
    """What there is, by part, and ``problems``: a list of what has to be mended."""
    problems: list[str] = []
    versions = _versions(problems)
    has_torch = versions["torch"] != _MISSING  # without it nothing of the package can be asked
    parts = {
        "versions": versions,
        "devices": _devices() if has_torch else {},
        "kernel": _kernel(problems) if has_torch else {},
        "lightning": _lightning(problems) if has_torch else {},
        "optional_packages": _optional_packages(),
    }
    return {**parts, "problems": problems}


def _versions(problems: list[str]) -> dict[str, str]:
    versions = {
        "torch_bgdebias": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in _NEEDED:
        version = _version_of(name)
        versions[name] = version or _MISSING
        if version is None:
            problems.append(f"{name} is needed and not installed: pip install {name}")
    return versions


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    else:
        devices["cuda"] = f"none (torch is built for {torch.version.cuda or 'no CUDA'})"
    if torch.backends.mps.is_available():
        devices["mps"] = "there"
    return devices


def _kernel(problems: list[str]) -> dict[str, str]:
    from torch_bgdebias.ops import extension_status

    status = extension_status()
    if status.state == "refused":
        problems.append(f"the compiled kernel was refused: {status.reason}")
    return {"state": status.state, "why": status.reason, "for": ", ".join(status.devices) or "nothing"}


def _lightning(problems: list[str]) -> dict[str, str]:
    from torch_bgdebias.lightning.packages import installed

    try:
        packages = installed()
    except ImportError as error:
        problems.append(str(error))
        return {"packages": "none"}
    return {package.__name__: _version_of(package.__name__.split(".")[0]) or "unknown" for package in packages}


def _optional_packages() -> dict[str, str]:
    from torch_bgdebias._optional import EXTRAS

    return {
        name: _version_of(name) or f"not installed: pip install 'torch_bgdebias[{extra}]'"
        for name, extra in EXTRAS.items()
    }


def _version_of(name: str) -> str | None:
    """The version of an installed package by its import name; ``None`` where it is not installed."""
    candidates = [_DISTRIBUTIONS.get(name, name)]
    if name == "cv2":  # four packages bring it
        candidates += ["opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"]
    for candidate in candidates:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
