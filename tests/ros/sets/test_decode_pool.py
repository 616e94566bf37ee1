# SPDX-License-Identifier: Apache-2.0
"""Nobody waits for a decoder that hangs."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import wait
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.transforms import TransformError
from labeldistill_ros.messages import camera_info
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.sets import arrival
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.assembly import Assembler, AssemblyOptions, SetError
from labeldistill_ros.sets.decode_pool import DecodePool
from labeldistill_ros.sync.camera_set import CameraSet, Frame
from tests.support.rig import COURSE, HEIGHT, WIDTH


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """Lets decoders that hang come back."""
    event = threading.Event()
    yield event
    event.set()


def test_results_and_errors_come_through() -> None:
    pool = DecodePool(2)
    futures = [pool.submit(divmod, 7, d) for d in (2, 3, 0)]
    assert [f.result(5) for f in futures[:2]] == [(3, 1), (2, 1)]
    assert isinstance(futures[2].exception(5), ZeroDivisionError)
    pool.close()


@pytest.mark.real_time
def test_close_ends_what_runs_what_waits_and_what_comes(go_on: threading.Event) -> None:
    pool = DecodePool(1)
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(60)

    runs, waits = pool.submit(hang), pool.submit(int)
    assert begun.wait(5)
    asked_s = time.monotonic()
    pool.close()
    comes = pool.submit(int)
    for future in (runs, waits, comes):
        with pytest.raises(DataError, match="was ended"):
            future.result(5)
    assert time.monotonic() - asked_s < 1


def test_a_call_that_is_cancelled_is_left_out_and_the_threads_go_on(
    go_on: threading.Event,
) -> None:
    pool = DecodePool(1)
    first, second, third = pool.submit(go_on.wait, 60), pool.submit(int), pool.submit(int)
    assert second.cancel()
    go_on.set()
    assert third.result(5) == 0
    assert wait([first], 5).done
    pool.close()
    pool.close()


def test_threads_end_with_the_pool() -> None:
    before = set(threading.enumerate())
    pool = DecodePool(3)
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    pool.close()
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)


class Message:
    """Stands for an image message."""


@pytest.mark.parametrize(
    "info", [None, SimpleNamespace(width=0, height=225, d=(), distortion_model="")]
)
def test_an_image_is_not_decoded_before_its_size_is_known(
    info: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of any size, and without a calibration no set takes it."""

    def lookup(*_: object) -> Transform:
        return Transform.identity("base_link", "camera")

    decoded: list[object] = []
    monkeypatch.setattr(arrival, "to_rgb", lambda *given: decoded.append(given))
    options = AssemblyOptions("map", "base_link", "base_link", 0.1, 6, False, "none", {})
    image = Arrival(Message(), info)
    images = CameraSet("CAM_FRONT", 1, {"CAM_FRONT": Frame(1, 0.0, image)}, (), True, 0.0)
    infos = {} if info is None else {"CAM_FRONT": info}
    with Assembler(options, lookup, threads=1) as assembler:
        assembler.decode_ahead(image)
        with pytest.raises(SetError, match="CAM_FRONT: (no camera_info|camera_info says 0 x 225)"):
            assembler.assemble(ClosedSet(images, infos, 0.0))
    assert decoded == []


def test_an_image_of_unknown_size_is_decoded_by_the_calibration_that_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def lookup(target: str, source: str, *_: object) -> Transform:
        return Transform.identity(target, source)

    def to_rgb(_: object, __: object, size: object, ___: object) -> np.ndarray[Any, Any]:
        sizes.append(size)
        return pixels

    sizes: list[object] = []
    monkeypatch.setattr(arrival, "to_rgb", to_rgb)
    options = AssemblyOptions("map", "base_link", "base_link", 0.1, 1, False, "none", {})
    empty, whole = (
        camera_info(COURSE.intrinsics_px, size, 1, "camera", BAG)
        for size in ((0, 0), (WIDTH, HEIGHT))
    )
    message = SimpleNamespace(header=SimpleNamespace(frame_id="camera"))
    for first in (None, empty):
        image = Arrival(message, first)
        images = CameraSet("CAM_FRONT", 1, {"CAM_FRONT": Frame(1, 0.0, image)}, (), True, 0.0)
        with Assembler(options, lookup, threads=1) as assembler:
            assembler.decode_ahead(image)
            made = assembler.assemble(ClosedSet(images, {"CAM_FRONT": whole}, 0.0))
        assert made.frames.views[0].image.shape == pixels.shape
    assert sizes == [(WIDTH, HEIGHT), (WIDTH, HEIGHT)]


def test_images_that_no_set_takes_do_not_pile_up_behind_a_slow_decoder(
    go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: object) -> Transform:
        raise TransformError("not asked for", may_come=False)

    monkeypatch.setattr(arrival, "to_rgb", lambda *_: go_on.wait(60))
    options = AssemblyOptions("map", "base_link", "base_link", 0.1, 6, False, "none", {})
    alive: weakref.WeakSet[Message] = weakref.WeakSet()
    with Assembler(options, lookup, threads=1) as assembler:
        for _ in range(500):
            message = Message()
            alive.add(message)
            info = BAG.make("sensor_msgs/msg/CameraInfo", width=1, height=1)
            assembler.decode_ahead(Arrival(message, info))
        del message
        assert 1 < len(alive) < 20
        go_on.set()
        end_s = time.monotonic() + 5
        while alive and time.monotonic() < end_s:
            time.sleep(0.01)
        assert not alive
