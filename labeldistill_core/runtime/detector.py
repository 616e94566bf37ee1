# SPDX-License-Identifier: Apache-2.0
"""The streaming detector: one pass of the image network a set, past frames pooled anew."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraPose, FrameSet
from labeldistill_core.checkpoints import load_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch, mean_ego_pose, motion
from labeldistill_core.errors import ConfigError
from labeldistill_core.frames import Transform
from labeldistill_core.network.decode import Candidates, remaining_boxes, suppressed
from labeldistill_core.network.depth_net import camera_vector
from labeldistill_core.network.lift import PoolingTable, pool, ray_matrices
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import Precision, resolve_device, resolve_precision
from labeldistill_core.runtime.device_images import DeviceImages
from labeldistill_core.runtime.fixed_step import FixedStep
from labeldistill_core.runtime.fuse import fuse
from labeldistill_core.runtime.history import History, PastFrame

_LOG = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "onnx"]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of one set of images."""

    stamp_ns: int
    """Time of the set."""
    boxes: Boxes3D
    """In the ego frame at the mean pose of the set's cameras; on the CPU."""
    fixed_from_ego: Transform
    """That mean pose in the fixed frame."""
    history_valid: int
    """How many of the past frames were there; the others were replaced by the current one."""
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage."""
    dropped: str = ""
    """Why the past frames were forgotten before this set, when they were."""

    def in_frame(self, target_from_fixed: Transform) -> Boxes3D:
        """The boxes in any frame whose pose at the wanted time is known.

        Args:
            target_from_fixed: fixed frame to the wanted frame, for example the inverse of the
                vehicle's pose at a message's stamp.
        """
        return self.boxes.transformed(target_from_fixed @ self.fixed_from_ego)


class Detector:
    """Sets of images in the order of time, boxes out.

    Not safe for calls from several threads at once.
    """

    _step: FixedStep | None = None
    _device_images: DeviceImages | None = None

    def __init__(
        self,
        student: Student,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        compile: bool = False,
        fixed_shapes: bool | None = None,
        device_resize: bool | None = None,
        history_tolerance_s: float = 0.1,
        checkpoint_sha256: str = "",
    ) -> None:
        """Prepare a network for its device.

        Args:
            student: trained network; stays as it is.
            device: "cpu", "cuda:0" and so on, or "auto" for CUDA where there is one.
            precision: of the convolutions; geometry, pooling and boxes are float32 always. "auto"
                is the fastest one that the device computes natively.
            compile: let `torch.compile` join operations: faster steps, but the first takes half a
                minute. On the CPU it needs a C++ compiler.
            fixed_shapes: run every step over the same buffers, in a CUDA graph; see
                `runtime.fixed_step`. None: on a GPU.
            device_resize: resize images on the device, see `runtime.device_images`. None: on a
                GPU.
            history_tolerance_s: how far a past frame may be from its nominal age.
            checkpoint_sha256: identity of the weights, for reports.

        Raises:
            ConfigError: the device is not there, or no compiler.
        """
        self.backend: Backend = "torch"
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.network = fuse(student, getattr(torch, self.precision)).to(self.device)
        """The student as it computes here, see `runtime.fuse`."""
        self.compiled = compile
        if compile:
            self._compile()
        if self.device.type == "cpu":
            keep_freed_memory()
        on_gpu = self.device.type == "cuda"
        if on_gpu if fixed_shapes is None else fixed_shapes:
            self._step = FixedStep(self.network, getattr(torch, self.precision), self.device)
        if on_gpu if device_resize is None else device_resize:
            self._device_images = DeviceImages(student.config, self.device)
        self._begin(student.config, history_tolerance_s, checkpoint_sha256)

    def _begin(
        self, config: StudentConfig, history_tolerance_s: float, checkpoint_sha256: str
    ) -> None:
        """What does not depend on how the network is computed."""
        self.config, self.checkpoint_sha256 = config, checkpoint_sha256
        # Pillow resizes without Python's lock
        self._threads = ThreadPoolExecutor(min(6, os.cpu_count() or 1), thread_name_prefix="resize")
        self._history: History[PastFrame] = History(config.history_s, history_tolerance_s)
        self._calibration: tuple[CameraPose | None, ...] = ()
        self._mounting: tuple[tuple[CameraPose | None, ...], PoolingTable] | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        compile: bool = False,
        backend: Backend = "auto",
        history_tolerance_s: float = 0.1,
    ) -> Detector:
        """From a file that `save_student` wrote or, in ONNX form, `export_onnx`.

        Args:
            path: the file.
            device: as in `Detector`.
            precision: likewise.
            compile: likewise; torch only.
            backend: what computes the network: torch, or onnxruntime in float32 on the CPU, for
                which a checkpoint is exported first. "auto": what the file's form says.
            history_tolerance_s: as in `Detector`.

        Raises:
            CheckpointError: the file is missing, damaged or does not fit.
            ConfigError: the device is not there, or the backend is unknown or not for this file.
        """
        if backend not in get_args(Backend):
            raise ConfigError(f"no backend {backend!r}: use {', '.join(get_args(Backend))}")
        if backend == "torch" and path.suffix == ".onnx":
            raise ConfigError(
                f"{path} is a graph for onnxruntime: set backend to auto or onnx, or name the "
                ".safetensors file"
            )
        if backend == "onnx" or path.suffix == ".onnx":
            from labeldistill_core.runtime.onnx_detector import open_onnx

            return open_onnx(
                path,
                device=device,
                precision=precision,
                history_tolerance_s=history_tolerance_s,
            )
        checkpoint = load_student(path)
        return cls(
            checkpoint.student,
            device=device,
            precision=precision,
            compile=compile,
            history_tolerance_s=history_tolerance_s,
            checkpoint_sha256=checkpoint.sha256,
        )

    @property
    def in_one_piece(self) -> bool:
        """Whether a step runs over fixed shapes; its time then counts as the image network's."""
        return self._step is not None

    @property
    def graph(self) -> str:
        """What became of the CUDA graph: "recorded", why not, or empty before the first step."""
        return self._step.graph_state if self._step else "not asked for"

    @property
    def newest(self) -> PastFrame | None:
        """What is kept of the newest set."""
        return self._history.newest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the boxes' labels."""
        return self.config.class_names

    def reset(self, reason: str) -> None:
        """Forget past frames."""
        if len(self._history):
            _LOG.info("history of %d frames dropped: %s", len(self._history), reason)
        self._history.clear()

    def prepare(self, frames: FrameSet) -> CameraBatch:
        """The network's input for one set; images lie where they were resized, the rest on the CPU.

        Raises:
            DataError: the set has no image of any camera of the model.
        """
        images = self._device_images(frames, self._threads) if self._device_images else None
        return camera_batch([frames], self.config, pool=self._threads, images=images)

    @torch.inference_mode()
    def detect(self, frames: FrameSet, *, use_history: bool = True) -> Detections:
        """Boxes of a set that is newer than those before.

        A set that is not newer, or a camera whose calibration changed, drops the history.

        Args:
            frames: the images.
            use_history: false for a set whose poses are not known: past frames are not used, and
                this one is not kept.

        Raises:
            DataError: the set has no image of any camera of the model.
        """
        timings: dict[str, float] = {}
        with timed(timings, "preprocess"):
            batch = self.prepare(frames)
            by_name = frames.by_name
            views = [by_name.get(name) for name in self.config.cameras]
            poses = tuple(view.pose if view else None for view in views)
            dropped = self._check_continuity(frames.stamp_ns, poses)
            past = self._history.pick(frames.stamp_ns)
            if not use_history:
                past = [None] * len(past)
        found, current = self._compute(frames.stamp_ns, poses, batch, past, timings)
        with timed(timings, "decode"):
            (boxes,) = remaining_boxes(found.to("cpu"), self.config.decode)
        if use_history:
            self._history.push(current)
        valid = sum(frame is not None for frame in past)
        pose = mean_ego_pose(frames)
        return Detections(frames.stamp_ns, boxes, pose, valid, timings, dropped)

    def _compute(
        self,
        stamp_ns: int,
        poses: tuple[CameraPose | None, ...],
        batch: CameraBatch,
        past: list[PastFrame | None],
        timings: dict[str, float],
    ) -> tuple[Candidates, PastFrame]:
        """What the network says of the set, and what is to be kept of it."""
        if self._step:
            return self._run_step(self._step, stamp_ns, poses, batch, past, timings)
        with timed(timings, "image_network"):
            current = self._encode(stamp_ns, poses, batch.to(self.device))
        with timed(timings, "lift"):
            cells = self._lift(current, past)
        with timed(timings, "bev_network"), self._autocast():
            maps = self.network.detect(cells).maps
        with timed(timings, "decode"):
            return suppressed(maps, self.config.grid, self.config.decode), current

    def _run_step(
        self,
        step: FixedStep,
        stamp_ns: int,
        poses: tuple[CameraPose | None, ...],
        batch: CameraBatch,
        past: list[PastFrame | None],
        timings: dict[str, float],
    ) -> tuple[Candidates, PastFrame]:
        """As `_compute`; the time of the whole step counts as that of the image network."""
        geometry = (batch.intrinsics[:, 0], batch.image_from_sensor[:, 0])
        with timed(timings, "lift"):
            moved = [motion(poses, frame.poses if frame else poses) for frame in (None, *past)]
            rays = ray_matrices(
                torch.cat([geometry[0], *(f.intrinsics if f else geometry[0] for f in past)]),
                torch.cat(
                    [geometry[1], *(f.image_from_sensor if f else geometry[1] for f in past)]
                ),
                torch.cat([ego_from_camera for ego_from_camera, _ in moved]),
                torch.eye(4)[None],
            )
            camera = camera_vector(*geometry, batch.ego_from_camera[:, 0], batch.augmentation)
        with timed(timings, "image_network"):
            features, found = step(
                batch.images[:, 0],
                camera,
                rays,
                torch.cat([use for _, use in moved]),
                [frame.features if frame else None for frame in past],
            )
        return found, PastFrame(stamp_ns, features, poses, *geometry)

    def _check_continuity(self, stamp_ns: int, poses: tuple[CameraPose | None, ...]) -> str:
        """Forget the past where it does not go on; gives the reason when there was a past."""
        newest, reason = self.newest, ""
        if newest and stamp_ns <= newest.stamp_ns:
            reason = f"time went back by {(newest.stamp_ns - stamp_ns) / 1e9:.3f} s"
        for old, new in zip(self._calibration, poses, strict=False):
            if old and new and not old.calibration.equals(new.calibration):
                reason = f"the calibration of {new.calibration.name} changed"
        if reason:
            self.reset(reason)
        known = self._calibration or (None,) * len(poses)
        self._calibration = tuple(new or old for old, new in zip(known, poses, strict=True))
        return reason if newest else ""

    def _encode(
        self, stamp_ns: int, poses: tuple[CameraPose | None, ...], batch: CameraBatch
    ) -> PastFrame:
        camera = camera_vector(
            batch.intrinsics[:, 0],
            batch.image_from_sensor[:, 0],
            batch.ego_from_camera[:, 0],
            batch.augmentation,
        )
        with self._autocast():
            features = self.network.encode(batch.images[:, 0], camera)
        return PastFrame(
            stamp_ns, features, poses, batch.intrinsics[:, 0], batch.image_from_sensor[:, 0]
        )

    def _lift(self, current: PastFrame, past: list[PastFrame | None]) -> Tensor:
        """Cells (1, S*C, Y, X); the current frame takes the place of past ones that are missing."""
        newest = pool(current.features, self._current_table(current))
        cells = [
            pool(frame.features, self._table(current, frame)) if frame else newest for frame in past
        ]
        # two modules look at the cells: converted here, they are converted once
        dtype = getattr(torch, self.precision)
        return torch.cat([frame.to(dtype) for frame in (newest, *cells)], dim=1)

    def _current_table(self, now: PastFrame) -> PoolingTable:
        """That of the current frame; the same while the cameras stay in their mounts."""
        if self._mounting:
            poses, table = self._mounting
            if all(_same_mounting(old, new) for old, new in zip(poses, now.poses, strict=True)):
                return table
        table = self._table(now, now)
        self._mounting = now.poses, table
        return table

    def _table(self, now: PastFrame, then: PastFrame) -> PoolingTable:
        ego_from_camera, use = (x.to(self.device) for x in motion(now.poses, then.poses))
        return self._pooling_table(then, ego_from_camera, use)

    def _pooling_table(self, then: PastFrame, ego_from_camera: Tensor, use: Tensor) -> PoolingTable:
        augmentation = torch.eye(4, device=self.device)[None]
        return self.network.pooling_table(
            then.intrinsics, then.image_from_sensor, ego_from_camera, augmentation, use
        )

    def _compile(self) -> None:
        if self.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise ConfigError("compile needs a C++ compiler: install g++, or leave compile off")
        options: dict[str, Any] = {"freezing": True}  # weights are constants
        network = self.network
        network.encode = torch.compile(network.encode, options=options)  # type: ignore[method-assign]
        network.detect = torch.compile(network.detect, options=options)  # type: ignore[method-assign]

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def _same_mounting(a: CameraPose | None, b: CameraPose | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.calibration.equals(b.calibration)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage takes, in milliseconds; its parts add up."""
    start = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
