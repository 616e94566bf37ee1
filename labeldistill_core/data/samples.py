# SPDX-License-Identifier: Apache-2.0
"""Samples for training: augmented images of the current and past frames, boxes, depth labels.

Shapes: N cameras, H W rows and columns of the network's image.
Source: BEVDepth's image and bird's-eye-view augmentation, which LabelDistill takes over.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.data.batch import (
    camera_batch,
    collate,
    evaluation_transform,
)
from labeldistill_core.data.bev_augmentation import BevAugmentation
from labeldistill_core.data.depth_labels import depth_map, points_in_image
from labeldistill_core.data.images import ImageTransform, decode_reduction
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.frames import Transform
from labeldistill_core.network.student import CameraBatch

_LOG = logging.getLogger(__name__)
_HISTORY_TOLERANCE_S = 0.1


PointSource = Callable[[NuScenesTables, str, Transform, BevAugmentation], Tensor]
"""Tables, token, `map_from_ego` and augmentation of a sample to its points (P, 5)."""


@dataclass(frozen=True)
class SampleConfig:
    """How a student's samples are made."""

    missing_history: Literal["current", "last_valid"] = "current"
    """Frame that stands in for one before the scene's begin: `current`, as on a vehicle, or
    `last_valid`, the oldest that there is, as the published code trains."""
    depth_collisions: Literal["nearest", "last"] = "nearest"
    """Which of several LiDAR points in a pixel counts; the published code takes the last."""
    depth_labels: Literal["one_hot", "linear"] = "one_hot"
    """What the depth loss compares with: the bin that a depth falls in, as BEVDepth describes it,
    or the two bins around it by nearness, which has no bias towards the left edge at which a bin
    stands."""


@dataclass(frozen=True, eq=False)
class StudentSample:
    """One sample, or several once collated."""

    tokens: tuple[str, ...]
    """Token of each sample, as in the tables."""
    batch: CameraBatch
    """Input of the network."""
    boxes: tuple[Boxes3D, ...]
    """Ground truth of each sample in its (augmented) ego frame, float32."""
    map_from_ego: tuple[Transform, ...]
    """Pose of each sample's ego frame, without augmentation."""
    depth: Tensor
    """(B, N, H, W) depth of LiDAR points in the current images, metres, zero where unknown."""
    points: tuple[Tensor, ...] = ()
    """LiDAR points (P, 5) of each sample in its (augmented) ego frame, where asked for."""

    @classmethod
    def collate(cls, samples: Sequence[StudentSample]) -> StudentSample:
        """Several samples in one batch."""
        return cls(
            tuple(token for sample in samples for token in sample.tokens),
            collate([sample.batch for sample in samples]),
            tuple(boxes for sample in samples for boxes in sample.boxes),
            tuple(pose for sample in samples for pose in sample.map_from_ego),
            torch.cat([sample.depth for sample in samples]),
            tuple(points for sample in samples for points in sample.points),
        )

    def to(self, device: torch.device | str) -> StudentSample:
        """On another device; boxes stay, since targets are built from them on the CPU."""
        points = tuple(points.to(device) for points in self.points)
        return replace(
            self, batch=self.batch.to(device), depth=self.depth.to(device), points=points
        )


@dataclass(frozen=True, eq=False)
class LidarSample:
    """One sample without images, or several once collated."""

    tokens: tuple[str, ...]
    """Token of each sample, as in the tables."""
    boxes: tuple[Boxes3D, ...]
    """Ground truth of each sample in its (augmented) ego frame, float32."""
    map_from_ego: tuple[Transform, ...]
    """Pose of each sample's ego frame, without augmentation."""
    points: tuple[Tensor, ...]
    """LiDAR points (P, 5) of each sample in its (augmented) ego frame, where asked for."""

    @classmethod
    def collate(cls, samples: Sequence[LidarSample]) -> LidarSample:
        """Several samples in one batch."""
        return cls(
            *(
                tuple(value for sample in samples for value in getattr(sample, field.name))
                for field in fields(cls)
            )
        )

    def to(self, device: torch.device | str) -> LidarSample:
        """On another device; boxes stay, since targets are built from them on the CPU."""
        return replace(self, points=tuple(points.to(device) for points in self.points))


