# SPDX-License-Identifier: Apache-2.0
"""Columns that grow a part at a time, and what their rows are called in errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.keys import Keys, hashes
from labeldistill_core.data.tables.texts import Texts
from labeldistill_core.errors import DataError
from labeldistill_core.frames import UNIT_TOLERANCE, Array
from labeldistill_core.names import shown


class Parts:
    """Columns by name."""

    def __init__(self) -> None:
        """Without rows."""
        self._parts: dict[str, list[NDArray[Any]]] = defaultdict(list)

    def add(self, **columns: NDArray[Any]) -> None:
        """Put rows behind those that are there."""
        for name, values in columns.items():
            self._parts[name].append(values)

    def take(self, name: str, empty: NDArray[Any]) -> NDArray[Any]:
        """A column, which is then forgotten; `empty` where no row came."""
        return np.concatenate([empty, *self._parts.pop(name, [])])


@dataclass(frozen=True)
class Records:
    """The rows of a table, for messages."""

    path: Path
    """Of the table."""
    tokens: Texts | Sequence[str]
    """By row."""

    def __getitem__(self, row: int) -> str:
        """The table and the record."""
        return f"{self.path}, record {shown(self.tokens[row])}"

    def absent(self, row: int, field: str, table: str) -> str:
        """A record names another one that is not there."""
        return f"{self[row]}: its `{field}` is not in {table}.json; the tables are not complete"


class Grouping:
    """Rows of a table in the order of the samples that they belong to."""

    def __init__(self, samples: NDArray[np.int64], count: int) -> None:
        """Sort rows.

        Args:
            samples: (N,) row of the sample that each row of the table belongs to; below 0 where
                there is none.
            count: of samples.
        """
        last = np.where(samples < 0, count, samples)
        # Stable, so that a sample's records keep the order of their table.
        self.order = np.argsort(last, kind="stable")
        """(N,) row of the table at each place; those without a sample come last."""
        self.start = np.searchsorted(last[self.order], np.arange(count + 1))
        """(count + 1,) first place of each sample, and the end of the last one's."""
        self.group = np.maximum(samples, -1)[self.order]
        """(N,) row of the sample at each place; -1 without."""
        self.lost = len(samples) - int(self.start[-1])
        """Rows without a sample."""
        self._place = np.empty(len(samples), np.int64)
        self._place[self.order] = np.arange(len(samples))

    def of_each(self, of_samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) what is known of the sample at each place; -1 without."""
        return np.asarray(np.append(of_samples, -1)[self.group])

    def moved(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) references to rows of the table as references to places; below 0 they stay."""
        found = rows[self.order]
        # The appended entry lets an empty table be looked up too; `where` drops what it gives.
        return np.where(found < 0, found, np.append(self._place, 0)[found])


def unique_keys(records: Records) -> Keys:
    """The tokens of a small table, each of which must be there once.

    Raises:
        DataError: one is there twice.
    """
    tokens = [records.tokens[row] for row in range(len(records.tokens))]
    keys = Keys(hashes(tokens, len(tokens)))
    refuse_repeated(keys, records)
    return keys


def refuse_repeated(keys: Keys, records: Records) -> None:
    """Refuse a table in which a token stands twice.

    Raises:
        DataError: it does; names the token.
    """
    first, _ = keys.repeated()
    if len(first):
        token = shown(records.tokens[int(first[0])])
        raise DataError(f"{records.path} has more than one record {token}")


def floats(vectors: Iterable[tuple[float, ...]], rows: int, width: int) -> Array:
    """(rows, width) of as many tuples."""
    flat = np.fromiter(chain.from_iterable(vectors), np.float64, rows * width)
    return flat.reshape(rows, width)


def bad_poses(poses: Array) -> NDArray[np.bool_]:
    """(N,) whether a pose (N, 7) is not finite, or its quaternion not of unit length."""
    lengths = np.linalg.norm(poses[:, 3:], axis=1)
    # NaN compares as false
    good = np.isfinite(poses).all(axis=1) & (np.abs(lengths - 1.0) < UNIT_TOLERANCE)
    return np.asarray(~good)


def fault_of_pose(pose: Array) -> str:
    """What is wrong with one of them."""
    if not np.isfinite(pose[:3]).all():
        return f"its `translation` is not finite: {pose[:3].tolist()}"
    return f"its `rotation` is no unit quaternion w, x, y, z: {pose[3:].tolist()}"
