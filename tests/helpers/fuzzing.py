"""Mistakes put into files and states, drawn by a seed; a reader answers with its value or with a named error."""

from __future__ import annotations

import copy
import json
import mmap
import os
import random
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**31, 2**63, 2**70, -(2**70), 1.5, -0.5, 1e308, float("inf"), float("nan"), "", "x",
    "0", "-1", "nan", "../../x", "/", "\ud800", "a" * 300, [], [[]], {}, {"a": 1}, [None], [1, 2, 3], [[1, 2], [3]],
)  # fmt: skip


def places(content: Any, at: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """Every way from the top of nested lists and dicts to something in them."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed_content(content: Any, draw: random.Random) -> Any:
    """One to three values replaced, taken away, doubled, or put in a place of another."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        ways = list(places(content))
        if not ways:
            return draw.choice(HOSTILE)
        way = draw.choice(ways)
        holder = content
        for key in way[:-1]:
            holder = holder[key]
        action = draw.randrange(5)
        if action == 0:
            del holder[way[-1]]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[way[-1]]))
        elif action == 2 and isinstance(holder[way[-1]], int | float) and not isinstance(holder[way[-1]], bool):
            holder[way[-1]] = draw.choice([-holder[way[-1]], holder[way[-1]] * 1000, holder[way[-1]] + 0.5])
        else:
            holder[way[-1]] = copy.deepcopy(draw.choice(HOSTILE))
    return content


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Cut short, with bytes of another value, or with a piece taken out, doubled or nested deep."""
    content = bytearray(data)
    action = draw.randrange(5)
    first, second = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    if action == 0:
        return bytes(content[:first])
    if action == 1:
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        return bytes(content)
    if action == 2:
        return bytes(content[:first] + content[second:])
    if action == 3:
        return bytes(content[:second] + content[first:])
    return bytes(content[:first] + draw.choice([b"[", b'{"a":']) * draw.choice([3, 50_000]) + content[first:])


def changed_json(content: Any, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return changed_bytes(json.dumps(content).encode(), draw)
    return json.dumps(changed_content(content, draw)).encode()


DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
    torch.complex64,
)  # fmt: skip


def changed_tensor(value: Tensor, draw: random.Random) -> Any:
    """Of another dtype, shape or with hostile numbers; now and then no tensor at all."""
    action = draw.randrange(6)
    if action == 0:
        return value.to(draw.choice(DTYPES))
    if action == 1:
        part = value[..., :0] if value.ndim else value[None]
        return draw.choice([part, value.flatten()[:1], value.flatten(), value[None], value.new_zeros(())])
    if action == 2 and value.is_floating_point():
        return torch.where(
            torch.rand_like(value.double()) < 0.3, draw.choice([float("nan"), float("inf"), 1e38]), value
        )
    if action == 3:
        return torch.full_like(value, draw.choice([-1, 0, 1, 100]))
    if action == 4 and not value.is_floating_point() and value.dtype != torch.bool:
        return value + draw.choice([-(2**40), -1, 1, 2**40])
    return draw.choice([None, 3, "x", [], value.tolist(), value.to("meta")])


def changed_tensors(state: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    state = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
    for name in draw.sample(sorted(state), draw.randint(1, 2)):
        if draw.random() < 0.15:
            del state[name]
        elif isinstance(state[name], Tensor):
            state[name] = changed_tensor(state[name], draw)
        else:
            state[name] = copy.deepcopy(draw.choice(HOSTILE))
    return state


Kind = tuple[str, str]
Attempt = Callable[[random.Random], None]


def wrong_kind(attempt: Attempt, number: int, named: tuple[type[Exception], ...], seed: int, words: str) -> Kind | None:
    """How the attempt of that number ended otherwise than with a value or a named error that holds ``words``."""
    try:
        attempt(random.Random(seed * 1_000_003 + number))
    except named as error:
        if re.search(words, str(error)):
            return None
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{number}: {type(error).__name__} says nothing of {words}: {str(error)[:200]}"
        return f"no words {where.filename}:{where.lineno}", text
    except Exception as error:
        frames = []
        step = error.__traceback__
        while step is not None:
            frames.append(f"{step.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{step.tb_lineno}")
            step = step.tb_next
        text = f"{number}: {type(error).__name__}: {str(error)[:150]} at {' < '.join(frames[::-1][:5])}"
        return f"{type(error).__name__} {frames[-1]}", text
    return None


def unexpected(
    attempt: Attempt, count: int, named: tuple[type[Exception], ...], seed: int = 0, *, words: str = "."
) -> list[str]:
    """Which of ``count`` attempts ended in another error, each kind once, with the number that repeats it.

    A named error holds ``words``, a pattern.
    """
    kinds: dict[str, str] = {}
    for number in range(count):
        if wrong := wrong_kind(attempt, number, named, seed, words):
            kinds.setdefault(*wrong)
    return list(kinds.values())


def unexpected_in_child(
    attempt: Attempt,
    count: int,
    named: tuple[type[Exception], ...],
    seed: int = 0,
    *,
    words: str = ".",
    seconds: float = 5.0,
    memory: int = 2**30,
    deaths: int = 5,
) -> list[str]:
    """`unexpected` in a fork with an end to its memory and to each attempt's time, which is made anew when it dies.

    Args:
        seconds: of processor time an attempt, and twelve times as much by the clock.
        memory: bytes that the fork may take beyond what it is born with.
        deaths: after so many the search ends.
    """
    kinds: dict[str, str] = {}
    at = mmap.mmap(-1, 8)
    first = 0
    for _ in range(deaths):
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _limit_memory(memory)
                with os.fdopen(writable, "w") as out:
                    for number in range(first, count):
                        at[:] = number.to_bytes(8, "little")
                        signal.setitimer(signal.ITIMER_PROF, seconds)
                        signal.setitimer(signal.ITIMER_REAL, 12 * seconds)
                        if (wrong := wrong_kind(attempt, number, named, seed, words)) and wrong[0] not in kinds:
                            kinds.setdefault(*wrong)
                            print(json.dumps(wrong), file=out, flush=True)
                code = 0
            finally:
                os._exit(code)
        os.close(writable)
        with os.fdopen(readable) as lines:
            kinds.update(json.loads(line) for line in lines)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break
        number = int.from_bytes(at[:], "little")
        kinds.setdefault(f"death {number}", f"{number}: the process ended with {code} in this attempt")
        first = number + 1
    return list(kinds.values())


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
