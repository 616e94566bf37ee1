# SPDX-License-Identifier: Apache-2.0
"""Configuration of the LiDAR teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labeldistill_core.config import BevGrid, DecodeConfig, HeadConfig
from labeldistill_core.config_checks import require_positive
from labeldistill_core.errors import ConfigError

_MAX_LAYERS = 4096
"""Of voxels; the published network has 41. More are a slip that would take all memory."""


@dataclass(frozen=True)
class SweepsConfig:
    """Which scans the teacher sees beside that of the sample."""

    past: int = 5
    """Scans before the sample, at most."""
    future: int = 4
    """Scans after it, at most; the teacher runs in training only. With the sample's own that makes
    ten, as the published names say; the published code takes one less."""
    future_needs_past: bool = False
    """Whether scans after it are left out where fewer than `past` are before it, as by the
    published code, whose list of scans ends at its first gap."""
    max_range_m: float = 58.0
    """Points farther from the sensor, in its x-y plane, are left out."""
    repeat_when_alone: int = 0
    """Copies of the sample's scan where there are no others; the published code adds eight."""
    scale_height: bool = True
    """Whether the scale of the bird's-eye augmentation holds for z too, as it does for boxes; the
    published code leaves z as it is."""
    frame: Literal["model", "lidar"] = "model"
    """Ego frame of the points: the one that boxes are given in, the mean of the cameras' poses; or
    the one at the time of the scan, as in the published code."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("past", "future", "repeat_when_alone"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"teacher.sweeps.{name} is {getattr(self, name)}: it must be 0 or more"
                )
        if not self.max_range_m > 0:
            raise ConfigError(
                f"teacher.sweeps.max_range_m is {self.max_range_m}: it must be positive"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """CenterPoint on voxels: sparse 3D encoder, SECOND, neck and head."""

    grid: BevGrid = field(default_factory=BevGrid)
    """Cells of the output; x, y and z also bound the voxels."""
    voxel_m: tuple[float, float, float] = (0.1, 0.1, 0.2)
    """Edges of a voxel along x, y, z."""
    max_points: int = 10
    """Of a voxel; later ones are left out."""
    max_voxels: tuple[int, int] = (90_000, 120_000)
    """Of a sample in training and in evaluation; later ones are left out."""
    encoder_channels: tuple[int, ...] = (16, 32, 64, 128)
    """Of the sparse stages; each halves the resolution of the one before."""
    height_padding: tuple[int, ...] = (1, 1, 0)
    """Along z, of the convolution between two stages."""
    out_channels: int = 128
    """Of the sparse encoder at each height that is left."""
    second_channels: tuple[int, int] = (128, 256)
    """Of the two stages of SECOND, which are what the student is compared with."""
    second_layers: tuple[int, int] = (5, 5)
    """Convolutions of each stage after its first."""
    neck_channels: tuple[int, int] = (256, 256)
    """Channels of each stage in the head's input."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Tasks and branches of the detection head."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Thresholds by which maps become boxes."""
    sweeps: SweepsConfig = field(default_factory=SweepsConfig)
    """Scans that make up the input."""

    def __post_init__(self) -> None:
        """Check ranges, and that the voxels end up in the cells."""
        for name in (
            "voxel_m", "max_points", "max_voxels", "encoder_channels", "out_channels",
            "second_channels", "neck_channels",
        ):  # fmt: skip
            value = getattr(self, name)
            require_positive(f"teacher.{name}", *(value if isinstance(value, tuple) else (value,)))
        if min(*self.height_padding, *self.second_layers) < 0:
            raise ConfigError(
                f"teacher.height_padding {self.height_padding} and second_layers "
                f"{self.second_layers} must be 0 or more"
            )
        stages = len(self.encoder_channels)
        if len(self.height_padding) != stages - 1:
            raise ConfigError(
                f"teacher.height_padding {self.height_padding} must have one number between two of "
                f"the {stages} stages"
            )
        # Along z any number of layers may be left: they become channels.
        for edge in self.voxel_m[:2]:
            if abs(edge * 2 ** (stages - 1) - self.grid.cell_m) > 1e-6:
                raise ConfigError(
                    f"teacher.voxel_m {self.voxel_m} does not grow to a cell of "
                    f"{self.grid.cell_m} m in {stages - 1} halvings"
                )
        low, high = self.grid.z_m
        if (high - low) / self.voxel_m[2] > _MAX_LAYERS:
            raise ConfigError(
                f"teacher.voxel_m {self.voxel_m} parts grid.z_m {self.grid.z_m} into more than "
                f"{_MAX_LAYERS} layers: use higher voxels"
            )
        if self.heights < 1:
            raise ConfigError(
                f"teacher.voxel_m {self.voxel_m} and height_padding {self.height_padding} leave no "
                f"layer of grid.z_m {self.grid.z_m}"
            )
        if self.grid.rows % 2 or self.grid.columns % 2:
            raise ConfigError("teacher.grid needs an even number of rows and columns")

    @property
    def sparse_shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x; one more along z, so that all heights survive the halvings."""
        factor = 2 ** (len(self.encoder_channels) - 1)
        low, high = self.grid.z_m
        height = round((high - low) / self.voxel_m[2]) + 1
        return height, self.grid.rows * factor, self.grid.columns * factor

    @property
    def heights(self) -> int:
        """Layers along z that the encoder leaves."""
        height = self.sparse_shape[0]
        for padding in self.height_padding:
            # Kernel 3 and stride 2, as in all of the encoder's halvings.
            height = (height + 2 * padding - 3) // 2 + 1
        return (height - 3) // 2 + 1
