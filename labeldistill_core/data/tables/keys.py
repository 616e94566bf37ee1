# SPDX-License-Identifier: Apache-2.0
"""Which row of a table a token stands for, for millions of tokens at once.

Tokens are compared by Python's hash of 64 bits, which is salted anew in each process: two of three
million tokens share one with a probability of 2e-7, and that is refused as a token that is there
twice, never taken for the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

NOTHING = -1
"""Row of an empty reference."""
ABSENT = -2
"""Row of a token that is not in the table."""

Hashes = NDArray[np.int64]
_EMPTY = hash("")


def hashes(tokens: Iterable[str | None], count: int) -> Hashes:
    """(count,) of the tokens; None is as good as an empty one."""
    return np.fromiter((hash(token or "") for token in tokens), np.int64, count)


class Keys:
    """The tokens of one table, by row."""

    def __init__(self, tokens: Hashes) -> None:
        """Sort them."""
        self._tokens = tokens
        self._order = np.argsort(tokens)
        self._sorted = tokens[self._order]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tokens)

    def repeated(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of rows that have one token."""
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        return self._order[same], self._order[same + 1]

    def rows(self, wanted: Hashes) -> NDArray[np.int64]:
        """Rows of tokens, or `NOTHING`, or `ABSENT`."""
        # Poses often stand in the order of the records that name them: that spares sorting
        # millions.
        if len(wanted) == len(self._tokens) and np.array_equal(wanted, self._tokens):
            return np.arange(len(wanted))
        # sorted queries walk through the table in its order, which spares the cache
        order = np.argsort(wanted)
        asked = wanted[order]
        at = np.minimum(np.searchsorted(self._sorted, asked), max(0, len(self._sorted) - 1))
        rows = np.full(len(wanted), ABSENT, np.int64)
        if len(self._sorted):
            rows[order] = np.where(self._sorted[at] == asked, self._order[at], ABSENT)
        rows[(rows == ABSENT) & (wanted == _EMPTY)] = NOTHING
        return rows
