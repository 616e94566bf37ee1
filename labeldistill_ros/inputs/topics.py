# SPDX-License-Identifier: Apache-2.0
"""Names of the cameras' topics. No ROS in here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from labeldistill_ros.parameters import CameraParameters, Parameters
from labeldistill_ros.ros_names import ros_name

_COMPRESSED = "/compressed"
"""By image_transport's rule, the transport's name behind the raw topic."""


@dataclass(frozen=True)
class CameraTopics:
    """Where a camera publishes."""

    image: str
    """Image topic, with the transport's ending."""
    info: str
    """Topic of its `camera_info`."""
    compressed: bool
    """Whether the images are `sensor_msgs/CompressedImage`, not `sensor_msgs/Image`."""

    @classmethod
    def of(cls, camera: str, common: Parameters, own: CameraParameters) -> CameraTopics:
        """Topics of a camera from the parameters."""
        base = f"{common.camera_prefix.rstrip('/')}/{ros_name(camera)}"
        compressed = (own.transport or common.transport) == "compressed"
        ending = _COMPRESSED if compressed else ""
        return cls(
            own.image_topic or f"{base}/image_raw{ending}",
            own.info_topic or f"{base}/camera_info",
            compressed,
        )

    @property
    def of_other_transport(self) -> tuple[str, str]:
        """Image topic of the transport that is not listened to, and that transport's name."""
        if self.compressed:
            return self.image.removesuffix(_COMPRESSED), "raw"
        return self.image + _COMPRESSED, "compressed"


def recorded_cameras(
    topics: Collection[str], cameras: Sequence[str], common: Parameters
) -> dict[str, CameraParameters]:
    """Parameters of cameras that are found in a bag: raw where there are no compressed images.

    Args:
        topics: of the bag.
        cameras: names.
        common: say how topics are named.
    """
    found = {}
    for camera in cameras:
        raw = CameraParameters(transport="raw")
        compressed = CameraParameters(transport="compressed")
        is_raw = CameraTopics.of(camera, common, raw).image in topics
        is_compressed = CameraTopics.of(camera, common, compressed).image in topics
        # Compressed where a bag has both, as the node takes them by default.
        found[camera] = raw if is_raw and not is_compressed else compressed
    return found
