# SPDX-License-Identifier: Apache-2.0
"""Scores of result files and of networks with the official metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labeldistill_core.checkpoints import kind_of
from labeldistill_core.classes import NUSCENES, ClassList
from labeldistill_core.config import HeadConfig
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import named_scenes, split_scenes
from labeldistill_core.distillation.label_encoder import load_label_encoder
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.predictions import lidar_results, student_results
from labeldistill_core.evaluation.result_columns import ResultColumns
from labeldistill_core.evaluation.result_file import read_results
from labeldistill_core.lidar.teacher import load_teacher
from labeldistill_core.options import ClassesOptions, InferenceOptions, TablesOptions
from labeldistill_core.runtime.detector import Detector


@dataclass(frozen=True)
class ResultFileOptions(ClassesOptions):
    """What of a result file is scored."""

    scenes: tuple[str, ...] = ()
    """Scenes to score, names or a file with a name a line; when none is given, all samples of the
    result file."""


@dataclass(frozen=True)
class EvaluationOptions(InferenceOptions, TablesOptions):
    """What a network is run over, and where."""

    split: str = "val"
    """Split to run over: train, val, all, or a name in the data root's splits.json."""
    scenes: tuple[str, ...] = ()
    """Scenes to run over in the place of a split: names, or a file with a name a line."""
    teacher: Path | None = None
    """Checkpoint of the teacher whose head reads a label encoder's features."""


def evaluate_results(results: Path, dataroot: Path, options: ResultFileOptions) -> Metrics:
    """Score a nuScenes result file with the official metrics.

    Args:
        results: `.json` or `.json.gz` file.
        dataroot: nuScenes data root; only its tables are read.
        options: what of the file is scored.

    Raises:
        DataError: the file or the tables cannot be used.
    """
    tables = options.tables(dataroot)
    found = read_results(results, tables.class_list.names)
    # Without scenes the file says what is scored: a result file of a part of a split is no failure
    # on the rest.
    tokens = list(found)
    if options.scenes:
        scenes = named_scenes(tables, options.scenes)
        tokens = [token for name in scenes for token in tables.samples(name)]
        if not tokens:
            raise DataError(f"{', '.join(scenes)} have no samples: name other scenes")
    return evaluate([tables.ground_truth(token) for token in tokens], found)


def run_checkpoint(checkpoint: Path, dataroot: Path, options: EvaluationOptions) -> ResultColumns:
    """Run a network over key frames.

    A student sees each scene in the order of time, as a vehicle does. A teacher gets the LiDAR's
    points. A label encoder gets the true boxes, and its result is what the teacher's head reads
    from its features.

    Args:
        checkpoint: file of a student, a teacher or a label encoder.
        dataroot: nuScenes data root, real or synthetic.
        options: what it is run over, and where.

    Returns:
        Boxes of every key frame, by its token.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        ConfigError: a label encoder comes without its teacher, a teacher or a label encoder is to
            compute in another precision than float32, or the device is not there.
    """
    kind = kind_of(checkpoint)
    # Their networks have no other, and figures must not be taken for those of one.
    if kind in ("teacher", "label encoder") and options.precision not in ("auto", "float32"):
        raise ConfigError(
            f"{checkpoint} is a {kind}, which computes in float32: leave --precision out"
        )

    def opened(head: HeadConfig) -> tuple[NuScenesTables, list[str]]:
        """Tables with the classes of a network, and the scenes to run over."""
        tables = NuScenesTables(dataroot, options.version, head.class_list)
        if options.scenes:
            return tables, named_scenes(tables, options.scenes)
        return tables, split_scenes(tables, options.split)

    if kind == "teacher":
        teacher = load_teacher(checkpoint)
        tables, scenes = opened(teacher.config.head)
        return lidar_results(teacher, None, tables, scenes, options.device)
    if kind == "label encoder":
        if options.teacher is None:
            raise ConfigError(f"{checkpoint} is a label encoder: give its teacher (--teacher)")
        encoder = load_label_encoder(checkpoint)
        teacher = load_teacher(options.teacher)
        tables, scenes = opened(teacher.config.head)
        return lidar_results(teacher, encoder, tables, scenes, options.device)
    detector = Detector.load(checkpoint, device=options.device, precision=options.precision)
    tables, scenes = opened(detector.config.head)
    # Scene by scene in the order of time, since the detector has a memory.
    return student_results(detector, tables, {name: tables.samples(name) for name in scenes})


def score(
    found: ResultColumns, dataroot: Path, options: TablesOptions, classes: ClassList = NUSCENES
) -> Metrics:
    """The official metrics of what a network found, on the key frames that it was run over.

    Args:
        found: see `run_checkpoint`.
        dataroot: nuScenes data root; only its tables are read.
        options: which tables.
        classes: those of the network, see `config_files.classes_of_checkpoint`.
    """
    tables = NuScenesTables(dataroot, options.version, classes)
    return evaluate([tables.ground_truth(token) for token in found], found)
