"""Damaged and hostile variants of what is sound: bytes, JSON, command lines. Each follows from its generator."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

# What people and programs write by mistake, and what readers trip over.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**32, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e-300, 1e300,
    float("nan"), float("inf"), -float("inf"), "", " ", "a", "0", "nan", "é", "\0", "\n", "../x", "%s", "{}", "a.b",
    "a" * 300, [], [1], [[]], [None], {}, {"a": 1}, {"": {}},
)  # fmt: skip


def changed_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """One to four changes: a bit, a run of bytes, a part that is lost, repeated or moved, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(0, len(data) + 1))
        end = min(len(data), start + int(2 ** rng.uniform(0, 10)))
        kind = rng.integers(0, 8)
        if kind <= 1 and start < len(data):
            data[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            data[start:end] = rng.integers(0, 256, end - start, dtype=np.uint8).tobytes()
        elif kind == 3:
            data[start:end] = bytes([int(rng.choice([0, 255, 127, 10]))]) * (end - start)
        elif kind == 4:
            del data[start:end]
        elif kind == 5:
            data[start:start] = data[start:end]
        elif kind == 6:
            data[start:start] = rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8).tobytes()
        elif kind == 7 and rng.integers(0, 3) == 0:
            del data[start:]
    return bytes(data)


def changed_json(rng: np.random.Generator, content: Any) -> Any:
    """One to three changes: a value, a name, an entry that is lost or new, or another entry's value."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(content))
        if not places:
            return any_value(rng)
        parent, key = places[rng.integers(0, len(places))]
        kind = rng.integers(0, 8)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(key) + str(any_value(rng))[:9]] = parent.pop(key)
        elif kind == 2 and isinstance(parent, dict):
            parent[f"new{rng.integers(0, 9)}"] = any_value(rng)
        elif kind == 3:
            other, name = places[rng.integers(0, len(places))]
            parent[key] = copy.deepcopy(other[name])
        elif kind == 4 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * int(rng.choice([-1, 2, 1000, 0])) + int(rng.integers(-1, 2))
        else:
            parent[key] = any_value(rng)
    return content


def changed_json_file(rng: np.random.Generator, content: bytes) -> bytes:
    """Mostly other JSON, else other bytes."""
    if rng.integers(0, 3) == 0:
        return changed_bytes(rng, content)
    return json.dumps(changed_json(rng, json.loads(content))).encode()


def changed_flags(rng: np.random.Generator, flags: Sequence[str]) -> list[str]:
    """One to four changes: a flag's value or name, a flag that is lost or given twice, or another order."""
    flags = list(flags)
    for _ in range(rng.integers(1, 5)):
        if not flags:
            break
        i, kind = int(rng.integers(0, len(flags))), rng.integers(0, 7)
        name, _, value = flags[i].partition("=")
        if kind == 0:
            del flags[i]
        elif kind == 1:
            flags.append(flags[i])
        elif kind == 2:
            flags[i] = changed_bytes(rng, flags[i].encode()).replace(b"\0", b"").decode("utf-8", "surrogateescape")
        elif kind == 3 and value:
            flags[i] = f"{name}={changed_bytes(rng, value.encode()).replace(bytes(1), b'').decode('utf-8', 'replace')}"
        else:
            text = any_value(rng)
            flags[i] = f"{name}={text if isinstance(text, str) else json.dumps(text)}".replace("\0", "")
    return [flag.replace("=/", "=") for flag in flags]  # whoever fuzzes does not write in the root of this machine


def any_value(rng: np.random.Generator) -> Any:
    """One of ``VALUES``."""
    return copy.deepcopy(VALUES[rng.integers(0, len(VALUES))])


def _places(content: Any) -> Any:
    """Every parent and key or index below ``content``."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries):
        yield content, key
        yield from _places(value)
