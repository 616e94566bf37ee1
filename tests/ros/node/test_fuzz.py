# SPDX-License-Identifier: Apache-2.0
"""Random bytes, fields and numbers: an answer or an error that is told, and nothing is kept.

Random orders of messages and a million events stand in `test_synchronizer`, random parameters in
`test_fuzz_parameters`.
"""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from labeldistill_core.cameras import CAMERAS, CameraCalibration
from labeldistill_core.data.pixel_pool import PixelPool
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.decoding import ENCODINGS, to_rgb
from labeldistill_ros.inputs.rectification import Rectifier
from labeldistill_ros.messages import calibration_from_info
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.fuzzing import fuzz
from tests.support.rig import PATIENT, jpeg


def _png() -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)).save(buffer, "PNG")
    return buffer.getvalue()


_GOOD = (jpeg(0), _png())


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A picture with some bytes changed, left out or added."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 20)):
        place = rng.randrange(len(changed))
        kind = rng.randrange(4)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randint(1, 40)]
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randint(1, 40))
        else:
            changed[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4)))
        if not changed:
            break
    return bytes(changed)


def picture_or_error(message: Image | CompressedImage, pool: PixelPool) -> bool:
    """Whether it is a picture; any error but `DataError` ends the test."""
    try:
        pixels = to_rgb(message, pool.take)
    except DataError:
        return False
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return True


@fuzz(300)
@given(data=st.binary(max_size=200), head=st.sampled_from((b"", *(g[:40] for g in _GOOD))))
def test_random_bytes_are_no_picture(data: bytes, head: bytes) -> None:
    picture_or_error(CompressedImage(data=head + data), PixelPool())


@fuzz(300)
@given(seed=st.integers(0, 2**32))
def test_damaged_pictures(seed: int) -> None:
    rng = random.Random(seed)
    picture_or_error(CompressedImage(data=damaged(rng.choice(_GOOD), rng)), PixelPool())


_UINT32 = st.integers(0, 2**32 - 1)


@fuzz(300)
@given(
    encoding=st.sampled_from((*ENCODINGS, "", "32FC1", "rgb16")) | st.text(max_size=8),
    width=st.integers(0, 9) | _UINT32,
    height=st.integers(0, 9) | _UINT32,
    step=st.integers(0, 40) | _UINT32,
    data=st.binary(max_size=300),
)
@example("yuv422", 3, 2, 6, bytes(12))
@example("bayer_rggb8", 1, 1, 1, bytes(1))
@example("rgb8", 0, 3, 0, b"")
@example("rgb8", 0, 0, 0, b"")
@example("mono8", 2**32 - 1, 0, 2**32 - 1, b"")
def test_random_fields_of_raw_images(
    encoding: str, width: int, height: int, step: int, data: bytes
) -> None:
    image = Image(encoding=encoding, width=width, height=height, step=step)
    image.data.frombytes(data)
    if picture_or_error(image, PixelPool()):
        assert to_rgb(image).shape == (height, width, 3)


_NUMBER = st.floats(width=64) | st.sampled_from((0.0, 1.0, -1.0, 1e308, 1e-320))


@fuzz(200)
@given(
    k=st.lists(_NUMBER, min_size=9, max_size=9),
    d=st.lists(_NUMBER, max_size=15),
    model=st.sampled_from(("plumb_bob", "rational_polynomial", "equidistant", "", "x")),
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    rectified=st.booleans(),
)
def test_random_calibrations(
    k: list[float], d: list[float], model: str, size: tuple[int, int], rectified: bool
) -> None:
    info = CameraInfo(width=size[0], height=size[1], k=k, d=d, distortion_model=model)
    info.p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    mounted = Transform.identity("ego", "CAM")
    with suppress(DataError, ValueError):  # what the node tells as a problem of the camera
        found = calibration_from_info("CAM", info, mounted, rectified=rectified, undistorted=True)
        assert isinstance(found, CameraCalibration)
        straight = Rectifier().apply("CAM", np.zeros((*size[::-1], 3), np.uint8), info)
        assert straight.shape == (*size[::-1], 3)


def test_nothing_is_kept_of_a_thousand_damaged_pictures() -> None:
    rng, pool = random.Random(5), PixelPool()

    def some(count: int) -> None:
        for _ in range(count):
            picture_or_error(CompressedImage(data=damaged(rng.choice(_GOOD), rng)), pool)

    some(300)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        some(1000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500_000, "bytes"


def test_a_node_outlives_random_images(
    vehicle: Vehicle,
    detector: Callable[..., RunningNode],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every set comes to an end that is told, and good images give boxes again."""
    mask = {"sync.missing_camera_policy": "mask", "sync.min_cameras": 1}
    node = detector(**PATIENT, **mask)
    rng = random.Random(7)
    vehicle.connect()
    n = vehicle.drive_until(lambda: node.results, 0)
    for cycle in range(n, n + 20):
        data = {
            c: rng.choice((rng.randbytes(rng.randint(0, 400)), damaged(jpeg(cycle), rng)))
            for c in rng.sample(CAMERAS, rng.randint(1, 6))
        }
        vehicle.drive([cycle], data=data)
    assert {o for o in vehicle.outcomes() if o} <= {"processed", "refused", "incomplete"}
    assert len(vehicle.sets) >= 20
    told = capfd.readouterr().err
    assert "corrupt image" in told
    assert "Traceback" not in told
    assert "an item was dropped" not in told
    node.results.clear()
    vehicle.drive_until(lambda: [r for r in node.results if len(r[0].views) == 6], n + 20)
