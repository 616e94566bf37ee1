# SPDX-License-Identifier: Apache-2.0
"""Buffers of images that are used again and again.

Images are large, made in several threads and dropped in another one. Left to the heap, each thread
comes to keep as many as it ever held at once, and a process grows for hours.
"""

from __future__ import annotations

import ctypes
import math
import weakref

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1 << 26
"""Bytes of an image, 22 megapixels; larger ones are not kept, since no camera on a vehicle sends
them again and again."""
_SIZES = 16
"""Of buffers; when images come in more sizes than that, what is free is given up."""


class PixelPool:
    """Gives out arrays whose memory comes back when nobody holds them; safe in any thread."""

    def __init__(self) -> None:
        """Start without memory."""
        self._free: dict[int, list[bytearray]] = {}

    @property
    def free_bytes(self) -> int:
        """Memory that nobody holds and that waits to be taken again."""
        return sum(len(memory) for free in list(self._free.values()) for memory in list(free))

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array with any content; views of it hold its memory as well."""
        size = math.prod(shape)
        if size > _LARGEST:
            return new_pixels(shape)
        if size not in self._free and len(self._free) >= _SIZES:
            self._free.clear()
        free = self._free.setdefault(size, [])
        try:
            # Popped without a look before: another thread may take the last one in between, and
            # single operations of a list need no lock.
            memory = free.pop()
        except IndexError:
            memory = bytearray(size)
        # numpy lets views refer to what lies under an array, so that is what has to be watched
        lease = (ctypes.c_uint8 * size).from_buffer(memory)
        # Not at exit, when nobody takes memory again and the interpreter is half gone.
        weakref.finalize(lease, free.append, memory).atexit = False
        return np.frombuffer(memoryview(lease), np.uint8).reshape(shape)


def new_pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array of its own, as `PixelPool.take`."""
    return np.empty(shape, np.uint8)