class _KeyFrames:
    """Key frames of some scenes: tokens, poses, boxes."""

    def __init__(
        self,
        tables: NuScenesTables,
        scenes: Sequence[str],
        cameras: Sequence[str] | None,
        augmentation: AugmentationConfig | None,
        points: PointSource | None,
    ) -> None:
        self.tables, self._cameras, self._points = tables, cameras, points
        self._augmentation = augmentation or AugmentationConfig()
        self.tokens = [token for scene in scenes for token in tables.samples(scene)]
        """Of the samples, in the order of the indices."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.tokens)

    def classes(self, index: int) -> frozenset[str]:
        """Names of the classes that stand in a sample."""
        return self.tables.classes(self.tokens[index])

    def _count(self, tokens: set[str], what: str) -> None:
        if tokens:
            root, count = self.tables.dataroot, len(self.tokens)
            _LOG.warning("%s is partial: %d of %d samples %s", root, len(tokens), count, what)

    def _lacking(self, tokens: Sequence[str], what: str, blobs: str) -> DataError:
        return DataError(
            f"{len(tokens)} of {len(self.tokens)} samples lack {what} under "
            f"{self.tables.dataroot}, such as sample {tokens[0]}: unpack the {blobs} blobs there, "
            "choose scenes that are whole, or train on what is there with --partial"
        )

    def _pose(self, token: str) -> Transform:
        """The model's frame: the mean of the cameras' poses, see `batch.mean_ego_pose`.

        LiDAR samples need no camera: the mean is that of those on record, and without any it is the
        pose at the scan.
        """
        poses = self.tables.camera_poses(token)
        names = poses if self._cameras is None else self._cameras
        found = [poses[name] for name in names if name in poses]
        return Transform.mean(found) if found else self.tables.ground_truth(token).fixed_from_ego

    def _boxes(self, token: str, map_from_ego: Transform) -> Boxes3D:
        """Boxes that count, see `GroundTruth.touched`, in the model's frame."""
        truth = self.tables.ground_truth(token)
        # A box that no sensor hit cannot be learned from any of them, and the metrics leave it out
        # too.
        boxes = truth.boxes[torch.from_numpy(truth.touched)]
        # To float32 only behind this: far from a map's origin it is too coarse.
        boxes = boxes.transformed(map_from_ego.inverse)
        return replace(boxes, values=boxes.values.float(), scores=boxes.scores.float())


