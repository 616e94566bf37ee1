# SPDX-License-Identifier: Apache-2.0
"""A cache of a teacher's outputs whose bytes are damaged: what is read is right, or absent."""

from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.lidar.output_cache import OutputCache
from tests.support.fuzzing import fuzz

BLOCK = 1 << 16
COUNT = 3


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def tensors(number: int) -> list[torch.Tensor]:
    return [torch.full((2, 3), float(number)).half(), torch.arange(4).half() + number]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("cache")
    cache = OutputCache(folder, ("teacher",), 1 << 30)
    for number in range(COUNT):
        cache.write(key(number), tensors(number))
    (file,) = folder.glob("*.outputs")
    return file, file.read_bytes()


def damaged(data: bytes, seed: int) -> bytes:
    random, out = Random(seed), bytearray(data)
    for _ in range(random.randint(1, 4)):
        kind = random.randrange(4)
        # near the beginning of a block, where there is more than padding
        at = random.randrange(COUNT + 1) * BLOCK + random.randrange(120)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del out[random.randrange(len(out) + 1) :]
        elif kind == 2:
            out[at : at + 40] = random.randbytes(40)
        else:
            out += random.randbytes(random.randrange(2 * BLOCK))
    return bytes(out)


@fuzz(60)
@given(seed=st.integers(0, 2**32))
def test_any_bytes(good: tuple[Path, bytes], seed: int) -> None:
    file, data = good
    file.write_bytes(damaged(data, seed))
    cache = OutputCache(file.parent, ("teacher",), 1 << 30)
    for number in range(COUNT):
        found = cache.read(key(number))
        if found is None:
            cache.write(key(number), tensors(number))
            found = cache.read(key(number))
        assert found is not None
        for one, other in zip(found, tensors(number), strict=True):
            assert torch.equal(one, other)
