# SPDX-License-Identifier: Apache-2.0
"""Many short texts in two arrays, which can be memory-mapped and hold no Python object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bounds how many Python strings there are at a time.
_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Texts:
    """N texts."""

    data: NDArray[np.uint8]
    """(B,) UTF-8 of all of them, one after the other."""
    starts: NDArray[Any]
    """(N + 1,) unsigned, where each begins, and where the last one ends."""

    def __len__(self) -> int:
        """N."""
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> str:
        """The text of a row."""
        begin, end = self.starts[row : row + 2].tolist()
        return self.data[begin:end].tobytes().decode(errors="surrogatepass")

    def between(self, first: int, end: int) -> list[str]:
        """The texts of neighbouring rows."""
        starts = self.starts[first : end + 1].tolist()
        data = self.data[starts[0] : starts[-1]].tobytes()
        cuts = [start - starts[0] for start in starts]
        if data.isascii():
            text = data.decode()
            return [text[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]
        parts = [data[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]
        return [part.decode(errors="surrogatepass") for part in parts]

    def at(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of some rows."""
        begins = self.starts[rows].astype(np.int64)
        lengths = self.starts[rows + 1] - begins
        if len(rows) and (lengths == lengths[0]).all():
            # tokens are mostly of one length; then all are taken at once
            length = int(lengths[0])
            data = self.data[begins[:, None] + np.arange(length)].tobytes()
            if data.isascii():
                text = data.decode()
                return [text[row * length : (row + 1) * length] for row in range(len(rows))]
        return [self[row] for row in rows.tolist()]

    def reordered(self, order: NDArray[np.int64]) -> Texts:
        """The texts of other rows, in their order."""
        lengths = np.diff(self.starts.astype(np.int64))
        # Texts of one length, as tokens are, form a matrix whose rows are taken at once.
        if len(order) and len(lengths) and (lengths == lengths[0]).all():
            data = self.data.reshape(len(lengths), -1)[order].reshape(-1)
            return Texts(data, _starts(lengths[order]))
        collector = TextCollector()
        for first in range(0, len(order), _AT_ONCE):
            collector.extend([self[row] for row in order[first : first + _AT_ONCE].tolist()])
        return collector.texts()


class TextCollector:
    """Texts that come a part at a time."""

    def __init__(self) -> None:
        """None yet."""
        self._data: list[NDArray[np.uint8]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def extend(self, texts: Sequence[str]) -> None:
        """Put texts behind those that are there."""
        joined = "".join(texts)
        lengths: Iterable[int]
        if joined.isascii():
            data, lengths = joined.encode(), map(len, texts)
        else:
            # JSON may hold lone surrogates, which plain UTF-8 has no bytes for.
            each = [text.encode(errors="surrogatepass") for text in texts]
            data, lengths = b"".join(each), map(len, each)
        self._data.append(np.frombuffer(data, np.uint8))
        self._lengths.append(np.fromiter(lengths, np.int64, len(texts)))

    def texts(self) -> Texts:
        """All of them."""
        data = np.concatenate([np.empty(0, np.uint8), *self._data])
        return Texts(data, _starts(np.concatenate([np.empty(0, np.int64), *self._lengths])))


def _starts(lengths: NDArray[np.int64]) -> NDArray[Any]:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    # Half the memory wherever all texts together are shorter than 4 GiB.
    return starts.astype(np.uint32 if starts[-1] < 2**32 else np.uint64)
