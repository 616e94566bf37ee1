# SPDX-License-Identifier: Apache-2.0
"""The three stages of training: LiDAR teacher, label encoder, student.

A run that was cut off goes on from its last checkpoint when the call is repeated.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

from lightning.pytorch import seed_everything

from labeldistill_core.checkpoints import Kind, file_sha256, refuse_other_file
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.boxes_check import refuse_without_boxes
from labeldistill_core.data.horizon_check import warn_of_lost_horizons
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import (
    LidarDataset,
    LidarSample,
    StudentDataset,
    StudentSample,
)
from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import load_label_encoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import refuse_unwritable, user_cache
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher, load_teacher
from labeldistill_core.lidar.teacher_cache import CachedTeacher
from labeldistill_core.training.export import Written, export, network_file
from labeldistill_core.training.fit import Machine, fit
from labeldistill_core.training.initial_weights import load_initial
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.options import (
    LabelEncoderOptions,
    StudentOptions,
    TeacherOptions,
    TrainingOptions,
)
from labeldistill_core.training.pretrained import load_pretrained
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.student import StudentStage, require_two_images
from labeldistill_core.training.teacher import TeacherStage

_LOG = logging.getLogger(__name__)


def train_teacher(dataroot: Path, out: Path, options: TeacherOptions) -> Written | None:
    """Train the LiDAR teacher, the first stage.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the teacher.
        options: of the training.

    Returns:
        The teacher's file; None in a process that another one writes for.
    """
    preset = options.resolved()
    recipe, config = preset.recipes.teacher, preset.teacher
    target = _target(out, "teacher", options.init)
    seed_everything(recipe.seed, workers=True, verbose=False)
    _warn_of_reach(config)
    stage = TeacherStage(config, recipe)
    if options.init:
        # Weights alone: the preset says what the network is.
        load_initial(stage.network, options.init, "teacher", partial=options.partial)
    data, scored = _lidar_data(stage, options, dataroot, recipe, Points(config.sweeps))
    identity = options.identity(
        "teacher",
        data,
        config.sweeps,
        config=asdict(config),
        init=_sha256(options.init),
    )
    if not fit(
        stage, data, LidarSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        return None
    # From the checkpoint and not from memory: the file is then what `labeldistill export` would
    # write.
    return export(out, target)


def train_label_encoder(dataroot: Path, out: Path, options: LabelEncoderOptions) -> Written | None:
    """Train the label encoder through the teacher's frozen neck and head, the second stage.

    Args:
        dataroot: nuScenes data root, real or synthetic; only its boxes are read.
        out: folder for checkpoints, logs and the label encoder.
        options: of the training.

    Returns:
        The label encoder's file; None in a process that another one writes for.
    """
    preset = options.resolved()
    recipe, config = preset.recipes.label_encoder, preset.label_encoder
    target = _target(out, "label encoder")
    seed_everything(recipe.seed, workers=True, verbose=False)
    norm = preset.distillation.teacher_norm
    stage = LabelEncoderStage(config, recipe, load_teacher(options.teacher), options.aim, norm)
    data, scored = _lidar_data(stage, options, dataroot, recipe)
    identity = options.identity(
        "label encoder",
        data,
        None,
        config=asdict(config),
        aim=options.aim,
        teacher=file_sha256(options.teacher),
        teacher_norm=norm,
    )
    if not fit(
        stage, data, LidarSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        return None
    return export(out, target)


def _lidar_data(
    stage: Stage,
    options: TrainingOptions,
    dataroot: Path,
    recipe: Recipe,
    points: Points | None = None,
) -> tuple[LidarDataset, LidarDataset | None]:
    """Samples to train on and samples to score, without images."""
    student = options.resolved().student
    tables = stage.tables = NuScenesTables(dataroot, options.version, student.head.class_list)
    cameras = student.cameras
    trained, scored = (
        LidarDataset(tables, names, cameras, recipe.augmentation, points, options.partial)
        for names in options.scene_names(tables)
    )
    refuse_without_boxes(tables, trained.tokens)
    for data in (trained, scored):
        if points and len(data):
            points.look_for_sweeps(tables, data.tokens, partial=options.partial)
    return trained, scored if len(scored) else None


def train_student(dataroot: Path, out: Path, options: StudentOptions) -> Written | None:
    """Train a student with the detection and depth losses, and with the teachers that are given.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for checkpoints, logs and the student.
        options: of the training.

    Returns:
        The student's file; None in a process that another one writes for.
    """
    preset = options.resolved()
    recipe, config = preset.recipes.student, preset.student
    distillation, sample = preset.distillation, preset.samples
    require_two_images(recipe.batch_size, len(config.cameras))
    target = _target(out, "student", options.init)
    seed_everything(recipe.seed, workers=True, verbose=False)
    distiller = points = None
    if options.teacher or options.label_encoder:
        if options.teacher is None:
            # A teacher that is not given is left out, so that one command serves all arms of the
            # comparison.
            distillation = replace(distillation, lidar_weight=0.0, response_weight=0.0)
        if options.label_encoder is None:
            distillation = replace(distillation, label_weight=0.0)
        lidar = None
        if options.teacher:
            lidar = _student_teacher(options.teacher, recipe, distillation, options.machine, out)
        labels = load_label_encoder(options.label_encoder) if options.label_encoder else None
        distiller = Distiller(distillation, config, lidar, labels)
        points = Points(lidar.config.sweeps) if lidar else None
    _warn_of_reach(config)
    stage = StudentStage(config, recipe, distiller, sample)
    if options.pretrained:
        load_pretrained(stage.network.image_encoder, options.pretrained)
    if options.init:
        load_initial(stage.network, options.init, "student", partial=options.partial)
    elif config.image_encoder.frozen_stem and not options.pretrained:
        _LOG.warning(
            "preset %s keeps the first convolution as pretrained, but it is random: give "
            "--pretrained FILE with torchvision's ImageNet weights",
            preset.name,
        )
    tables = stage.tables = NuScenesTables(dataroot, options.version, config.head.class_list)
    data, scored = (
        StudentDataset(tables, names, config, recipe.augmentation, points, options.partial, sample)
        if names
        else None
        for names in options.scene_names(tables)
    )
    assert data is not None
    refuse_without_boxes(tables, data.tokens)
    warn_of_lost_horizons(tables, data.tokens, config.cameras, config.image)
    if points:
        points.look_for_sweeps(tables, data.tokens, partial=options.partial)
    identity = options.identity(
        "student",
        data,
        points.config if points else None,
        config=asdict(config),
        distillation=asdict(distillation) if distiller else None,
        sample=asdict(sample),
        **{
            name: _sha256(getattr(options, name))
            for name in ("teacher", "label_encoder", "init", "pretrained")
        },
    )
    if not fit(
        stage, data, StudentSample.collate, out, identity, options.machine, scored,
        options.validate_every,
    ):  # fmt: skip
        return None
    return export(out, target)


def _student_teacher(
    file: Path, recipe: Recipe, distillation: DistillationConfig, machine: Machine, out: Path
) -> Teacher | CachedTeacher:
    """The teacher; one that remembers where each sample looks the same in every epoch."""
    # Statistics of the batch make a sample's output depend on its neighbours, so it cannot be kept.
    if not recipe.augmentation.keeps_world or distillation.teacher_norm != "running":
        return load_teacher(file)
    # In the user's cache, where the next run finds it; beside the run for a user without a home.
    folder = machine.teacher_cache or (user_cache() or out) / "teacher"
    return CachedTeacher.load(file, folder, int(machine.teacher_cache_gib * 2**30))


def _warn_of_reach(config: StudentConfig | TeacherConfig) -> None:
    """Tell of cells in which boxes are learnt that decoding then drops."""
    grid, limit_m = config.grid, config.decode.center_limit_m[0]
    far_m = max(map(abs, grid.x_m + grid.y_m))
    if far_m > limit_m:
        _LOG.warning(
            "the grid reaches %g m far, and decode.center_limit_m drops boxes beyond %g m: let it "
            "be at least as far, or train on fewer cells",
            far_m,
            limit_m,
        )


def _target(out: Path, kind: Kind, init: Path | None = None) -> Path:
    """File of the network, which can be written when the training has ended.

    Raises:
        CheckpointError: what is there is no network.
        ConfigError: it is what the training starts from.
        OSError: nothing can be written there.
    """
    target = out / network_file(kind)
    refuse_unwritable(target)
    refuse_other_file(target)
    if init and init.exists() and target.exists() and init.samefile(target):
        raise ConfigError(
            f"--init {init} would be written over by the {kind} that is trained from it: give "
            "another folder"
        )
    return target


def _sha256(file: Path | None) -> str | None:
    """Of a file that may not be given."""
    return file_sha256(file) if file else None
