# SPDX-License-Identifier: Apache-2.0
"""The sets of networks and recipes that have a name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from labeldistill_core.config import (
    BevEncoderConfig,
    BevGrid,
    ConvNeXtConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    ImageConfig,
    ImageEncoderConfig,
    ResNetConfig,
    StudentConfig,
)
from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.data.samples import SampleConfig
from labeldistill_core.distillation.config import DistillationConfig, LabelEncoderConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.published import behaviour
from labeldistill_core.training.recipe import Recipe


@dataclass(frozen=True)
class Recipes:
    """How each stage is trained; the defaults are the paper's."""

    teacher: Recipe = Recipe(
        epochs=20, learning_rate=2e-4, weight_decay=1e-2, schedule="cosine", image_rate=1.0
    )
    """The LiDAR teacher, which is trained first."""
    label_encoder: Recipe = Recipe(
        epochs=12, learning_rate=1e-3, weight_decay=1e-7, milestones=(10 / 12, 11 / 12)
    )
    """The label encoder, which needs the teacher."""
    student: Recipe = Recipe()
    """The student, which needs both."""

    def with_settings(self, **settings: Any) -> Recipes:
        """The same settings in the recipes of all stages."""
        return Recipes(
            replace(self.teacher, **settings),
            replace(self.label_encoder, **settings),
            replace(self.student, **settings),
        )

    def as_published(self) -> Recipes:
        """With what the published code does in every recipe, see `published.behaviour`."""
        return Recipes(
            behaviour.recipe(self.teacher, velocity_weight=0.5),
            behaviour.recipe(self.label_encoder, velocity_weight=0.5),
            behaviour.recipe(self.student, velocity_weight=1.0),
        )


@dataclass(frozen=True)
class Preset:
    """Everything that the three stages of training need, and the detector that comes out."""

    name: str
    """What commands call it."""
    student: StudentConfig
    """The camera-only detector."""
    teacher: TeacherConfig
    """The LiDAR detector whose features and boxes the student imitates."""
    label_encoder: LabelEncoderConfig
    """The network from true boxes to the teacher's features."""
    recipes: Recipes = field(default_factory=Recipes)
    """How each of them is trained."""
    published_recipes: Recipes | None = None
    """What `as_published` puts in the place of `recipes` where schedules differ as well; None keeps
    the preset's own schedules."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """Which teacher shapes what in the student."""
    samples: SampleConfig = field(default_factory=SampleConfig)
    """How the student's samples are made."""

    def as_published(self) -> Preset:
        """The same preset with all that the published code does otherwise than its paper."""
        return replace(
            self,
            student=behaviour.student(self.student),
            teacher=behaviour.teacher(self.teacher),
            label_encoder=behaviour.label_encoder(self.label_encoder),
            recipes=(self.published_recipes or self.recipes).as_published(),
            distillation=behaviour.distillation(self.distillation),
            samples=behaviour.samples(self.samples),
        )


def r50_256x704_4key() -> Preset:
    """ResNet-50, 256x704, four past frames: the published main result.

    The published code trains this student six epochs more than the paper says, all of them at the
    lowest rate.
    """
    recipes = _published_schedules()
    longer = replace(recipes.student, epochs=30, milestones=(19 / 30, 23 / 30))
    return _of_published_size(
        "r50_256x704_4key",
        StudentConfig(
            image=ImageConfig(height=256, width=704, crop="horizon"),
            image_encoder=ImageEncoderConfig(ResNetConfig(depth=50), frozen_stem=True),
            bev_encoder=BevEncoderConfig(),
            history_s=(1.0, 2.0, 3.0, 4.0),
        ),
        replace(recipes, student=longer),
    )


def r50_256x704_2key() -> Preset:
    """ResNet-50, 256x704, two past frames."""
    # From its sibling, so that the two differ in what is written here and nowhere else.
    student = replace(r50_256x704_4key().student, history_s=(1.0, 2.0))
    return _of_published_size("r50_256x704_2key", student, _published_schedules())


def r101_512x1408_2key() -> Preset:
    """ResNet-101, 512x1408, two past frames."""
    student = replace(
        r50_256x704_2key().student,
        image=ImageConfig(height=512, width=1408, crop="horizon"),
        image_encoder=ImageEncoderConfig(ResNetConfig(depth=101), frozen_stem=True),
    )
    return _of_published_size("r101_512x1408_2key", student, _published_schedules())


def convnext_b() -> Preset:
    """ConvNeXt-B, 896x1600, two past frames.

    The published size 900x1600 is no multiple of the network's stride; four rows of sky go.
    """
    student = replace(
        r50_256x704_2key().student,
        image=ImageConfig(height=896, width=1600, crop="horizon"),
        image_encoder=ImageEncoderConfig(ConvNeXtConfig(variant="base")),
    )
    return _of_published_size("convnext_b", student, _published_schedules())


