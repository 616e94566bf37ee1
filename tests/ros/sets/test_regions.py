# SPDX-License-Identifier: Apache-2.0
"""Images of a part of the sensor, or binned, and those that are reduced while decoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labeldistill_core.cameras import CameraView
from labeldistill_core.config import ImageConfig
from labeldistill_core.frames import Transform
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.calibration import camera_info
from labeldistill_ros.messages.stamps import header
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.assembly import Assembler, AssemblyOptions, SetError
from labeldistill_ros.sync.camera_set import CameraSet, Frame

STAMP_NS = 10**18
SENSOR = (1600, 900)


def view_of(decode: str, size: tuple[int, int], **info: Any) -> CameraView:
    """The image of a set of one camera."""
    picture = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(picture, "JPEG")
    k = np.array([[1260.0, 0, 800], [0, 1260, 450], [0, 0, 1]])
    told = camera_info(k, SENSOR, STAMP_NS, "front", BAG)
    for name, value in info.items():
        owner = told.roi if hasattr(told.roi, name) else told
        setattr(owner, name, value)
    message = BAG.make(
        "sensor_msgs/msg/CompressedImage",
        header=header(STAMP_NS, "front", BAG),
        format="jpeg",
        data=picture.getvalue(),
    )
    frame = Frame(STAMP_NS, 0.0, Arrival(message, told))
    images = CameraSet("C", STAMP_NS, {"C": frame}, (), True, 0.0)
    options = AssemblyOptions("map", "base_link", "base_link", 0.0, 1, False, "none", {})
    image = ImageConfig(256, 704, decode=decode)  # type: ignore[arg-type]
    with Assembler(options, lambda t, s, *_: Transform.identity(t, s), 1, image) as assembler:
        (view,) = assembler.assemble(ClosedSet(images, {"C": told}, 0.0)).frames.views
    return view


REGION = {"x_offset": 400, "y_offset": 225, "width": 800, "height": 450}
BINNED = {"binning_x": 2, "binning_y": 2}


@pytest.mark.parametrize("decode", ["full", "scaled"])
@pytest.mark.parametrize("info", [REGION, BINNED], ids=["region", "binned"])
def test_the_whole_sensor_passes_for_no_part_of_it(decode: str, info: dict[str, int]) -> None:
    with pytest.raises(SetError, match="image is 1600 x 900 pixels, its camera_info says 800 x"):
        view_of(decode, SENSOR, **info)
    view = view_of(decode, (800, 450), **info)
    assert (view.reduced, view.pixels.shape[:2]) == (1, (450, 800))


def test_a_region_that_is_the_whole_sensor_is_reduced() -> None:
    assert view_of("scaled", SENSOR).reduced == 2
    assert view_of("scaled", SENSOR, width=1600, height=900).reduced == 2
