# SPDX-License-Identifier: Apache-2.0
"""Typed configuration of the student network: one tree, checked when it is built.

Where the published code differs from what its paper describes, a field has two values, and the
docstring says which one the published weights need.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.classes import NUSCENES, TASKS, ClassList, ObjectClass
from labeldistill_core.config_checks import require, require_positive
from labeldistill_core.config_json import from_json, from_mapping, to_json

_MAX_IMAGE_PX = 8192
_MAX_CELLS = 4096
_MAX_CAMERAS = 64
_MAX_HISTORY = 64
_MAX_RAY_POINTS = 1 << 26
"""These bound the memory of a step, of which the shapes of weights say nothing; the largest
published network has 3 million ray points."""
_MAX_CLASSES = 1000


@dataclass(frozen=True)
class ImageConfig:
    """Images as the network takes them."""

    height: int
    """Rows of the network's image, after resizing and cropping; a multiple of 32."""
    width: int
    """Columns of the network's image, after resizing; a multiple of 32."""
    # ImageNet's statistics times 255, with which the pretrained backbones were trained.
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of the red, green and blue grey levels (0 to 255), which is subtracted."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation of the red, green and blue grey levels, by which is divided."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """`bgr` feeds blue first with the statistics still in red-green-blue order, as the published
    training did."""
    crop: Literal["bottom", "horizon"] = "bottom"
    """Which rows are kept of images that are higher than the network's: `bottom` keeps the lower
    edge, as the published code does; `horizon` those about the horizon, which is the same for
    images of 16:9 and all that is right for 3:2, 4:3 or 5:4."""
    decode: Literal["full", "scaled"] = "full"
    """How a JPEG is decoded: `full`, as the published code does; or `scaled`, at the largest half,
    quarter or eighth that is not smaller than the network's image before it is cropped, which takes
    less time and gives slightly other pixels."""

    def __post_init__(self) -> None:
        """Check the size."""
        for name in ("height", "width"):
            value = getattr(self, name)
            # The backbone's deepest map has a stride of 32; of another size, the neck could not put
            # its maps on one another.
            require(
                0 < value <= _MAX_IMAGE_PX and value % 32 == 0,
                f"image.{name} is {value}: use a positive multiple of 32 up to {_MAX_IMAGE_PX}",
            )
        require(min(self.std) > 0, f"image.std is {self.std}: it divides, so use positive numbers")


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet with free width."""

    depth: Literal[18, 34, 50, 101]
    """Number of layers of the standard topology."""
    base_channels: int = 64
    """Width of the stem; 64 is the standard network, for which pretrained weights exist."""

    def __post_init__(self) -> None:
        """Check the width."""
        require_positive("image_encoder.backbone.base_channels", self.base_channels)


@dataclass(frozen=True)
class ConvNeXtConfig:
    """A ConvNeXt of torchvision."""

    variant: Literal["tiny", "small", "base"]
    """Size of the network, by the name that torchvision gives it."""


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Images to features at one stride."""

    backbone: ResNetConfig | ConvNeXtConfig
    """Network that makes maps at strides 4, 8, 16 and 32 of an image."""
    neck_channels: tuple[int, int, int, int] = (128, 128, 128, 128)
    """Channels that each of the four maps contributes to the result."""
    stride: Literal[8, 16] = 16
    """Pixels of the network's image for each feature cell, along rows and columns."""
    frozen_stem: bool = False
    """Whether the backbone's first convolution and its norm stay as pretrained."""

    def __post_init__(self) -> None:
        """Check the widths, and that there is a stem to keep."""
        require_positive("image_encoder.neck_channels", *self.neck_channels)
        require(
            not self.frozen_stem or isinstance(self.backbone, ResNetConfig),
            "image_encoder.frozen_stem keeps the first convolution of a ResNet: set it to false",
        )


@dataclass(frozen=True)
class DepthBins:
    """Discrete depths along the optical axis."""

    start_m: float = 2.0
    """First depth in metres along the optical axis, the left edge of the first bin."""
    stop_m: float = 58.0
    """End of the last bin, in metres along the optical axis."""
    step_m: float = 0.5
    """Width of a depth bin, in metres."""

    def __post_init__(self) -> None:
        """Check that there is at least one bin."""
        require(
            0 < self.start_m < self.stop_m and self.step_m > 0 and self.count > 0,
            "depth_bins needs 0 < start_m < stop_m, and a step_m > 0 that fits between them",
        )

    @property
    def count(self) -> int:
        """Number of bins."""
        # Rounded and not cut: steps such as 0.1 have no exact binary form, and a bin would be lost.
        return round((self.stop_m - self.start_m) / self.step_m)


