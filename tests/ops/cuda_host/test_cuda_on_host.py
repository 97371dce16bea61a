"""The CUDA kernel without a card: compiled as C++ and compared with the plain one, and mistakes in it are caught.

``make cuda-host`` runs this. What it cannot see: what nvcc makes of the source, and races within one step of a warp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cuda_host.build import Mistake, build, compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines and guarded pages of Linux"),
]
COMPARE = Path(__file__).with_name("compare.py")
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")

READ_BARRIER = r"__syncthreads\(\);(?=\s+const int64_t step)"
MISTAKES = [
    Mistake("no barrier before the sites are read", READ_BARRIER, ""),
    Mistake("no barrier before the sites are replaced", r"__syncthreads\(\);(?= // the sites of)", ""),
    Mistake(  # inside the first mistake's other branch
        "a barrier that some threads skip",
        r"__syncthreads\(\);(?= \}\s+const int64_t step)",
        "if (threadIdx.x < 128) { __syncthreads(); }",
    ),
    Mistake("table laid over the sites", r"static_cast<int64_t>\(sites\)(?= : 0)", "0"),
    Mistake("one site too many in shared memory", r"k < a\.cells(?=; k \+= blockDim\.x)", "k < a.cells + 64"),
    Mistake("more shared memory than there is", r"shared\.table_offset \+ table <= kSharedBytes", "true"),
    Mistake(
        "sites a rounding apart", r"second - second \* margin > best \+ slack \* margin", "second > best", "cells.h"
    ),
    Mistake("ties to the highest index", "distance < best(?=;)", "distance <= best", "cells.h"),
    Mistake("negative offsets", r"rest < 0 \? rest \+ size : rest", "rest", "cells.h"),
    Mistake("rows that are no multiple of a run", "a.width % kRun == 0", "true"),
    Mistake("a foreground off the 16 bytes", r"address\(a\.foreground\)", "true"),
    Mistake("rows of the mask off the 16 bytes", r"whole\(a\.mask_stride\[1\]\)", "true"),
    Mistake("the row of the mask", r"row \* a\.mask_stride\[1\]", "row * a.mask_stride[0]"),
    Mistake("the last images of a walk", r"(?<=b \+= )gridDim\.y", "2 * gridDim.y"),
    Mistake(
        "rounded once",
        r"kept \+ filled",
        "static_cast<real>(static_cast<double>(weight) * widen<real>(pixels[i]) + filled)",
    ),
    Mistake(
        "bytes by the reciprocal",
        r"static_cast<real>\(i % 256\) / real\(255\)",
        "static_cast<real>(i % 256) * (real(1) / real(255))",
    ),
]


def compared(library: Path, *numbers: int) -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_BGDEBIAS_EXTENSION": "off"}
    command = [sys.executable, str(COMPARE), str(library), *map(str, numbers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_kernel_gives_the_plain_one_bit_by_bit(tmp_path):
    outcome = compared(build(tmp_path / "kernel", flags=UNDEFINED), 200)
    assert outcome == {"cases": 200, "different": [], "divergent barriers": 0, "broken fences": 0}


def test_every_mistake_is_caught_and_no_mistake_is_none(tmp_path):
    library = build(tmp_path / "kernel", MISTAKES, flags=UNDEFINED)
    missed = compared(library, 160, len(MISTAKES))
    assert [MISTAKES[number - 1].name for number in missed if number] == []
    assert missed == [0]
