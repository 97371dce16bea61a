"""Run the notebooks and keep what they print and draw, or turn them into pages of the site.

    python site/notebooks.py docs/notebooks/*.ipynb

Each runs in an empty folder with names of its own, as a fresh kernel would; no Jupyter is needed. A cell that raises
ends it.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of every code cell.

    Raises:
        Exception: whatever a cell raises, with the cell as a note.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            try:
                outputs = _run("".join(cell["source"]), names, count)
            except Exception as error:
                error.add_note(f"in cell {count}:\n{''.join(cell['source'])}")
                raise
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _run(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """One cell: what it prints, the value of its last line, and the figures that it leaves open."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs + [{"data": {"image/png": figure}, "metadata": {}, "output_type": "display_data"}
                      for figure in _figures()]  # fmt: skip


def _figures() -> list[str]:
    """The open figures of matplotlib, if it was used, as PNG; they are closed."""
    import matplotlib.pyplot as plt

    drawn = []
    for number in plt.get_fignums():
        buffer = io.BytesIO()
        plt.figure(number).savefig(buffer, format="png", dpi=80, bbox_inches="tight")
        drawn.append(base64.b64encode(buffer.getvalue()).decode("ascii"))
    plt.close("all")
    return drawn


def page(notebook: dict[str, Any], name: str, folder: Path) -> str:
    """A page of the site: text, code and outputs; pictures are written into the folder."""
    parts, pictures = [], 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain")
            if text:
                parts.append(f"```text\n{''.join(text).rstrip()}\n```")
            if picture := output.get("data", {}).get("image/png"):
                pictures += 1
                file = folder / f"{name}-{pictures}.png"
                file.write_bytes(base64.b64decode(picture))
                parts.append(f"![What the cell above draws]({file.name})")
    return "\n\n".join(parts).replace(".ipynb)", ".md)") + "\n"


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=Path, nargs="+", help="run, and written again with their outputs")
    os.environ["MPLBACKEND"] = "agg"
    paths = [path.resolve() for path in parser.parse_args().notebooks]
    for path in paths:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = executed(read(path))
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {time.process_time() - started:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
