# SPDX-License-Identifier: Apache-2.0
"""Write a tiny world, train a student on it for a few steps, and score its boxes.

`python examples/train_tiny.py [FOLDER]` shows the parts that `labeldistill train student` is made
of. So few steps teach a network nothing; docs/training.md says what it takes.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import tyro

from labeldistill_core import Detector
from labeldistill_core.checkpoints import save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.exit_codes import exit_code
from labeldistill_core.presets import demo
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset
from labeldistill_core.training.fit import Machine, fit
from labeldistill_core.training.student import StudentStage


def main(folder: tyro.conf.Positional[Path] = Path("out/tiny")) -> Metrics:
    """Train and score.

    Args:
        folder: for the world, the checkpoints and the student; kept as far as it is there.
    """
    write_dataset(folder / "world", WorldOptions(scenes=2, key_frames=4, workers=1))
    tables = NuScenesTables(folder / "world", "v1.0-mini")
    trained_on, unseen = tables.scene_names

    config = demo().student  # a `StudentConfig`: change what you like with `replace`
    recipe = replace(demo().recipes.student, epochs=2, batch_size=2)
    stage = StudentStage(config, recipe)
    data = StudentDataset(tables, [trained_on], config, recipe.augmentation)
    machine = Machine(precision="32-true", workers=0)
    identity = {
        "config": asdict(config)
    }  # a run goes on from its checkpoints where this is the same
    fit(stage, data, StudentSample.collate, folder / "run", identity, machine)

    student = folder / "student.safetensors"
    save_student(student, stage.network)
    detector = Detector.load(student)
    found = student_results(detector, tables, {unseen: tables.samples(unseen)})
    metrics = evaluate([tables.ground_truth(token) for token in found], found)
    print(metrics.table())
    return metrics


if __name__ == "__main__":
    sys.exit(exit_code(lambda: tyro.cli(main), "train_tiny.py"))
