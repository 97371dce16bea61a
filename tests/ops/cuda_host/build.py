"""Compile csrc/cuda/voronoi_composite.cu as C++ for the host, as it is or with mistakes to choose from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "csrc"

#: the two lines that C++ has no form for, each of which must be there once
REWRITTEN = (
    (r"(\w+)<<<(.+), kThreads, memory, stream>>>\((.+)\);", r"on_host::launch(\2, kThreads, memory, [=] { \1(\3); });"),
    (
        r"extern __shared__ __align__\(16\) unsigned char memory\[\];",
        "unsigned char* memory = on_host::shared_memory();",
    ),
)


@dataclass(frozen=True)
class Mistake:
    """A change of one place in a source, that the comparison must catch.

    Attributes:
        name: what is wrong then.
        place: regular expression of an expression, or of a statement with its semicolon; it must match once.
        instead: what stands there then.
        file: under csrc/.
    """

    name: str
    place: str
    instead: str
    file: str = "cuda/voronoi_composite.cu"

    def put_into(self, text: str, number: int) -> str:
        """The source with both, chosen at run time by ``on_host::mistake``: one library holds all mistakes."""

        def both(match: re.Match[str]) -> str:
            if match[0].endswith(";"):
                return f"if (on_host::mistake == {number}) {{ {self.instead} }} else {{ {match[0]} }}"
            return f"(on_host::mistake == {number} ? ({self.instead}) : ({match[0]}))"

        text, count = re.subn(self.place, both, text)
        if count != 1:
            raise ValueError(f"{self.name}: expected its place once in {self.file}, found {count}")
        return text


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def rewritten(text: str) -> str:
    """The kernel's text with its launch and its shared memory in C++."""
    for pattern, replacement in REWRITTEN:
        text, count = re.subn(pattern, replacement, text)
        if count != 1:
            raise ValueError(f"voronoi_composite.cu: expected one line like {pattern}, found {count}")
    return text


def float32_alone(text: str) -> str:
    """Without the other images' kernels, which take most of the compiler's time."""
    return re.sub(r"case Dtype::(?!float32)\w+:\s+return choose<.+", "", text)


def build(folder: Path, mistakes: Sequence[Mistake] = (), *, flags: Sequence[str] = ()) -> Path:
    """Compile into ``folder``; with mistakes for float32 images alone. Returns the shared library.

    Raises:
        ValueError: a mistake's place is not in the sources once; the launch is not where it was.
        subprocess.CalledProcessError: it does not compile.
    """
    shutil.copytree(SOURCES, folder / "csrc")
    for number, mistake in enumerate(mistakes, start=1):
        place = folder / "csrc" / mistake.file
        place.write_text(mistake.put_into(place.read_text(), number))
    kernel = rewritten((folder / "csrc/cuda/voronoi_composite.cu").read_text())
    (folder / "csrc/cuda/kernel.inc").write_text(float32_alone(kernel) if mistakes else kernel)
    library = folder / "kernel_on_host.so"
    include = [HERE / "include", folder / "csrc/cuda", Path(torch.__file__).parent / "include"]
    command = [compiler() or "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", *flags]
    command += [f"-I{path}" for path in include]
    subprocess.run([*command, str(HERE / "block.cpp"), "-o", str(library)], check=True, capture_output=True, text=True)
    return library