@dataclass(frozen=True)
class DepthNetConfig:
    """Features and camera to depth distribution and context."""

    mid_channels: int = 512
    """Channels inside the depth net; a multiple of `deform_groups`."""
    context_channels: int = 150
    """Channels that are lifted to the bird's-eye view; in three groups when features are
    partitioned."""
    dropout: float = 0.5
    """Share of values that dropout behind the pyramid pooling sets to zero in training."""
    deform_groups: int = 4
    """Groups of the deformable convolution; 0 leaves it out, which saves a CPU much time."""

    def __post_init__(self) -> None:
        """Check ranges and divisibility."""
        require_positive("depth_net.mid_channels", self.mid_channels)
        require_positive("depth_net.context_channels", self.context_channels)
        require(0 <= self.dropout <= 1, f"depth_net.dropout is {self.dropout}: use 0 to 1")
        require(
            self.deform_groups >= 0,
            f"depth_net.deform_groups is {self.deform_groups}: use a positive one, or 0 for none",
        )
        require(
            self.deform_groups == 0 or self.mid_channels % self.deform_groups == 0,
            f"depth_net.mid_channels {self.mid_channels} is no multiple of deform_groups "
            f"{self.deform_groups}",
        )


@dataclass(frozen=True)
class BevGrid:
    """Cells of the bird's-eye view, in the ego frame."""

    x_m: tuple[float, float] = (-51.2, 51.2)
    """From where to where the cells reach forward (+x of the ego frame), in metres."""
    y_m: tuple[float, float] = (-51.2, 51.2)
    """From where to where the cells reach to the left (+y of the ego frame), in metres."""
    z_m: tuple[float, float] = (-5.0, 3.0)
    """Heights that fall in a cell (z of the ego frame), in metres."""
    cell_m: float = 0.8
    """Length of the edge of a square cell, in metres."""
    index_rounding: Literal["floor", "truncate"] = "floor"
    """`truncate` rounds towards zero, as the published code does: points up to one cell outside,
    and down to 8 m under the range of z, fall into the border cells. Published weights need it."""

    def __post_init__(self) -> None:
        """Check that cells fill the extent."""
        require(self.cell_m > 0, f"grid.cell_m is {self.cell_m}: use a positive number")
        for name in ("x_m", "y_m"):
            low, high = getattr(self, name)
            cells = (high - low) / self.cell_m
            require(
                # Off by rounding: 102.4 / 0.8 is 128 but for its last digits.
                1 <= cells < float("inf") and abs(cells - round(cells)) < 1e-6,
                f"grid.{name} {(low, high)} is not a whole number of cells of {self.cell_m} m",
            )
            require(
                cells <= _MAX_CELLS,
                f"grid.{name} has {cells:.0f} cells of {self.cell_m} m: use at most {_MAX_CELLS}",
            )
        require(self.z_m[0] < self.z_m[1], "grid.z_m must ascend")

    def same_cells(self, other: BevGrid) -> bool:
        """Whether both divide the same plane in the same way, whatever falls into their cells."""
        return (self.x_m, self.y_m, self.cell_m) == (other.x_m, other.y_m, other.cell_m)

    @property
    def columns(self) -> int:
        """Number of cells along x."""
        return round((self.x_m[1] - self.x_m[0]) / self.cell_m)

    @property
    def rows(self) -> int:
        """Number of cells along y."""
        return round((self.y_m[1] - self.y_m[0]) / self.cell_m)


@dataclass(frozen=True)
class BevEncoderConfig:
    """Stacked frames of cells to one feature map."""

    trunk_depth: Literal[18, 34] = 18
    """Layers of the ResNet whose first three stages are the trunk."""
    base_channels: int = 300
    """Channels of the trunk's stem and first stage; each later stage has twice as many."""
    neck_channels: tuple[int, int, int, int] = (64, 64, 64, 64)
    """Channels that the input and each of the three stages contribute to the result."""

    def __post_init__(self) -> None:
        """Check the widths."""
        require_positive("bev_encoder.base_channels", self.base_channels)
        require_positive("bev_encoder.neck_channels", *self.neck_channels)


