# SPDX-License-Identifier: Apache-2.0
"""Options of `labeldistill bag detect`, and the parameters of the node that they stand for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from labeldistill_core.errors import ConfigError
from labeldistill_ros.inputs.topics import recorded_cameras
from labeldistill_ros.parameters import (
    CameraParameters,
    ClassParameters,
    HistoryParameters,
    Parameters,
    SyncParameters,
    VehicleParameters,
    check,
    flatten,
)


@dataclass(frozen=True)
class DetectOptions:
    """What the node's parameters of the same names say; all other parameters are at default."""

    score_threshold: float = 0.1
    """Boxes of a lower score are left out; scoring needs the weak ones too."""
    max_boxes: int = 500
    """At most this many boxes a set are written, the best."""
    max_range: float = 0.0
    """Boxes whose centre is further from the vehicle are left out, metres; 0 keeps all."""
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    """Lowest scores of single classes, as pairs of a class name and a score."""
    output_frame: str = "base_link"
    """Frame of the boxes."""
    base_frame: str = "base_link"
    """Frame of the vehicle: x forward, y left, z up."""
    fixed_frame: str = "map"
    """Frame that does not move with the vehicle."""
    camera_prefix: str = ""
    """What the names of the cameras' topics begin with, for example /sensing."""
    transport: Literal["auto", "compressed", "raw"] = "auto"
    """Which image topics are read; auto reads the raw ones of a camera without compressed ones."""
    images_rectified: bool = False
    """The images are rectified, so P and R of camera_info hold rather than K and D."""
    ego_motion_source: Literal["tf", "odometry", "none"] = "tf"
    """Where the vehicle is: from /tf, from a topic of odometry, or unknown."""
    odometry_topic: str = "/odom"
    """Topic of the odometry, where that is the source."""
    missing_pose_policy: Literal["optional", "required"] = "optional"
    """What becomes of sets whose pose is not known: boxes without history, or none."""
    missing_camera_policy: Literal["skip", "mask"] = "skip"
    """What becomes of sets that lack images: they are left out (skip), or used without (mask)."""
    min_cameras: int = 4
    """Fewest images of a set under mask; at most all but one count."""
    max_age: float = 0.25
    """Seconds of silence after which a camera counts as dead."""
    reset_gap: float = 2.0
    """Seconds between two sets after which the past is forgotten."""
    max_speed: float = 100.0
    """Metres a second; a pose that moves faster has jumped, and the past is forgotten."""

    def vehicle(
        self, cameras: Sequence[str], class_names: Sequence[str], topics: Collection[str]
    ) -> VehicleParameters:
        """Parameters of a node that does what these options say.

        Args:
            cameras: of the model, in its order.
            class_names: of the model, by label.
            topics: of the bag.

        Raises:
            ConfigError: a threshold is given for a class that the model does not have, or a value
                is one that the node would not take.
        """
        if unknown := [name for name in self.class_thresholds if name not in class_names]:
            raise ConfigError(
                f"class_thresholds names {', '.join(map(repr, unknown))}: the model's classes are "
                f"{', '.join(class_names)}"
            )
        # From the node's own defaults, so that a parameter that has no option here means the same
        # in both.
        common = replace(
            Parameters(),
            score_threshold=self.score_threshold,
            max_boxes=self.max_boxes,
            max_range=self.max_range,
            output_frame=self.output_frame,
            base_frame=self.base_frame,
            fixed_frame=self.fixed_frame,
            camera_prefix=self.camera_prefix,
            images_rectified=self.images_rectified,
            ego_motion_source=self.ego_motion_source,
            odometry_topic=self.odometry_topic,
            missing_pose_policy=self.missing_pose_policy,
            sync=SyncParameters(
                missing_camera_policy=self.missing_camera_policy,
                min_cameras=self.min_cameras,
                max_age=self.max_age,
            ),
            history=HistoryParameters(reset_gap=self.reset_gap, max_speed=self.max_speed),
        )
        for name, value, spec in flatten(common):
            check(name, value, spec)
        if self.transport == "auto":
            own = recorded_cameras(topics, cameras, common)
        else:
            own = {camera: CameraParameters(transport=self.transport) for camera in cameras}
        # Every class has its parameters, as on the node; those that are not named take the common
        # threshold.
        thresholds = {name: ClassParameters() for name in class_names}
        thresholds |= {name: ClassParameters(low) for name, low in self.class_thresholds.items()}
        return VehicleParameters(common, own, thresholds)
