# SPDX-License-Identifier: Apache-2.0
"""The step in torch over fixed shapes, in a CUDA graph where there is a GPU; see `fixed_step`.

Shapes: S frames (the current one first), N cameras.
"""

from __future__ import annotations

import torch

from labeldistill_core.data.batch import motion
from labeldistill_core.network.depth_net import camera_vector
from labeldistill_core.network.lift import ray_matrices
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.engine import EngineInfo, StepInput, StepOutput, timed
from labeldistill_core.runtime.fixed_step import FixedStep


class FixedStepEngine:
    """Computes the geometry on the CPU and the rest in one `FixedStep`; see `engine.Engine`."""

    def __init__(self, network: Student, info: EngineInfo) -> None:
        """Take the memory of all steps.

        Args:
            network: what `fuse` made of a student, on the device of `info`.
            info: how the network computes.
        """
        self.config, self.info, self.network = network.config, info, network
        self.fixed_step = FixedStep(network, getattr(torch, info.precision), info.device)

    @property
    def graph(self) -> str:
        """See `engine.Engine`."""
        return self.fixed_step.graph_state

    def step(self, inputs: StepInput, timings_ms: dict[str, float]) -> StepOutput:
        """See `engine.Engine`; the time of the whole step counts as that of the image network."""
        batch, poses, past = inputs.batch, inputs.poses, inputs.past
        intrinsics, image_from_sensor = batch.intrinsics[:, 0], batch.image_from_sensor[:, 0]
        with timed(timings_ms, "lift"):
            # Poses are composed in float64 on the CPU; only what is relative goes to the device.
            moved = [motion(poses, frame.poses if frame else poses) for frame in (None, *past)]
            rays = ray_matrices(
                torch.cat([intrinsics, *(f.intrinsics if f else intrinsics for f in past)]),
                torch.cat(
                    [
                        image_from_sensor,
                        *(f.image_from_sensor if f else image_from_sensor for f in past),
                    ]
                ),
                torch.cat([ego_from_camera for ego_from_camera, _ in moved]),
                torch.eye(4)[None],
            )
            camera = camera_vector(
                intrinsics, image_from_sensor, batch.ego_from_camera[:, 0], batch.augmentation
            )
        with timed(timings_ms, "image_network"):
            features, found = self.fixed_step(
                batch.images[:, 0],
                camera,
                rays,
                torch.cat([use for _, use in moved]),
                [frame.features if frame else None for frame in past],
            )
        return StepOutput(found, features)
