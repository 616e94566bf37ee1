# SPDX-License-Identifier: Apache-2.0
"""Messages of one instant, with calibration and transforms, to a `FrameSet`.

ROS frame names end here: the core knows the vehicle as `ego`, the fixed frame as `map` and a
camera's optical frame by the camera's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.errors import DataError, LabelDistillError
from labeldistill_core.frames import Transform
from labeldistill_ros.images import Pixels, to_rgb
from labeldistill_ros.messages import calibration_from_info
from labeldistill_ros.parameters import CameraParameters, Parameters
from labeldistill_ros.synchronizer import CameraSet, SyncOptions
from labeldistill_ros.transforms import TransformError

Cause = Literal["image", "camera_info", "transform"]

Lookup = Callable[[str, str, int, float], Transform]
"""`TransformListener.lookup`."""


@dataclass(frozen=True)
class Problem:
    """Why a camera's image could not be used."""

    camera: str
    """Name of the camera."""
    cause: Cause
    """What is wrong, for counting."""
    text: str
    """What is wrong, for people."""


class SetError(LabelDistillError):
    """A set cannot be used."""

    def __init__(self, cause: Cause, message: str, problems: tuple[Problem, ...] = ()) -> None:
        """`problems` are those of single cameras."""
        super().__init__(message)
        self.cause = cause
        self.problems = problems


@dataclass(frozen=True)
class AssemblyOptions:
    """How sets are put together."""

    fixed_frame: str
    """ROS name of the fixed frame."""
    base_frame: str
    """ROS name of the vehicle frame."""
    output_frame: str
    """ROS name of the frame of the boxes."""
    tf_timeout_s: float
    """How long to wait for transforms, for all cameras together."""
    min_cameras: int
    """Fewest usable images; all cameras of the model where incomplete sets are dropped."""
    rectified: bool
    """The images are rectified."""
    frame_ids: Mapping[str, str]
    """Optical frames by camera where the user named them."""

    @classmethod
    def of(
        cls, common: Parameters, cameras: Mapping[str, CameraParameters], sync: SyncOptions
    ) -> AssemblyOptions:
        """Options from the parameters."""
        return cls(
            common.fixed_frame,
            common.base_frame,
            common.output_frame,
            common.tf_timeout,
            sync.min_cameras if sync.policy == "mask" else len(sync.cameras),
            common.images_rectified,
            {camera: own.frame_id for camera, own in cameras.items()},
        )


@dataclass(frozen=True)
class Assembled:
    """A set that is ready for the detector."""

    frames: FrameSet
    """The images and where they were taken."""
    output_from_fixed: Transform
    """Where the boxes go: from `map` to the output frame at the set's stamp."""
    problems: tuple[Problem, ...]
    """Cameras that had to be left out."""
    timings_ms: dict[str, float]
    """Wall-clock time of `decode_images` and `transforms`."""


class Assembler:
    """Decodes images in a pool and looks up the rest."""

    def __init__(self, options: AssemblyOptions, lookup: Lookup, threads: int) -> None:
        """Start the pool."""
        self._options = options
        self._lookup = lookup
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        """End the pool."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def assemble(
        self, images: CameraSet[Image | CompressedImage], infos: Mapping[str, CameraInfo]
    ) -> Assembled:
        """The set, without the cameras whose image cannot be used.

        Args:
            images: what the synchronizer found.
            infos: newest `camera_info` by camera.

        Raises:
            SetError: too few images are left, or the vehicle's pose at the set's stamp is missing.
        """
        start_s = time.perf_counter()
        until_s = time.monotonic() + self._options.tf_timeout_s
        names = list(images.frames)
        decoded = {
            name: self._pool.submit(to_rgb, images.frames[name].item) for name in images.frames
        }
        try:
            output_from_fixed = self._output_from_fixed(images.stamp_ns, until_s)
            poses = {
                name: self._fixed_from_ego(images.frames[name].stamp_ns, until_s) for name in names
            }
        except TransformError as error:
            for future in decoded.values():
                future.cancel()
            raise SetError("transform", str(error)) from error
        transforms_s = time.perf_counter()

        views: list[CameraView] = []
        problems: list[Problem] = []
        for name in names:
            cause: Cause = "image"
            try:
                pixels = decoded[name].result()
                cause = "transform"
                ego_from_camera = self._ego_from_camera(name, images, until_s)
                cause = "camera_info"
                views.append(self._view(name, images, infos, pixels, ego_from_camera, poses[name]))
            except (LabelDistillError, ValueError) as error:
                text = str(error)
                text = text if text.startswith(name) else f"{name}: {text}"
                problems.append(Problem(name, cause, text))
        decoded_s = time.perf_counter()

        if len(views) < self._options.min_cameras:
            first = problems[0] if problems else Problem("", "image", "no image is left")
            text = "; ".join(problem.text for problem in problems) or first.text
            raise SetError(first.cause, text, tuple(problems))
        timings = {
            "transforms": (transforms_s - start_s) * 1e3,
            "decode_images": (decoded_s - transforms_s) * 1e3,
        }
        frames = FrameSet(images.stamp_ns, tuple(views))
        return Assembled(frames, output_from_fixed, tuple(problems), timings)

    def _view(
        self,
        name: str,
        images: CameraSet[Image | CompressedImage],
        infos: Mapping[str, CameraInfo],
        pixels: Pixels,
        ego_from_camera: Transform,
        fixed_from_ego: Transform,
    ) -> CameraView:
        if name not in infos:
            raise DataError(f"{name}: no camera_info has come, so its calibration is unknown")
        calibration = calibration_from_info(
            name, infos[name], ego_from_camera, rectified=self._options.rectified
        )
        height, width = pixels.shape[:2]
        if (width, height) != (calibration.width_px, calibration.height_px):
            raise DataError(
                f"{name}: the image is {width} x {height} pixels, its camera_info says "
                f"{calibration.width_px} x {calibration.height_px}: publish a camera_info for "
                "this size"
            )
        return CameraView(calibration, images.frames[name].stamp_ns, pixels, fixed_from_ego)

    def _ego_from_camera(
        self, name: str, images: CameraSet[Image | CompressedImage], until_s: float
    ) -> Transform:
        frame = images.frames[name]
        frame_id = self._options.frame_ids.get(name) or frame.item.header.frame_id
        if not frame_id:
            raise DataError(
                f"{name}: its images name no frame: set header.frame_id in the driver, or the "
                f"parameter cameras.{name}.frame_id"
            )
        mounted = self._lookup(self._options.base_frame, frame_id, frame.stamp_ns, until_s)
        return replace(mounted, target=EGO_FRAME, source=name)

    def _fixed_from_ego(self, stamp_ns: int, until_s: float) -> Transform:
        options = self._options
        pose = self._lookup(options.fixed_frame, options.base_frame, stamp_ns, until_s)
        return replace(pose, target=FIXED_FRAME, source=EGO_FRAME)

    def _output_from_fixed(self, stamp_ns: int, until_s: float) -> Transform:
        options = self._options
        if options.output_frame == options.fixed_frame:
            return Transform(options.output_frame, FIXED_FRAME, np.eye(3), np.zeros(3))
        pose = self._lookup(options.output_frame, options.fixed_frame, stamp_ns, until_s)
        return replace(pose, source=FIXED_FRAME)