@dataclass(frozen=True)
class HeadConfig:
    """CenterPoint head."""

    tasks: tuple[tuple[str, ...], ...] = TASKS
    """Names of the classes of each task; flattened they are the model's class list."""
    shared_channels: int = 64
    """Channels of the convolution that all tasks share."""
    branch_channels: int = 64
    """Channels inside each branch of a task."""
    # The sigmoid of -2.19 is 0.1: many empty cells would else drown the few centres at the start
    # (RetinaNet, Lin et al. 2017, section 3.3).
    heatmap_bias: float | None = -2.19
    """Initial bias of the heat maps; None leaves the default, as the published code does."""
    least_radius: int = 2
    """Cells that the Gaussian around a centre reaches at least, in the heat maps of training."""
    classes: tuple[ObjectClass, ...] = NUSCENES.members
    """Classes of the ground truth, in the order of its labels: what trains the head, and how its
    boxes are scored. Checkpoints that lack it were trained with nuScenes' ten."""

    def __post_init__(self) -> None:
        """Check widths, tasks and classes."""
        require_positive("head.shared_channels", self.shared_channels)
        require_positive("head.branch_channels", self.branch_channels)
        require(self.least_radius >= 0, f"head.least_radius is {self.least_radius}: use 0 or more")
        require(
            bool(self.tasks) and all(self.tasks), "head.tasks needs a task, and each task a class"
        )
        classes = sum(map(len, self.tasks))
        require(
            classes <= _MAX_CLASSES,
            f"head.tasks names {classes} classes: use at most {_MAX_CLASSES}",
        )
        self.class_list  # noqa: B018 - refuses what is wrong with it

    @cached_property
    def class_list(self) -> ClassList:
        """Classes of the ground truth."""
        return ClassList(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the head in the order of its labels."""
        return tuple(name for task in self.tasks for name in task)


@dataclass(frozen=True)
class DecodeConfig:
    """Head maps to boxes."""

    score_threshold: float = 0.1
    """Lowest score of a box, 0 to 1; boxes of a lower one are dropped."""
    max_candidates: int = 500
    """How many of a task's best cells become boxes before suppression."""
    # Six tasks give 498 at most; the evaluation takes 500 for a sample.
    max_per_task: int = 83
    """How many boxes of a task remain at most."""
    # Squared, though published configurations call it a radius: CenterPoint compares it with the
    # square of the distance.
    nms_radius_m2: tuple[float, ...] = (4.0, 12.0, 10.0, 1.0, 0.85, 0.175)
    """For each task, the squared distance of centres in square metres within which a better box
    drops a weaker one."""
    # Ten metres beyond the published grid: `post_center_range` of CenterPoint.
    center_limit_m: tuple[float, float] = (61.2, 10.0)
    """Largest |x| or |y|, and largest |z|, of a centre in the ego frame, in metres."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive("decode.max_candidates", self.max_candidates)
        require_positive("decode.max_per_task", self.max_per_task)
        require_positive("decode.nms_radius_m2", *self.nms_radius_m2)
        require_positive("decode.center_limit_m", *self.center_limit_m)
        score = self.score_threshold
        require(0 <= score <= 1, f"decode.score_threshold is {score}: use a number from 0 to 1")


@dataclass(frozen=True)
class StudentConfig:
    """The camera-only detector."""

    image: ImageConfig
    """Size, colours and normalization of the network's images."""
    image_encoder: ImageEncoderConfig
    """Backbone and neck that turn images into features."""
    bev_encoder: BevEncoderConfig
    """Encoder of the stacked bird's-eye-view cells."""
    history_s: tuple[float, ...] = (1.0, 2.0)
    """Ages in seconds of the past frames that are stacked behind the current one, ascending."""
    depth_bins: DepthBins = field(default_factory=DepthBins)
    """Discrete depths along the ray of each feature cell."""
    depth_net: DepthNetConfig = field(default_factory=DepthNetConfig)
    """Network that turns features into depth and context."""
    grid: BevGrid = field(default_factory=BevGrid)
    """Cells of the bird's-eye view that features are lifted to."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Tasks and branches of the detection head."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Thresholds by which maps become boxes."""
    cameras: tuple[str, ...] = CAMERAS
    """Names of the cameras, in the order of the network's input."""

    def __post_init__(self) -> None:
        """Check what concerns more than one part."""
        require(
            list(self.history_s) == sorted(set(self.history_s))
            and min(self.history_s, default=1) > 0,
            f"history_s {reprlib.repr(self.history_s)} must be positive and ascending",
        )
        require(
            len(self.decode.nms_radius_m2) == len(self.head.tasks),
            f"decode.nms_radius_m2 has {len(self.decode.nms_radius_m2)} radii for "
            f"{len(self.head.tasks)} tasks in head.tasks",
        )
        names = self.class_names
        require(len(set(names)) == len(names), "head.tasks names a class twice")
        require(
            0 < len(self.cameras) <= _MAX_CAMERAS and len(set(self.cameras)) == len(self.cameras),
            f"cameras needs 1 to {_MAX_CAMERAS} different names",
        )
        require(
            len(self.history_s) <= _MAX_HISTORY,
            f"history_s has {len(self.history_s)} ages: use at most {_MAX_HISTORY}",
        )
        # The encoder halves its maps three times, and puts them on one another.
        require(
            self.grid.rows % 8 == self.grid.columns % 8 == 0,
            f"grid has {self.grid.rows} x {self.grid.columns} cells: use multiples of 8",
        )
        rows, columns = self.feature_size
        points = len(self.cameras) * self.depth_bins.count * rows * columns
        require(
            points <= _MAX_RAY_POINTS,
            f"{len(self.cameras)} cameras of {rows} x {columns} features with "
            f"{self.depth_bins.count} depth bins make {points} points on rays, and "
            f"{_MAX_RAY_POINTS} are the most: use larger depth_bins.step_m or smaller images",
        )

    @property
    def frames(self) -> int:
        """Number of stacked frames, the current one included."""
        return 1 + len(self.history_s)

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes in the order of their labels."""
        return self.head.class_names

    @property
    def feature_size(self) -> tuple[int, int]:
        """Rows and columns of the image features."""
        stride = self.image_encoder.stride
        return self.image.height // stride, self.image.width // stride

    def to_json(self) -> str:
        """As JSON text, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> StudentConfig:
        """Read what `to_json` wrote; see the function of this name."""
        return from_json(cls, text)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> StudentConfig:
        """From nested dictionaries; see the function of this name."""
        return from_mapping(cls, mapping)
