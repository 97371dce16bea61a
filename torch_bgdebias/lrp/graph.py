"""Traversal of autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

__all__ = ["nodes_behind"]


def nodes_behind(nodes: Iterable[Any], ends: Set[Any] = frozenset()) -> Iterator[Any]:
    """The nodes and all that their inputs come from, each once; nothing of ``ends``, nor what only they lead to.

    Args:
        nodes: to start at; ``None`` among them is nothing.
        ends: where the walk turns back.
    """
    visited: set[Any] = set(ends)
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        yield node
        visited.add(node)
        pending += [following for following, _ in node.next_functions]
