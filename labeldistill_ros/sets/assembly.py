# SPDX-License-Identifier: Apache-2.0
"""Messages of one instant, with calibration and transforms, to a `FrameSet`.

ROS frame names end here: the core knows the vehicle as `ego`, the fixed frame as `map` and a
camera's optical frame by the camera's name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.config import ImageConfig
from labeldistill_core.data.images import Reduction, decode_reduction, reduction_of
from labeldistill_core.data.pixel_pool import PixelPool
from labeldistill_core.errors import DataError, LabelDistillError
from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.decoding import Pixels
from labeldistill_ros.inputs.rectification import Rectifier
from labeldistill_ros.inputs.transforms import Lookup, TransformError
from labeldistill_ros.messages.calibration import (
    calibration_from_info,
    image_size,
    is_distorted,
    shows_whole_sensor,
)
from labeldistill_ros.ros_names import frame_name
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.decode_pool import DecodePool
from labeldistill_ros.sets.together import together
from labeldistill_ros.sync.synchronizer import CameraSet

_MOST_AHEAD = 16
"""Images that wait for a decoder before any is decoded ahead: two sets of eight cameras."""

Cause = Literal["image", "camera_info", "transform"]


@dataclass(frozen=True)
class Problem:
    """Why a camera's image could not be used."""

    camera: str
    """Name of the camera in the model, such as `CAM_FRONT`."""
    cause: Cause
    """Kind of the problem, by which it is counted."""
    text: str
    """Sentence that names the camera, what is wrong with its image, and the mend."""


class SetError(LabelDistillError):
    """A set of which too little can be used to detect in it."""

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
    """Whether the images are rectified, so that P and R of `camera_info` hold, not K and D."""
    pose: Literal["required", "optional", "none"]
    """What to do without the vehicle's pose: refuse, go on without history, never ask."""
    frame_ids: Mapping[str, str]
    """ROS names of the optical frames, by camera, where the user named them; empty elsewhere."""


@dataclass(frozen=True)
class Assembled:
    """A set that is ready for the detector."""

    frames: FrameSet
    """The images and where they were taken."""
    output_from_fixed: Transform
    """Where the boxes go: from `map` to the output frame at the set's stamp."""
    problems: tuple[Problem, ...]
    """Cameras that had to be left out."""
    no_pose: str
    """Why the vehicle's poses are unknown; then all are the identity. Empty when they are known."""
    timings_ms: dict[str, float]
    """Wall-clock time of `decode_images` and `transforms`."""
    optical_frames: Mapping[str, str]
    """ROS name of each camera's optical frame: that of its images, or the user's."""


