"""The options that the simulations of this folder share."""

from __future__ import annotations

import argparse

__all__ = ["simulation_parser"]


def simulation_parser(doc: str | None, *, simulations: int) -> argparse.ArgumentParser:
    """A parser with ``--simulations`` and ``--seed``.

    Args:
        doc: docstring of the script, whose first line describes it.
        simulations: by default, for each row.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    text = f"of each row (default: {simulations})"
    parser.add_argument("--simulations", type=int, default=simulations, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0)
    return parser
