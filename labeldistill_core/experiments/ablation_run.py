# SPDX-License-Identifier: Apache-2.0
"""One student of an ablation: what its scores belong to, its training, and its scoring."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labeldistill_core.checkpoints import file_sha256
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.errors import CheckpointError
from labeldistill_core.evaluation.breakdown import break_down
from labeldistill_core.evaluation.counted_boxes import evaluation_boxes
from labeldistill_core.evaluation.metrics import evaluate_boxes
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.experiments.ablation_report import Scores, read_figures
from labeldistill_core.experiments.arms import Arm
from labeldistill_core.files import write_whole
from labeldistill_core.published import behaviour
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.training.export import IDENTITY, read_run
from labeldistill_core.training.identity import differences
from labeldistill_core.training.options import StudentOptions, TrainingOptions
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.train import train_student

_SCORES = "scores.json"
_OF_SCORING = ("scored", "data_sha256")
"""Settings that may change without another training; the data are those of both."""


@dataclass(frozen=True)
class AblationRun:
    """One student to be trained and scored."""

    dataroot: Path
    """nuScenes data root."""
    folder: Path
    """Folder that the run writes to."""
    arm: Arm
    """Which teachers the student has, and how it listens to them."""
    given: Mapping[str, Path | None]
    """Checkpoints to train with, see `Arm.given`."""
    scenes: tuple[str, ...]
    """Names of the scenes to train on."""
    scored: tuple[str, ...]
    """Names of the scenes to score."""
    data: str
    """Hash of the samples, to train on and to score, and of what the tables say of them."""
    sweeps: str | None
    """Hash of the scans that the LiDAR teacher sees between the samples to train on."""
    options: TrainingOptions
    """Options of the training, with the seed of this run."""

    @property
    def settings(self) -> dict[str, Any]:
        """What its scores belong to, as JSON."""
        preset = self.options.resolved()
        settings = {
            "arm": asdict(self.arm),
            "preset": self.options.preset_name,
            # It changes the network too, of which the recipe tells nothing.
            "published": self.options.published,
            "precision": self.options.machine.precision,
            "scenes": self.scenes,
            "scored": self.scored,
            "data_sha256": self.data,
            "sweeps_sha256": self.sweeps,
            "sample": asdict(preset.samples),
            "recipe": asdict(preset.recipes.student),
            "student": asdict(preset.student),
            # By content: a teacher that was trained anew under the same name makes other students.
            **{name: path and file_sha256(path) for name, path in self.given.items()},
        }
        return dict(json.loads(json.dumps(settings)))

    @property
    def check_sum(self) -> str:
        """Of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def kept(self) -> Scores | None:
        """What an earlier call left in the folder.

        Raises:
            CheckpointError: with other settings.
        """
        file, now = self.folder / _SCORES, self.settings
        if not file.exists():
            return None
        try:
            found = read_figures(file)
            settings, scores = found["settings"], Scores.from_json(found["scores"])
            if not isinstance(settings, dict):
                raise TypeError
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{file} is damaged: remove it, and the run is scored anew"
            ) from error
        if different := differences(settings, now):
            same_student = {**settings, **{key: now[key] for key in _OF_SCORING}}
            anew = f"; without {_SCORES} it is scored anew, if it learnt from the same samples"
            if differences(same_student, now):
                anew = ""
            raise CheckpointError(
                f"{self.folder} holds a run of other settings: {'; '.join(different)}. Give "
                f"another folder, or repeat the call as it was{anew}"
            )
        return scores

    def scores(self) -> Scores:
        """Train and score, or take what an earlier call found."""
        if kept := self.kept():
            return kept
        distillation = self.arm.distillation or DistillationConfig()
        if self.options.published:
            distillation = behaviour.distillation(distillation)
        stage = StudentOptions.like(self.options, distillation=distillation, **self.given)
        train_student(self.dataroot, self.folder, stage)
        scores = _score(self)
        content = {"settings": self.settings, "scores": scores.to_json()}
        # Whole or not at all, since a later call takes this file for a finished run.
        write_whole(self.folder / _SCORES, json.dumps(content, indent=1).encode())
        return scores


def refuse_other_length(folder: Path, recipe: Recipe) -> None:
    """See that no training of another length goes on.

    A finished one can be lengthened, but its rates were those of the shorter one, and what was made
    with its network would have another one beside it.

    Args:
        folder: of a run, which may not be there.
        recipe: of the run that is to stand there.

    Raises:
        CheckpointError: its epochs are others.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return
    before = read_run(last)[IDENTITY]["recipe"]["epochs"]
    if before != recipe.epochs:
        raise CheckpointError(
            f"{folder} holds a run of {before} epochs, and {recipe.epochs} are asked for: give "
            "another folder, or repeat the call as it was"
        )


def _score(run: AblationRun) -> Scores:
    detector = Detector.load(run.folder / "student.safetensors", device="auto")
    classes = detector.config.head.class_list
    tables = NuScenesTables(run.dataroot, run.options.version, classes)
    samples = {name: tables.samples(name) for name in run.scored}
    found = student_results(detector, tables, samples)
    boxes = evaluation_boxes([tables.ground_truth(token) for token in found], found)
    metrics, parts = evaluate_boxes(boxes), break_down(boxes)
    recall = {
        f"{criterion} {group.name}": group.recall
        for criterion in ("distance", "LiDAR returns")
        for group in parts.criteria[criterion]
    }
    banded = {group.name: group.mean_ap for group in parts.distance}
    return Scores(metrics.mean_ap, metrics.nds, metrics.tp_errors, recall, banded)
