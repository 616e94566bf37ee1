# SPDX-License-Identifier: Apache-2.0
"""The streaming detector: one pass of the image network a set, past frames pooled anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraPose, FrameSet
from labeldistill_core.data.batch import camera_batch, mean_ego_pose
from labeldistill_core.errors import NotFiniteError
from labeldistill_core.frames import Transform
from labeldistill_core.names import shown
from labeldistill_core.network.decode import Candidates, remaining_boxes
from labeldistill_core.network.student import CameraBatch
from labeldistill_core.runtime.device import Precision
from labeldistill_core.runtime.device_images import DeviceImages
from labeldistill_core.runtime.engine import Engine, StepInput, timed
from labeldistill_core.runtime.free_cores import FittedThreads
from labeldistill_core.runtime.history import History, PastFrame
from labeldistill_core.runtime.loading import Backend, load_engine

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of one set of images."""

    stamp_ns: int
    """Time of the set, nanoseconds since the epoch."""
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

    An engine computes the network; time, history and the choice of boxes are here, the same for
    all engines. Not safe for calls from several threads at once.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        device_resize: bool | None = None,
        history_tolerance_s: float = 0.1,
    ) -> None:
        """Begin without history.

        Args:
            engine: of a network, see `runtime.loading`.
            device_resize: resize images on the device, see `runtime.device_images`. None: on a
                GPU.
            history_tolerance_s: how far a past frame may be from its nominal age.
        """
        self.engine, self.config = engine, engine.config
        on_gpu = engine.info.device.type == "cuda"
        self._device_images = (
            DeviceImages(engine.config, engine.info.device)
            if (on_gpu if device_resize is None else device_resize)
            else None
        )
        # torch resizes without Python's lock
        threads = min(len(engine.config.cameras), os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resize")
        # Another number of threads makes torch compile a network anew, which takes half a minute.
        self._fitted_threads: Callable[[], AbstractContextManager[object]] = (
            nullcontext if engine.info.compiled else FittedThreads()
        )
        self._history: History[PastFrame] = History(engine.config.history_s, history_tolerance_s)
        self._calibration: tuple[CameraPose | None, ...] = ()
        self._told: set[str] = set()

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        compile: bool = False,
        backend: Backend = "auto",
        history_tolerance_s: float = 0.1,
    ) -> Detector:
        """From a student's file; `runtime.loading.load_engine` says more of the choices.

        Args:
            path: a checkpoint, `*.safetensors`, or a graph, `*.onnx`.
            device: "cpu", "cuda:0" and so on, or "auto" for CUDA where there is one.
            precision: "float32", "bfloat16", "float16" or, for the fastest that the device computes
                natively, "auto".
            compile: let `torch.compile` join operations.
            backend: "torch", "onnx", or "auto" for what the file's form says.
            history_tolerance_s: how far a past frame may be from its nominal age.

        Raises:
            CheckpointError: the file is missing, damaged or does not fit.
            ConfigError: the device is not there, or the backend is unknown or not for this file.
        """
        engine = load_engine(
            path, device=device, precision=precision, compile=compile, backend=backend
        )
        return cls(engine, history_tolerance_s=history_tolerance_s)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.engine.info.device

    @property
    def precision(self) -> Precision:
        """Type of the convolutions."""
        return self.engine.info.precision

    @property
    def checkpoint_sha256(self) -> str:
        """Identity of the weights; empty for weights that came from no file."""
        return self.engine.info.checkpoint_sha256

    @property
    def newest(self) -> PastFrame | None:
        """What is kept of the newest set."""
        return self._history.newest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the boxes' labels."""
        return self.config.class_names

    def reset(self, reason: str = "") -> None:
        """Forget past frames, and log why, where a reason is given."""
        if reason and len(self._history):
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

        A set that is not newer, or a camera whose calibration changed, drops the history. The step
        takes fewer of torch's threads while other processes use the cores, see
        `runtime.free_cores`, unless its network is compiled.

        Images of cameras that the model does not have are left out, which is told once.

        Args:
            frames: the images.
            use_history: false for a set whose poses are not known: past frames are not used, and
                this one is not kept.

        Raises:
            DataError: the set has no image of any camera of the model.
            NotFiniteError: the network computes NaN.
        """
        with self._fitted_threads():
            return self._detect(frames, use_history)

    def _detect(self, frames: FrameSet, use_history: bool) -> Detections:
        timings: dict[str, float] = {}
        by_name = frames.by_name
        if unknown := by_name.keys() - {*self.config.cameras, *self._told}:
            self._told |= unknown
            _LOG.warning(
                "images of %s are left out: the model's cameras are %s",
                ", ".join(sorted(map(shown, unknown))),
                ", ".join(self.config.cameras),
            )
        with timed(timings, "preprocess"):
            batch = self.prepare(frames)
            views = [by_name.get(name) for name in self.config.cameras]
            poses = tuple(view.pose if view else None for view in views)
            dropped = self._check_continuity(frames.stamp_ns, poses)
            # After the check, which may have emptied the history.
            past = self._history.pick(frames.stamp_ns)
            if not use_history:
                # Without poses nobody knows where past frames lie now; the network takes the
                # current one in their place, as at a scene's beginning.
                past = [None] * len(past)
        output = self.engine.step(StepInput(batch, poses, past), timings)
        with timed(timings, "decode"):
            # The one result that the host waits for: some hundred candidates.
            found = output.found.to("cpu")
            self._check_finite(found)
            (boxes,) = remaining_boxes(found, self.config.decode)
        if use_history:
            # Kept with the frame: where its rays fell depends on the calibration that it was taken
            # with.
            geometry = (batch.intrinsics[:, 0], batch.image_from_sensor[:, 0])
            self._history.push(PastFrame(frames.stamp_ns, output.features, poses, *geometry))
        valid = sum(frame is not None for frame in past)
        pose = mean_ego_pose(frames, self.config.cameras)
        return Detections(frames.stamp_ns, boxes, pose, valid, timings, dropped)

    def _check_finite(self, found: Candidates) -> None:
        # NaN loses every comparison, so that no box would be shown and nobody would know why.
        if not found.finite:
            # the past frames may be where it comes from
            self.reset("the network's result is not finite")
            raise NotFiniteError(
                f"the network computes NaN on {self.device} in {self.precision}: its weights are "
                "damaged, or too large for this precision; use float32 or another checkpoint"
            )

    def _check_continuity(self, stamp_ns: int, poses: tuple[CameraPose | None, ...]) -> str:
        """Forget the past where it does not go on; gives the reason when there was a past."""
        newest, reason = self.newest, ""
        # A bag that starts again, or a clock that was set: ages counted from here would be wrong.
        if newest and stamp_ns <= newest.stamp_ns:
            reason = f"time went back by {(newest.stamp_ns - stamp_ns) / 1e9:.3f} s"
        known = self._calibration or (None,) * len(poses)
        pairs = list(zip(known, poses, strict=True))
        same = [not old or not new or old.calibration.equals(new.calibration) for old, new in pairs]
        for (_, new), unchanged in zip(pairs, same, strict=True):
            if new and not unchanged:
                reason = f"the calibration of {new.calibration.name} changed"
        if reason:
            self.reset(reason)
        # What is equal keeps the older one, so that a slow drift is measured from where it began.
        self._calibration = tuple(
            old if old and unchanged else new
            for (old, new), unchanged in zip(pairs, same, strict=True)
        )
        return reason if newest else ""
