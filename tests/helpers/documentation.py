"""The blocks of the documentation: taken out of a page, and run as they stand in a process of their own.

The process is forked from a server that has imported the partners already, so that a block takes no longer than what
it does; it knows nothing but the block's own imports and names.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: the README first, then the cards
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torchvision", "timm", "pytorch_lightning", "torch_bgdebias.callbacks"])


def blocks(page: Path, language: str = "python") -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run_alone(code: str, folder: Path, checks: Sequence[str] = (), *, limit: float = 300) -> str:
    """Run code in a fresh process whose working folder is ``folder``.

    Args:
        code: the block.
        folder: an empty folder.
        checks: expressions that must be true afterwards, in the block's own names; ``printed`` is what it printed.
        limit: seconds.

    Returns:
        What the block printed.

    Raises:
        AssertionError: it raised an exception, whose traceback is the message, or a check is not true.
    """
    receiver, sender = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_run, args=(code, folder, list(checks), sender), daemon=True)
    process.start()
    sender.close()
    try:
        assert receiver.poll(limit), f"not done after {limit} s"
        error, printed = receiver.recv()
    except EOFError:
        raise AssertionError("the process ended without an answer") from None
    finally:
        process.kill()
        process.join()
    assert not error, error
    return printed


def _run(code: str, folder: Path, checks: list[str], sender: Connection) -> None:
    os.chdir(folder)
    os.environ["MPLBACKEND"] = "agg"
    printed, error = io.StringIO(), ""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("error", DeprecationWarning)  # nothing old is recommended
            warnings.filterwarnings("default", category=DeprecationWarning, module=r"(?!torch_bgdebias|__main__)")
            names = {"__name__": "__main__"}
            exec(compile(code, "block", "exec"), names)
            names["printed"] = printed.getvalue()
            for check in checks:
                assert eval(check, names), f"not true after the block: {check}"
    except Exception:
        error = f"{traceback.format_exc()}\n{code}"
    sender.send((error, printed.getvalue()))
