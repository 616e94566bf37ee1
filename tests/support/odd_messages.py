# SPDX-License-Identifier: Apache-2.0
"""Messages as no detector and no conversion writes them, but others might."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from rosbags.serde import SerdeError

from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages.bag_family import typestore

_TEXTS = ("", "map", "car", "../../x", "\x1b[2J\n", "x" * 70_000, "nan", "-1", "[" * 5000, "é😀")
_FLOATS = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 1e-308, 1e20)
_INTS = (0, 1, -1, 255, 65_535, 2**31 - 1, -(2**31), 2**32 - 1)
_JSON: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    -1,
    1e400,
    10**30,
    math.nan,
    [[[[]]]],
    {"a": {}},
    "x" * 5000,
)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A message of a bag, decoded."""

    topic: str
    msgtype: str
    stamp_ns: int
    message: Any


def decoded_messages(bag: Path) -> list[Decoded]:
    """All messages of a bag."""
    with BagReader(bag) as reader:
        return [Decoded(r.topic, r.msgtype, r.stamp_ns, reader.decoded(r)) for r in reader.raw()]


def write_odd_bag(
    path: Path, messages: Sequence[Decoded], topics: Sequence[str], seed: int
) -> None:
    """The messages with one to three odd fields in those of some topics."""
    draw = Random(seed)
    chosen = list(messages)
    places = [i for i, one in enumerate(messages) if one.topic in topics]
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.choice(places)
        one = chosen[place]
        message = deepcopy(one.message)
        _spoil(message, draw)
        with suppress(
            SerdeError, struct.error, TypeError, ValueError, AssertionError, AttributeError
        ):
            typestore().serialize_cdr(message, one.msgtype)  # what no bag can hold is no test
            chosen[place] = Decoded(one.topic, one.msgtype, one.stamp_ns, message)
    with BagWriter(path) as bag:
        for one in chosen:
            bag.write(one.topic, one.msgtype, one.message, one.stamp_ns)


def _spoil(message: Any, draw: Random) -> None:
    """Change a field of a message, or of one in it."""
    names = [f.name for f in fields(message) if not f.name.startswith("__")]
    name = draw.choice(names)
    value = getattr(message, name)
    if is_dataclass(value):
        _spoil(value, draw)
    elif isinstance(value, list) and value and is_dataclass(value[0]) and draw.random() < 0.7:
        _spoil(draw.choice(value), draw)
    else:
        setattr(message, name, _odd(value, draw))


def _odd(value: Any, draw: Random) -> Any:
    if isinstance(value, str):
        if value.startswith("{") and draw.random() < 0.9:
            return json.dumps(_odd_json(json.loads(value), draw))
        return draw.choice((*_TEXTS, value[: len(value) // 2]))
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return draw.choice(_FLOATS)
    if isinstance(value, int):
        return draw.choice(_INTS)
    if isinstance(value, np.ndarray):
        return value[: len(value) // 2] if draw.random() < 0.5 else value[::-1].copy()
    if isinstance(value, list):
        return draw.choice((value[: len(value) // 2], value + value, []))
    return value


def _odd_json(value: Any, draw: Random) -> Any:
    """A JSON value, of which one part is another."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        if draw.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _odd_json(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], _odd_json(value[place], draw), *value[place + 1 :]]
    return draw.choice(_JSON)
