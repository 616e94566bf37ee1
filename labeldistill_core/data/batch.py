# SPDX-License-Identifier: Apache-2.0
"""Sets of images to the network's input: the same for training, offline evaluation and the node.

Shapes: S frames (the current one first), N cameras, H W rows and columns of the network's image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from labeldistill_core.cameras import CameraPose, CameraView, FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.crop import image_transform
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array, Transform
from labeldistill_core.network.student import CameraBatch


def evaluation_transform(view: CameraView, config: StudentConfig) -> ImageTransform:
    """The image transform of evaluation and inference for one camera."""
    return image_transform(view.calibration, config.image)


def image_tensor(view: CameraView, transform: ImageTransform) -> Tensor:
    """(3, H, W) uint8 in red, green, blue."""
    return transform.apply_planes(view.pixels)


def ego_now_from_camera(now: CameraPose, then: CameraPose) -> Array:
    """(4, 4) a camera's optical frame at a past time to the ego frame of its current image.

    Each camera is referred to the ego pose of its own current image, as in the published code:
    for the current image this is the mounting pose.
    """
    # Exactly the mounting pose, free of the rounding of an inverse and a product.
    if now is then:
        return now.calibration.ego_from_camera.matrix
    moved = now.fixed_from_ego.inverse @ then.fixed_from_ego
    return (moved @ then.calibration.ego_from_camera).matrix


def mean_ego_pose(frames: FrameSet, cameras: Collection[str] | None = None) -> Transform:
    """`fixed_from_ego` of the frame that boxes are given in: the mean of the cameras' poses.

    Args:
        frames: images and poses.
        cameras: whose poses count, those of the model; all when None.
    """
    views = [view for name, view in frames.by_name.items() if cameras is None or name in cameras]
    return Transform.mean([view.fixed_from_ego for view in views])


def motion(
    now: Sequence[CameraPose | None], then: Sequence[CameraPose | None]
) -> tuple[Tensor, Tensor]:
    """Where the cameras of a past set stand today.

    Args:
        now: current poses in the order of the model; None where a camera is missing.
        then: poses of the past set, in the same order.

    Returns:
        `ego_from_camera` (1, N, 4, 4), identity where a camera is missing in either set, and
        which cameras are in both, (1, N) bool.
    """
    pairs = list(zip(now, then, strict=True))
    matrices = [
        np.eye(4) if n is None or t is None else ego_now_from_camera(n, t) for n, t in pairs
    ]
    both = torch.tensor([[n is not None and t is not None for n, t in pairs]])
    return _float(matrices), both


def camera_batch(
    frames: Sequence[FrameSet],
    config: StudentConfig,
    transforms: Sequence[ImageTransform] | None = None,
    augmentation: Array | None = None,
    pool: Executor | None = None,
    images: Tensor | None = None,
) -> CameraBatch:
    """A batch of one sample, on the CPU.

    A camera that is missing in a set gets a black image and takes no part in pooling.

    Args:
        frames: the current set and the past ones in the order of `config.history_s`.
        config: names the cameras and the image size.
        transforms: one for each camera, the same in all frames; evaluation's when None.
        augmentation: (4, 4) of the bird's-eye view; none when None.
        pool: threads that transform the images; the caller's thread when None.
        images: (1, S, N, 3, H, W) where they were transformed already, on any device.

    Raises:
        DataError: the current set has no image of any camera of the model.
    """
    rows = [[f.by_name.get(name) for name in config.cameras] for f in frames]
    # A past set may lack every camera, which costs history alone; without a current image there is
    # nothing to detect in.
    if not any(rows[0]):
        raise DataError(f"the set has no image of {', '.join(config.cameras)}")
    # Every frame is referred to the current one, so that a past image's points fall where they are
    # today.
    poses = [[view.pose if view else None for view in row] for row in rows]
    moved = [motion(poses[0], row) for row in poses]
    jobs: list[tuple[CameraView, ImageTransform] | None] = []
    intrinsics, pixels = [], []
    for row in rows:
        for index, view in enumerate(row):
            if view is None:
                jobs.append(None)
                # Invertible stand-ins: the missing camera is masked out later, its matrices must
                # not raise before.
                intrinsics.append(np.eye(3))
                pixels.append(np.eye(4))
                continue
            transform = transforms[index] if transforms else evaluation_transform(view, config)
            jobs.append((view, transform))
            intrinsics.append(view.calibration.intrinsics_px)
            pixels.append(transform.matrix)
    shape = (1, len(rows), len(config.cameras))

    def image(job: tuple[CameraView, ImageTransform] | None) -> Tensor:
        black = (3, config.image.height, config.image.width)
        return image_tensor(*job) if job else torch.zeros(black, dtype=torch.uint8)

    if images is None:
        made = pool.map(image, jobs) if pool else map(image, jobs)
        images = torch.stack(list(made)).unflatten(0, shape)
    return CameraBatch(
        images=images,
        intrinsics=_float(intrinsics)[0].unflatten(0, shape),
        image_from_sensor=_float(pixels)[0].unflatten(0, shape),
        ego_from_camera=torch.stack([matrices for matrices, _ in moved], dim=1),
        augmentation=_float(np.eye(4) if augmentation is None else augmentation),
        use=torch.stack([both for _, both in moved], dim=1),
    )


def collate(batches: Sequence[CameraBatch]) -> CameraBatch:
    """Several samples in one batch."""
    # By name, so that a field that is added and not collated fails here.
    names = ("images", "intrinsics", "image_from_sensor", "ego_from_camera", "augmentation", "use")
    return CameraBatch(**{n: torch.cat([getattr(b, n) for b in batches]) for n in names})


def _float(values: object) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))[None]
