# SPDX-License-Identifier: Apache-2.0
"""What the published code does where it differs from the paper, for each part of a preset.

Every difference is an option of a configuration; here they are set together. Networks with
published weights need those of `student`, `teacher` and `label_encoder`; the others reproduce how
these weights came about.
"""

from __future__ import annotations

from dataclasses import replace

from labeldistill_core.config import StudentConfig
from labeldistill_core.data.samples import SampleConfig
from labeldistill_core.distillation.config import DistillationConfig, LabelEncoderConfig
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.training.recipe import Recipe

FEATURE_WEIGHT = 0.3
"""Weight of both feature losses, which the published code divides by cells."""


def student(config: StudentConfig) -> StudentConfig:
    """The student as the published code runs it."""
    return replace(
        config,
        # Images reach the published network as blue, green, red, with mean and deviation of red,
        # green, blue; of images that are higher, the lower edge is kept.
        image=replace(config.image, channel_order="bgr", crop="bottom", decode="full"),
        # Integers cut towards zero: a rim of one cell outside the grid falls into its first row and
        # column.
        grid=replace(config.grid, index_rounding="truncate"),
        # The prior of -2.19 is configured there and never applied.
        head=replace(config.head, heatmap_bias=None),
    )


def sweeps(config: SweepsConfig) -> SweepsConfig:
    """Point clouds as the published code puts them together."""
    return replace(
        config,
        # The list of sweeps is cut at nine with the sample's own scan.
        future=min(config.future, 3),
        future_needs_past=True,
        repeat_when_alone=8,
        scale_height=False,
        frame="lidar",
    )


def teacher(config: TeacherConfig) -> TeacherConfig:
    """The LiDAR teacher as the published code feeds and builds it."""
    return replace(
        config,
        grid=replace(config.grid, index_rounding="truncate"),
        head=replace(config.head, heatmap_bias=None),
        sweeps=sweeps(config.sweeps),
    )


def label_encoder(config: LabelEncoderConfig) -> LabelEncoderConfig:
    """The label encoder as the published code builds it."""
    return replace(config, raster="published", box_input="raw", norm="map", background="encoded")


def distillation(config: DistillationConfig) -> DistillationConfig:
    """The losses as the published code has them; what is left out stays out."""
    return replace(
        config,
        lidar_weight=FEATURE_WEIGHT if config.lidar_weight else 0.0,
        label_weight=FEATURE_WEIGHT if config.label_weight else 0.0,
        # Divided by cells and summed over channels, for which the weights of 0.3 were found.
        scale="cell",
        partition="none" if config.partition == "none" else "contiguous",
        response="published",
        coarse_mask="bilinear",
        adaptors="published",
        teacher_norm="batch",
        objects="process",
    )


def samples(config: SampleConfig) -> SampleConfig:
    """Samples as the published code makes them."""
    return replace(
        config, missing_history="last_valid", depth_collisions="last", depth_labels="one_hot"
    )


def recipe(config: Recipe, velocity_weight: float) -> Recipe:
    """A recipe without warm-up and with weight decay that spares nothing.

    Args:
        config: ours.
        velocity_weight: 1 for the student; the published code halves the velocities in the box
            loss of the teacher and the label encoder.
    """
    return replace(config, decay_everything=True, warmup_share=0.0, velocity_weight=velocity_weight)