def demo() -> Preset:
    """Small enough to train and run on two CPU cores."""
    student = StudentConfig(
        image=ImageConfig(height=128, width=352, crop="horizon"),
        image_encoder=ImageEncoderConfig(
            ResNetConfig(depth=18, base_channels=24), neck_channels=(32, 32, 32, 32), stride=8
        ),
        depth_bins=DepthBins(start_m=2.0, stop_m=58.0, step_m=1.0),
        depth_net=DepthNetConfig(
            mid_channels=48, context_channels=48, dropout=0.0, deform_groups=0
        ),
        bev_encoder=BevEncoderConfig(base_channels=40, neck_channels=(16, 16, 32, 32)),
        head=HeadConfig(shared_channels=48, branch_channels=16, least_radius=1),
        history_s=(1.0,),
        grid=BevGrid(cell_m=1.28),
    )
    teacher = TeacherConfig(
        grid=student.grid,
        voxel_m=(0.32, 0.32, 0.4),
        max_voxels=(20_000, 20_000),
        encoder_channels=(16, 24, 32),
        height_padding=(1, 1),
        out_channels=32,
        second_channels=(64, 96),
        second_layers=(3, 3),
        neck_channels=(64, 64),
        head=student.head,
        # up to five scans, within a tenth of a second of the sample's
        sweeps=SweepsConfig(past=2, future=2),
    )
    encoder = LabelEncoderConfig.of(teacher, hidden_channels=64)
    return Preset(
        "demo",
        student,
        teacher,
        encoder,
        _small_world_recipes(),
        # More mAP than equal parts in every seed; see docs/training_history.md.
        distillation=DistillationConfig(ratio=(1, 3, 2)),
    )


def ablation() -> Preset:
    """The networks of `demo`, trained so shortly that many runs take two hours on two cores."""
    preset = demo()
    student = replace(preset.recipes.student, epochs=2, batch_size=4)
    return replace(preset, name="ablation", recipes=replace(preset.recipes, student=student))


def _of_published_size(name: str, student: StudentConfig, published_recipes: Recipes) -> Preset:
    """A student with the paper's teacher, label encoder and recipes."""
    teacher = TeacherConfig(grid=student.grid)
    encoder = LabelEncoderConfig.of(teacher)
    return Preset(name, student, teacher, encoder, published_recipes=published_recipes)


def _published_schedules() -> Recipes:
    """The paper's recipes, but for the teacher, whose rate falls in steps in the published code."""
    paper = Recipes()
    teacher = replace(
        paper.teacher, learning_rate=1e-4, schedule="steps", milestones=(16 / 20, 19 / 20)
    )
    return replace(paper, teacher=teacher)


def _small_world_recipes() -> Recipes:
    """Short runs on a small world learn faster from what they will see: one rig, the street ahead.

    A mirrored street would have traffic on the left, which then no longer tells which end of a car
    is its front. In distillation the teacher then runs once a sample, since all epochs are the
    same. Boxes alone are soon learnt by heart, so the label encoder still sees them turned and
    scaled.
    """
    as_they_are = AugmentationConfig(
        resize=(1.0, 1.0), image_rotation_deg=(0.0, 0.0), image_flip=False,
        bev_rotation_deg=(0.0, 0.0), bev_scale=(1.0, 1.0), bev_flip=False,
    )  # fmt: skip
    turned = replace(as_they_are, bev_rotation_deg=(-22.5, 22.5), bev_scale=(0.95, 1.05))
    return Recipes(
        # of few samples, many steps are worth more than large batches: 0.22 mAP where 4 gave 0.17
        teacher=Recipe(
            epochs=1, batch_size=2, learning_rate=2.1e-3, reference_batch=4, schedule="cosine",
            warmup_share=0.05, ema_decay=0.995, class_balanced=True, augmentation=as_they_are,
        ),
        label_encoder=Recipe(
            epochs=2, batch_size=8, learning_rate=2e-3, reference_batch=8, schedule="cosine",
            warmup_share=0.05, weight_decay=1e-7, ema_decay=0.99, augmentation=turned,
        ),
        student=Recipe(
            epochs=8, batch_size=2, learning_rate=1.5e-3, reference_batch=4, schedule="cosine",
            warmup_share=0.05, ema_decay=0.99, image_rate=1.0, augmentation=as_they_are,
        ),
    )  # fmt: skip


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        r50_256x704_4key(),
        r50_256x704_2key(),
        r101_512x1408_2key(),
        convnext_b(),
        demo(),
        ablation(),
    )
}
"""All presets by name."""


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ConfigError: there is no such preset; lists those there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]
