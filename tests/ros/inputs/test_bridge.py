# SPDX-License-Identifier: Apache-2.0
"""Raw images with `cv_bridge` and without it: the same pixels, or a reason."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labeldistill_core.errors import DataError
from labeldistill_ros.inputs.bridge import BRIDGED, bridge, suits
from labeldistill_ros.inputs.decoding import ENCODINGS, to_rgb
from tests.support import cv_bridge_stand_in

WIDTH, HEIGHT = 8, 6
BOTH = [encoding for encoding in BRIDGED if encoding in ENCODINGS]
REAL = importlib.util.find_spec("cv_bridge") is not None


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    bridge.cache_clear()
    yield
    bridge.cache_clear()


@pytest.fixture
def with_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one where it is installed."""
    pytest.importorskip("cv2")
    if not REAL:
        cv_bridge_stand_in.install(monkeypatch)


def image(encoding: str, padding: int = 0, size: int | None = None, **more: Any) -> Any:
    size = size or BRIDGED[encoding]
    rows = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH * size + padding), np.uint8)
    fields = {"encoding": encoding, "step": rows.shape[1], "is_bigendian": 0, **more}
    return SimpleNamespace(height=HEIGHT, width=WIDTH, data=rows.tobytes(), **fields)


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    bridge.cache_clear()


@pytest.mark.parametrize("pixels_of_padding", [0, 3])
@pytest.mark.parametrize("encoding", BOTH)
def test_both_give_the_same_pixels(
    encoding: str, pixels_of_padding: int, with_bridge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image(encoding, pixels_of_padding * BRIDGED[encoding])
    assert suits(made)
    by_bridge = to_rgb(made)
    without(monkeypatch)
    assert not suits(made)
    np.testing.assert_array_equal(by_bridge, to_rgb(made))


@pytest.mark.parametrize("encoding", [name for name in BOTH if BRIDGED[name] > 1])
def test_rows_padded_by_a_part_of_a_pixel_are_ours(
    encoding: str, with_bridge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image(encoding, padding=1)
    assert not suits(made)
    found = to_rgb(made)
    without(monkeypatch)
    np.testing.assert_array_equal(found, to_rgb(made))


@pytest.mark.parametrize("bigendian", [0, 1])
def test_sixteen_bits_are_scaled_to_eight(bigendian: int, with_bridge: None) -> None:
    values = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) * 450
    stored = values.astype(">u2" if bigendian else "<u2")
    made = image("rgb16", is_bigendian=bigendian)
    made.data = stored.tobytes() + b"!"  # what lies behind the rows is no pixel
    assert np.abs(to_rgb(made) - values * (255 / 65535)).max() <= 0.5


def test_what_only_the_bridge_reads_is_told_where_it_lacks(
    with_bridge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="padded by a part of a pixel: publish rgb8"):
        to_rgb(image("rgb16", padding=1))
    without(monkeypatch)
    with pytest.raises(DataError, match="mono16 is read where cv_bridge is installed"):
        to_rgb(image("mono16"))


def test_a_bridge_that_does_not_go_with_numpy_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ModuleType("cv_bridge")  # without the names that are imported from it
    monkeypatch.setitem(sys.modules, "cv_bridge", broken)
    caplog.set_level(logging.WARNING)
    assert to_rgb(image("rgb8")).shape == to_rgb(image("bgr8")).shape
    assert ["cv_bridge cannot be used" in line for line in caplog.messages] == [True]


@pytest.mark.parametrize(("encoding", "swapped"), [("nv12", False), ("nv21", True)])
@pytest.mark.parametrize("padding", [0, 5])
def test_planes_of_brightness_and_colour(encoding: str, swapped: bool, padding: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, : WIDTH // 2], rgb[:, WIDTH // 2 :] = (200, 40, 40), (30, 60, 220)
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    y, uv = i420[:HEIGHT], i420[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    colours = np.stack(uv[::-1] if swapped else uv, axis=2).reshape(HEIGHT // 2, WIDTH)
    rows = np.pad(np.concatenate([y, colours]), ((0, 0), (0, padding)))
    made = image(encoding, size=1, step=WIDTH + padding)
    made.data = rows.tobytes()
    assert np.abs(to_rgb(made).astype(int) - rgb).max() <= 3
    made.data = rows[:HEIGHT].tobytes()
    with pytest.raises(DataError, match="do not fit"):
        to_rgb(made)


def test_four_channels_without_a_name_are_those_of_opencv() -> None:
    made = image("8UC4", size=4)
    named = image("bgra8")
    np.testing.assert_array_equal(to_rgb(made), to_rgb(named))


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_refused_as_such(encoding: str) -> None:
    with pytest.raises(DataError, match=f"'{encoding}' is not known.*holds depth"):
        to_rgb(image(encoding, size=4))