class Assembler:
    """Decodes images in a pool and looks up the rest."""

    def __init__(
        self,
        options: AssemblyOptions,
        lookup: Lookup,
        threads: int,
        image: ImageConfig | None = None,
    ) -> None:
        """Start the pool of threads that decode.

        Args:
            options: frames, policies and limits.
            lookup: gives the transform between two ROS frames at a stamp.
            threads: number of images that are decoded at the same time.
            image: what the network takes, which says whether JPEGs are reduced; not when None.
        """
        self._reduction = partial(decode_reduction, image=image) if image else None
        self._options = options
        self._lookup = lookup
        self._pixels = PixelPool()
        self._rectifier = Rectifier(self._pixels.take)
        self._pool = DecodePool(threads)

    def __enter__(self) -> Assembler:
        """Return the assembler; its pool runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the pool."""
        self.close()

    def close(self) -> None:
        """End the pool, whatever its decoders do; a set that waits for one is refused."""
        self._pool.close()

    def decode_ahead(self, *arrivals: Arrival) -> None:
        """Decode images before it is their turn, unless many are to be decoded already."""
        for arrival in arrivals:
            # Not every image becomes part of a set. Where decoding is slower than images come, or a
            # decoder hangs, those that nobody waits for would fill the memory.
            if self._pool.backlog >= _MOST_AHEAD:
                return
            if arrival.is_sized:
                self._decode(arrival)

    def _decode(self, arrival: Arrival) -> Future[Pixels]:
        return arrival.decode(self._pool, self._pixels.take, self._reduction_of(arrival))

    def _reduction_of(self, arrival: Arrival) -> Reduction | None:
        """By how much the image may be reduced while it is decoded."""
        if arrival.info is None:  # nobody could tell afterwards what it was reduced from
            return None
        # Maps that take out distortion are made for images as taken.
        straight = self._options.rectified or not is_distorted(arrival.info)
        # A reduced image of the whole sensor could pass for one of a region of it, or for a binned
        # one.
        whole = shows_whole_sensor(arrival.info)
        return self._reduction if straight and whole else None

    def assemble(self, closed: ClosedSet) -> Assembled:
        """The set, without the cameras whose image cannot be used.

        Raises:
            SetError: too few images are left, or the vehicle's pose is missing and required.
        """
        start_s, images, infos = time.perf_counter(), closed.images, closed.infos
        until_s = time.monotonic() + self._options.tf_timeout_s
        names = list(images.frames)
        # Decoding is begun before the transforms are waited for, so that the two take the time of
        # one.
        decoded = dict[str, Future[Pixels]]()
        for name, frame in images.frames.items():
            if not frame.item.is_sized:
                frame.item.info = infos.get(name)
            if frame.item.is_sized:
                decoded[name] = self._decode(frame.item)
        try:
            output_from_fixed, poses, no_pose = self._poses(images, until_s)
        except TransformError as error:
            closed.cancel()
            raise SetError("transform", str(error)) from error
        transforms_s = time.perf_counter()

        views: list[CameraView] = []
        problems: list[Problem] = []
        for name in names:
            # What is being tried is the cause if it fails; each camera fails by itself, so that
            # `mask` can go on without it.
            cause: Cause = "camera_info"
            try:
                if name not in infos:
                    raise DataError(
                        f"{name}: no camera_info has come, so its calibration is unknown"
                    )
                image_size(name, infos[name])
                cause = "image"
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

        # `min_cameras` is all of them where incomplete sets are dropped, so one bad image refuses
        # the set.
        if len(views) < self._options.min_cameras:
            first = problems[0] if problems else Problem("", "image", "no image is left")
            texts = together({problem.camera: problem.text for problem in problems})
            text = "; ".join(texts) or first.text
            raise SetError(first.cause, text, tuple(problems))
        timings = {
            "transforms": (transforms_s - start_s) * 1e3,
            "decode_images": (decoded_s - transforms_s) * 1e3,
        }
        frames = FrameSet(images.stamp_ns, tuple(views))
        optical_frames = {name: self._optical_frame(name, images) for name in frames.by_name}
        return Assembled(
            frames, output_from_fixed, tuple(problems), no_pose, timings, optical_frames
        )

    def _poses(
        self, images: CameraSet[Arrival], until_s: float
    ) -> tuple[Transform, dict[str, Transform], str]:
        """`output_from_fixed`, `fixed_from_ego` by camera, and why these are only the identity."""
        policy, reason = self._options.pose, ""
        if policy != "none":
            try:
                output_from_fixed = self._output_from_fixed(images.stamp_ns, until_s)
                poses = {
                    name: self._fixed_from_ego(frame.stamp_ns, until_s)
                    for name, frame in images.frames.items()
                }
                return output_from_fixed, poses, ""
            except TransformError as error:
                if policy == "required":
                    raise
                reason = str(error)
        # The vehicle stands in the fixed frame's origin: right for this set alone, as long as
        # nobody compares it with another. Boxes can then only go to frames that move with the
        # vehicle.
        still = Transform.identity(FIXED_FRAME, EGO_FRAME)
        output, base = self._options.output_frame, self._options.base_frame
        output_from_ego = (
            Transform.identity(output, EGO_FRAME)
            if output == base
            else self._lookup(output, base, images.stamp_ns, until_s)
        )
        output_from_fixed = replace(output_from_ego, source=FIXED_FRAME)
        return output_from_fixed, dict.fromkeys(images.frames, still), reason or "not asked for"

    def _view(
        self,
        name: str,
        images: CameraSet[Arrival],
        infos: Mapping[str, Any],
        pixels: Pixels,
        ego_from_camera: Transform,
        fixed_from_ego: Transform,
    ) -> CameraView:
        calibration = calibration_from_info(
            name,
            infos[name],
            ego_from_camera,
            rectified=self._options.rectified,
            undistorted=True,
        )
        size_px = (calibration.width_px, calibration.height_px)
        reduced = reduction_of(pixels, size_px, self._reduction_of(images.frames[name].item))
        height, width = (size * reduced for size in pixels.shape[:2])
        # A driver that scales its images and not its calibration would shift every box without a
        # word.
        if (width, height) != size_px:
            raise DataError(
                f"{name}: the image is {width} x {height} pixels, its camera_info says "
                f"{calibration.width_px} x {calibration.height_px}: publish a camera_info for "
                "this size"
            )
        if not self._options.rectified:
            pixels = self._rectifier.apply(name, pixels, infos[name])
        stamp_ns = images.frames[name].stamp_ns
        return CameraView(calibration, stamp_ns, pixels, fixed_from_ego, reduced)

    def _ego_from_camera(self, name: str, images: CameraSet[Arrival], until_s: float) -> Transform:
        frame_id, stamp_ns = self._optical_frame(name, images), images.frames[name].stamp_ns
        if not frame_id:
            raise DataError(
                f"{name}: its images name no frame: set header.frame_id in the driver, or the "
                f"parameter cameras.{name}.frame_id"
            )
        mounted = self._lookup(self._options.base_frame, frame_id, stamp_ns, until_s)
        # The names of ROS end here; the numbers stay.
        return replace(mounted, target=EGO_FRAME, source=name)

    def _optical_frame(self, name: str, images: CameraSet[Arrival]) -> str:
        own: str = images.frames[name].item.message.header.frame_id
        return self._options.frame_ids.get(name) or frame_name(own)

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