class LidarDataset(_KeyFrames, Dataset[LidarSample]):
    """Key frames without images, for the teachers."""

    def __init__(
        self,
        tables: NuScenesTables,
        scenes: Sequence[str],
        cameras: Sequence[str] | None = None,
        augmentation: AugmentationConfig | None = None,
        points: PointSource | None = None,
        partial: bool = False,
    ) -> None:
        """Look up samples.

        Args:
            tables: of the data root.
            scenes: names of the scenes to take.
            cameras: of the student, whose mean pose is the frame of boxes and points; each sample's
                own cameras when None.
            augmentation: ranges; the defaults when None.
            points: loads what the LiDAR detector sees; no points when None.
            partial: leave out samples without a scan, where points are wanted, rather than refuse
                them.

        Raises:
            DataError: a scene is not there, or a scan where the root may not be partial.
        """
        super().__init__(tables, scenes, cameras, augmentation, points)
        blind = {t for t in self.tokens if not tables.has_scan(t)} if points else set()
        if blind and not partial:
            raise self._lacking(sorted(blind), "LiDAR scans", "LiDAR")
        self._count(blind, "lack LiDAR scans and are left out")
        self.tokens = [token for token in self.tokens if token not in blind]

    def __getitem__(self, key: int | tuple[int, int]) -> LidarSample:
        """One sample; see `StudentDataset`."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        token = self.tokens[index]
        bev = BevAugmentation()
        if seed is not None:
            bev = self._augmentation.bev(np.random.default_rng(seed))
        try:
            pose = self._pose(token)
            boxes = bev.apply(self._boxes(token, pose))
            points = (self._points(self.tables, token, pose, bev),) if self._points else ()
        except DataError as error:
            raise DataError(f"sample {token}: {error}") from error
        return LidarSample((token,), (boxes,), (pose,), points)


class StudentDataset(_KeyFrames, Dataset[StudentSample]):
    """Key frames of some scenes."""

    def __init__(
        self,
        tables: NuScenesTables,
        scenes: Sequence[str],
        config: StudentConfig,
        augmentation: AugmentationConfig | None = None,
        points: PointSource | None = None,
        partial: bool = False,
        sample: SampleConfig = SampleConfig(),  # noqa: B008
    ) -> None:
        """Look up samples and their past frames.

        Args:
            tables: of the data root.
            scenes: names of the scenes to take.
            config: of the student.
            augmentation: ranges; the defaults when None.
            points: loads what the LiDAR detector sees; no points when None.
            partial: leave out samples without images, and do without depth labels where there is
                no LiDAR scan, rather than refuse them. Where `points` are wanted, samples without
                a scan are left out, too.
            sample: how samples are made.

        Raises:
            DataError: a scene is not there, or an image or a scan where the root may not be
                partial.
            ConfigError: the tables' boxes are labelled by other classes than the network's.
        """
        if tables.class_list.names != config.head.class_list.names:
            raise ConfigError(
                f"the tables tell of the classes {', '.join(tables.class_list.names)}, and the "
                f"network learns from {', '.join(config.head.class_list.names)}"
            )
        super().__init__(tables, scenes, config.cameras, augmentation, points)
        self._config, self._partial, self._sample = config, partial, sample
        self._found: Counter[float] = Counter()
        self.frame_tokens: list[tuple[str, ...]] = []
        """Of each sample: the current frame's token, and those of the past frames by age."""
        without = [t for t in self.tokens if not tables.has_images(t, config.cameras)]
        if without and not partial:
            raise self._lacking(without, "images", "camera")
        blind = [t for t in self.tokens if not tables.has_scan(t)]
        if blind and not partial:
            raise self._lacking(blind, "LiDAR scans", "LiDAR")
        left_out = {*without, *blind} if points else set(without)
        self._count(left_out, "lack images or scans and are left out")
        self._count(set(blind) - left_out, "have no LiDAR scan, and so no depth labels")
        for scene in scenes:
            # History is looked for among these alone, since what is left out has no images to load.
            tokens = [token for token in tables.samples(scene) if token not in left_out]
            stamps = np.array([tables.stamp_ns(token) for token in tokens])
            self.frame_tokens += [
                (token, *self._past(tokens, stamps, index)) for index, token in enumerate(tokens)
            ]
        self.tokens = [tokens[0] for tokens in self.frame_tokens]
        self._warn_without_past()

    def _warn_without_past(self) -> None:
        """Tell of ages that no sample has a frame of: the network would not learn to use them."""
        ages_s = self._config.history_s
        if lacking := [age for age in ages_s if self.tokens and not self._found[age]]:
            _LOG.warning(
                "no sample has a key frame %s s before it, so the network learns nothing of the "
                "past of that age: give ages that fit the times between key frames "
                "(student.history_s)",
                " or ".join(f"{age:g}" for age in lacking),
            )

    def _past(self, tokens: Sequence[str], stamps: NDArray[np.int64], index: int) -> list[str]:
        """Past samples by age; see `SampleConfig.missing_history`."""
        past: list[str] = []
        stand_in = tokens[index]
        for age_s in self._config.history_s:
            # By time, not by counting key frames: recordings have gaps.
            gap_s = np.abs(stamps[index] - stamps - age_s * 1e9) / 1e9
            nearest = int(gap_s.argmin())
            is_there = bool(gap_s[nearest] <= _HISTORY_TOLERANCE_S)
            self._found[age_s] += is_there
            past.append(tokens[nearest] if is_there else stand_in)
            if self._sample.missing_history == "last_valid":
                stand_in = past[-1]
        return past

    def __getitem__(self, key: int | tuple[int, int]) -> StudentSample:
        """One sample.

        Args:
            key: index, or index and seed of the augmentation; without a seed there is none.

        Raises:
            DataError: naming the sample, when a file is missing or damaged.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        tokens = self.frame_tokens[index]
        try:
            return self._load(tokens, seed)
        except DataError as error:
            raise DataError(f"sample {tokens[0]}: {error}") from error

    def _load(self, tokens: tuple[str, ...], seed: int | None) -> StudentSample:
        config, tables = self._config, self.tables
        # Frames that stand in for missing ones come twice; each image is decoded once.
        largest = 1.0 if seed is None else self._augmentation.resize[1]
        reduction = partial(decode_reduction, image=config.image, largest_resize=largest)
        loaded = {t: tables.frame_set(t, config.cameras, reduction) for t in dict.fromkeys(tokens)}
        frames = [loaded[token] for token in tokens]
        current = {view.calibration.name: view for view in frames[0].views}
        if seed is None:
            bev = BevAugmentation()
            transforms = [evaluation_transform(current[n], config) for n in config.cameras]
        else:
            # The seed travels with the index, so that the augmentation depends neither on workers
            # nor on their order.
            rng = np.random.default_rng(seed)
            bev = self._augmentation.bev(rng)
            transforms = [self._augmentation.image(current[n], config, rng) for n in config.cameras]
        batch = camera_batch(frames, config, transforms, bev.matrix)
        pose = self._pose(tokens[0])
        boxes = bev.apply(self._boxes(tokens[0], pose))
        depth = torch.from_numpy(self._depth(tokens[0], frames[0], transforms))[None]
        points = (self._points(tables, tokens[0], pose, bev),) if self._points else ()
        return StudentSample((tokens[0],), batch, (boxes,), (pose,), depth, points)

    def _depth(
        self, token: str, frames: FrameSet, transforms: Sequence[ImageTransform]
    ) -> NDArray[np.float32]:
        if self._partial and not self.tables.has_scan(token):
            size = self._config.image
            return np.zeros((len(transforms), size.height, size.width), np.float32)
        lidar = self.tables.lidar(token)
        points = lidar.scan()
        # By way of the map: between the scan and an image the vehicle has moved.
        fixed_from_lidar = lidar.fixed_from_ego @ lidar.ego_from_sensor
        maps = []
        for name, transform in zip(self._config.cameras, transforms, strict=True):
            view = frames.by_name[name]
            fixed_from_camera = view.fixed_from_ego @ view.calibration.ego_from_camera
            seen = points_in_image(
                points, fixed_from_camera.inverse @ fixed_from_lidar,
                view.calibration,
            )  # fmt: skip
            maps.append(depth_map(seen, transform, self._sample.depth_collisions))
        return np.stack(maps)
