# SPDX-License-Identifier: Apache-2.0
"""What is taken of bags, and how it becomes a data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.classes import NUSCENES
from labeldistill_core.config_files import classes_of
from labeldistill_core.data.tables.columns import LIDAR
from labeldistill_core.errors import ConfigError
from labeldistill_core.names import plain_name, shown
from labeldistill_ros.bags.truth import TRUTH_TOPIC
from labeldistill_ros.ros_names import frame_name

LEFT_OUT = "-"
"""Category of classes whose boxes are not taken."""

_FOLDERS = ("samples", "sweeps", "maps")
"""Of a data root, beside those of its versions."""
_LONGEST_S = 1e9


@dataclass(frozen=True)
class DatasetOptions:
    """What is taken of the bags, and how it is divided."""

    version: str = "v1.0-trainval"
    """Folder of the tables in the data root."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """The cameras to take, as pairs of a name and its image topic; without any, every image topic
    but the detector's own overlays is a camera, named after its topic."""
    lidars: tuple[str, ...] = ()
    """Topics of the LiDARs, whose points are merged in the frame of the first; without any, the
    only cloud of points that looks like one. The word none takes cameras alone."""
    labels: str = TRUTH_TOPIC
    """Topic of boxes (vision_msgs/Detection3DArray) that become annotations; their stamps are
    those of the key frames. Empty takes none; the default is taken where the bag has it."""
    config: Path | None = None
    """Configuration of one's own, or a checkpoint, whose classes the labels may name: their boxes
    get the first of its categories. nuScenes' classes are known without it."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """What single classes of the labels are called in the tables, as pairs of a class and a
    category, whatever the configuration says; the category - leaves a class out."""
    base_frame: str = "base_link"
    """Frame of the vehicle: x forward, y left, z up."""
    fixed_frame: str = ""
    """Frame that does not move with the vehicle; map or odom, whichever is there, when empty."""
    ego_motion_source: Literal["auto", "tf", "odometry"] = "auto"
    """Where the vehicle is: from /tf, from odometry, or from whichever there is."""
    odometry_topic: str = ""
    """Topic of the odometry; the only one when empty."""
    images_rectified: bool = False
    """The images are rectified, so P and R of camera_info hold rather than K and D."""
    jpeg_quality: int = 95
    """Of images that are raw or have to be rectified; other images stay as they are."""
    sweeps: bool = True
    """Also take the images and scans between the key frames."""
    scene_length_s: Annotated[float, tyro.conf.arg(name="scene-length")] = 20.0
    """Seconds of a scene at most; a longer drive becomes several scenes."""
    since_s: Annotated[float, tyro.conf.arg(name="since")] = 0.0
    """Seconds from the beginning of a drive before which nothing is taken."""
    until_s: Annotated[float, tyro.conf.arg(name="until")] = math.inf
    """Seconds from the beginning of a drive after which nothing is taken."""
    val: tuple[str, ...] = ()
    """Scenes, or drives with all their scenes, that are for validation; all others train."""
    val_share: float = 0.0
    """Share of each drive, at its end, whose scenes are for validation."""
    location: str = ""
    """Where the drives took place, for the table of logs."""
    vehicle: str = ""
    """Which vehicle drove, for the table of logs."""

    def __post_init__(self) -> None:
        """Refuse what makes no data set, and take frames as tf2 names them."""
        for name in ("base_frame", "fixed_frame"):
            object.__setattr__(self, name, frame_name(getattr(self, name)))
        plain_name(self.version, "--version")
        if self.version.startswith(".") or self.version in _FOLDERS:
            raise ConfigError(f"--version {self.version} is another folder of the data root")
        for name, topic in self.cameras.items():
            plain_name(name, "--cameras: the name")
            if name == LIDAR:
                raise ConfigError(f"--cameras: {name} is the name of the LiDAR's scans")
            if not topic.startswith("/"):
                raise ConfigError(f"--cameras: {topic!r} is no topic: give pairs of NAME and TOPIC")
        # Here, so that a configuration that cannot be used is told before bags are gone through.
        for name, category in self.own_categories.items():
            if not category:
                raise ConfigError(f"--categories: {name!r} has no category: - leaves its boxes out")
        if twice := [t for t, count in Counter(self.cameras.values()).items() if count > 1]:
            raise ConfigError(f"--cameras: {twice[0]} is given to two cameras")
        told = {"--location": self.location, "--vehicle": self.vehicle}
        told |= {
            f"--categories: the category of {shown(c)}": n for c, n in self.own_categories.items()
        }
        for what, text in told.items():
            if not text.isprintable():
                raise ConfigError(f"{what} has a character that cannot be printed: {shown(text)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"--jpeg-quality is {self.jpeg_quality}: use 1 to 100")
        if not self.scene_length_s >= 1:
            raise ConfigError(f"--scene-length is {self.scene_length_s:g}: use a second or more")
        if not self.since_s <= _LONGEST_S:
            raise ConfigError(f"--since {self.since_s:g} is longer than any drive")
        if not 0 <= self.since_s < self.until_s:
            raise ConfigError(f"--since {self.since_s:g} is not before --until {self.until_s:g}")
        if not 0 <= self.val_share <= 1:
            raise ConfigError(f"--val-share is {self.val_share:g}; it is a share between 0 and 1")

    @cached_property
    def own_categories(self) -> dict[str, str]:
        """Category of each class that the configuration or the user names.

        Raises:
            ConfigError: the configuration cannot be used.
            CheckpointError: the checkpoint cannot.
        """
        known = classes_of(self.config).members if self.config else ()
        named = {one.name: one.categories[0] for one in known if one.categories}
        return named | dict(self.categories)

    @property
    def known_categories(self) -> dict[str, str]:
        """Category of each class that the labels may name."""
        return {one.name: one.categories[0] for one in NUSCENES.members} | self.own_categories

    @property
    def without_lidar(self) -> bool:
        """Whether cameras alone are taken."""
        return self.lidars == ("none",)
