# SPDX-License-Identifier: Apache-2.0
"""What the nuScenes tables tell of: one sensor's file with its pose, one sample's ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraCalibration, CameraView
from labeldistill_core.classes import NUSCENES, ClassList
from labeldistill_core.data.image_header import read_header
from labeldistill_core.data.images import Reduction, decode_jpeg, reduction_of
from labeldistill_core.errors import DataError
from labeldistill_core.files import read_bounded, refuse_special
from labeldistill_core.frames import Array, Transform
from labeldistill_core.names import shown

_HEAD_BYTES = (1 << 18, 1 << 24)
"""Of an image file that are read for its size: a thumbnail may stand before it, and where that does
not do, the raw values that thermal cameras put there."""
_LARGEST = 1 << 28
"""Bytes of an image or a cloud."""


def size_of_image(path: Path) -> tuple[int, int]:
    """Width and height that the head of an image file tells; zeros where it is missing or none."""
    for count in _HEAD_BYTES:
        try:
            refuse_special(path)
            with path.open("rb") as file:
                header = read_header(file.read(count))
        except OSError:
            break
        except DataError:
            continue
        return header.width_px, header.height_px
    return 0, 0


class SensorMounting(NamedTuple):
    """A sensor on the vehicle."""

    channel: str
    """Name of the sensor."""
    modality: str
    """camera, lidar or radar."""
    ego_from_sensor: Transform
    """Mounting pose."""
    intrinsics_px: Array
    """(3, 3) matrix K of a camera; empty for others."""


@dataclass(frozen=True, eq=False)
class SensorRecord:
    """One image, scan or sweep: where its file is and where its sensor was."""

    token: str
    """Of the `sample_data` record."""
    sample_token: str
    """Of the sample that it is the key frame of, or nearest to."""
    channel: str
    """Name of the sensor, such as `CAM_FRONT`."""
    modality: str
    """camera, lidar or radar."""
    stamp_ns: int
    """Time of exposure, nanoseconds since the epoch."""
    is_key_frame: bool
    """Whether it belongs to the sample itself; otherwise it is a sweep between samples."""
    path: Path
    """Its file."""
    ego_from_sensor: Transform
    """Mounting pose."""
    fixed_from_ego: Transform
    """Pose of the vehicle at `stamp_ns`."""
    intrinsics_px: Array
    """(3, 3) matrix K of a camera, empty for others."""
    width_px: int
    """Of the image; 0 for others, and where neither table nor image tells it."""
    height_px: int
    """As `width_px`."""

    @property
    def is_there(self) -> bool:
        """Whether the file exists."""
        return self.path.is_file()

    @property
    def calibration(self) -> CameraCalibration:
        """Of a camera.

        Raises:
            DataError: its size is not known.
        """
        if not self.width_px or not self.height_px:
            raise DataError(
                f"sample_data {shown(self.token)} has no width and height, and its image "
                f"{self.path} does not tell them: it is missing or no image"
            )
        return CameraCalibration(
            self.channel, self.intrinsics_px, self.width_px, self.height_px, self.ego_from_sensor
        )

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            DataError: it is missing.
        """
        try:
            return read_bounded(self.path, _LARGEST)
        except OSError as error:
            raise DataError(
                f"{self.channel} of sample {self.sample_token}: cannot read {self.path} "
                f"({error.strerror}); the data root is partial or not unpacked wholly"
            ) from error

    def scan(self) -> NDArray[np.float32]:
        """(P, 5) x, y, z, intensity, ring of a LiDAR scan, in the sensor's frame.

        Raises:
            DataError: the file is missing or no scan.
        """
        data = self.read()
        # Five float32 a point.
        if len(data) % 20:
            raise DataError(f"{self.path} is no LiDAR scan: its size is no multiple of 20 bytes")
        return np.frombuffer(data, np.float32).reshape(-1, 5)

    def view(self, reduction: Reduction | None = None) -> CameraView:
        """The decoded image with its calibration and pose.

        Args:
            reduction: of its JPEG, see `decode_jpeg`.

        Raises:
            DataError: the file is missing, corrupt or of another size than the tables say.
        """
        data = self.read()
        try:
            # Bounded by what the tables say, so that a file which claims more is refused before it
            # is decoded.
            size_px = (self.width_px, self.height_px)
            image = decode_jpeg(data, largest_wh=size_px, reduction=reduction)
            reduced = reduction_of(image, size_px, reduction)
            return CameraView(self.calibration, self.stamp_ns, image, self.fixed_from_ego, reduced)
        except (DataError, ValueError) as error:
            raise DataError(f"{self.path}: {error}") from error


def images_of(
    sample_token: str, records: Mapping[str, SensorRecord], cameras: Sequence[str]
) -> list[SensorRecord]:
    """Key frames of these cameras, in this order.

    Args:
        sample_token: of the sample.
        records: its key frames by the camera's name.
        cameras: names.

    Raises:
        DataError: a camera is not in the sample.
    """
    if absent := [name for name in cameras if name not in records]:
        raise DataError(
            f"sample {sample_token} has no image of {', '.join(absent)}; it has "
            f"{', '.join(records) or 'none'}"
        )
    return [records[name] for name in cameras]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """All that is needed to score one sample; N boxes of a configuration's classes."""

    sample_token: str
    """Of the sample."""
    stamp_ns: int
    """Time of the sample."""
    fixed_from_ego: Transform
    """Pose of the vehicle at the LiDAR scan, from which ranges are measured."""
    boxes: Boxes3D
    """(N) float64 in the frame "map"; a velocity is NaN where it cannot be estimated."""
    tokens: tuple[str, ...]
    """(N) annotation tokens."""
    instances: tuple[str, ...]
    """(N) instance tokens: the same object at other times has the same one."""
    num_lidar_pts: tuple[int, ...]
    """(N) LiDAR points inside."""
    num_radar_pts: tuple[int, ...]
    """(N) radar points inside."""
    attributes: tuple[str, ...]
    """(N) attribute names, empty where there is none."""
    visibility: tuple[str, ...]
    """(N) visibility levels such as `v80-100`, empty where unknown."""
    bicycle_racks: Array
    """(R, 7) x, y, z, length, width, height, yaw of racks; cycles in them are not scored."""
    classes: ClassList = NUSCENES
    """What the boxes' labels count through, and how far each class is scored."""

    @property
    def touched(self) -> NDArray[np.bool_]:
        """(N,) which boxes count: those that LiDAR or radar hit, or of which nobody knows.

        Tables without points say -1 for unknown; "not zero" is also what the devkit asks.
        """
        points = np.array([self.num_lidar_pts, self.num_radar_pts], np.int64)
        return np.asarray(points.sum(axis=0) != 0)
