"""A library that was cut off or changed is refused before the system's loader maps it, which would kill the process."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torch_bgdebias.ops import extension_status
from torch_bgdebias.ops.extension import MARKER
from torch_bgdebias.ops.seal import flaw, sealed

#: loads each copy in a child of its own, so that a death by a signal is seen and does not end the others
TRIAL = """
import json, os, sys
from pathlib import Path
from torch_bgdebias.ops.extension import _load
outcomes = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = _load(folder)
        os.write(write, json.dumps([status.state, status.reason]).encode())
        os._exit(0)
    os.close(write)
    _, code = os.waitpid(child, 0)
    text = os.read(read, 10_000)
    outcomes[folder.name] = json.loads(text) if code == 0 else ["died", str(os.waitstatus_to_exitcode(code))]
print(json.dumps(outcomes))
"""

elf = pytest.mark.skipif(sys.platform != "linux", reason="ELF libraries")


def some_library() -> bytes:
    """A shared library of the system, which carries no seal."""
    return Path(sys.modules["_ctypes"].__file__ or "").read_bytes()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


@elf
def test_what_was_sealed_is_whole_and_every_change_is_seen():
    whole = sealed(some_library())
    assert flaw(whole) is None
    draw = random.Random(0)
    for place in [0, 3, len(whole) - 1, len(whole) - 33, *(draw.randrange(len(whole)) for _ in range(60))]:
        assert flaw(flipped(whole, place)), place
    for length in [0, 1, 63, 64, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(60))]:
        assert flaw(whole[:length]), length


@elf
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda c: c[: len(c) // 2],
            "it is cut short: .* bytes, its segments and sections reach to .*; build it again",
        ),
        (lambda c: c[:-62], "it has no checksum at its end, which is missing or was not written by setup.py"),
        (lambda c: c[:-62] + bytes(10) + c[-62:], "it has .* bytes where .* were built"),
        (
            lambda c: flipped(c, 5000),
            "its checksum is not the one that was taken when it was built: bytes have changed",
        ),
    ],
)
def test_the_reason_is_in_words(change, reason):

    assert re.match(reason, flaw(change(sealed(some_library()))) or "")


@elf
def test_a_link_that_was_cut_off_is_not_sealed():
    library = some_library()
    with pytest.raises(ValueError, match="it is cut short"):
        sealed(library[: len(library) * 9 // 10])


@elf
def test_damaged_copies_of_the_built_library_are_refused_and_never_kill(tmp_path):
    status = extension_status()
    if status.state != "loaded" or status.path is None:
        pytest.skip(f"no compiled kernels ({status.state}): {status.reason}")
    whole = Path(status.path).read_bytes()
    assert MARKER in whole
    draw = random.Random(1)
    copies = {"whole": whole, "no seal": whole[:-62]}
    copies |= {f"cut at {share}": whole[: int(len(whole) * share)] for share in (0.5, 0.9, 0.99)}
    places = [32, whole.index(MARKER) - 8, *(draw.randrange(len(whole)) for _ in range(10))]
    copies |= {f"byte {place}": flipped(whole, place) for place in places}
    for name, content in copies.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "_C.so").write_bytes(content)
    environment = {**os.environ, "TORCH_BGDEBIAS_EXTENSION": "auto"}
    # In the trial the package's own library is loaded first, as in every process.
    done = subprocess.run([sys.executable, "-c", TRIAL, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert outcomes.keys() == copies.keys()
    for name, (state, reason) in outcomes.items():
        if name != "whole":
            assert state == "refused", (name, state, reason)
            assert reason.endswith(("build it again", "not built from this version of the package"))
