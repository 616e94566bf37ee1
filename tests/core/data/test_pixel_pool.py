# SPDX-License-Identifier: Apache-2.0
"""Memory of images comes back when nobody holds it, and never before."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labeldistill_core.data.pixel_pool import PixelPool


def address(array: NDArray[np.uint8]) -> int:
    return int(array.ctypes.data)


def test_memory_comes_back_from_what_nobody_holds() -> None:
    pool = PixelPool()
    first = pool.take((4, 6, 3))
    place = address(first)
    assert address(pool.take((4, 6, 3))) != place
    del first
    again = pool.take((6, 4, 3))  # as large
    assert address(again) == place
    assert again.shape == (6, 4, 3)
    assert again.flags.writeable


def test_views_tensors_and_arrays_over_it_hold_it() -> None:
    pool = PixelPool()
    holders: tuple[Callable[[Any], Any], ...] = (
        lambda a: a[1:, ::2],
        np.asarray,
        torch.from_numpy,
        memoryview,
    )
    for hold in holders:
        pixels = pool.take((8, 8, 3))
        pixels[...] = 7
        place, held = address(pixels), hold(pixels)
        del pixels
        other = pool.take((8, 8, 3))
        other[...] = 9
        assert address(other) != place
        assert (np.asarray(held) == 7).all()
        del held, other


def test_no_memory_is_shared_between_threads() -> None:
    pool = PixelPool()

    def work(number: int) -> bool:
        rng, good = random.Random(number), True
        held: list[tuple[int, NDArray[np.uint8]]] = []
        for value in range(300):
            pixels = pool.take((rng.choice((20, 30)), 10, 3))
            pixels[...] = value % 256
            held.append((value % 256, pixels))
            if len(held) > 4:
                wanted, old = held.pop(rng.randrange(5))
                good &= bool((old == wanted).all())
        return good

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(8)))


def test_many_sizes_do_not_pile_up() -> None:
    pool = PixelPool()
    for width in range(1, 300):
        pool.take((2, width, 3))
    assert pool.free_bytes < 16 * 6 * 300
    assert pool.take((0, 5, 3)).size == 0


def test_images_larger_than_any_cameras_are_not_kept() -> None:
    pool = PixelPool()
    for _ in range(2):
        pixels = pool.take((8000, 8000, 3))
        assert pixels.shape == (8000, 8000, 3)
        del pixels
    assert pool.free_bytes == 0
