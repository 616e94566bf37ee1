# SPDX-License-Identifier: Apache-2.0
"""All stages of training from a configuration file, and starting from other networks' weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labeldistill_core.checkpoints import load_student, save_student
from labeldistill_core.classes import TASKS
from labeldistill_core.config import DecodeConfig, StudentConfig
from labeldistill_core.config_files import classes_of, to_yaml
from labeldistill_core.errors import CheckpointError
from labeldistill_core.lidar.teacher import load_teacher
from labeldistill_core.network.student import Student
from labeldistill_core.training.export import IDENTITY
from labeldistill_core.training.initial_weights import load_initial
from labeldistill_ros.cli import main
from labeldistill_ros.robustness import degradation
from labeldistill_ros.robustness.degradation import OperatingCondition
from tests.support.nuscenes_fixture import VERSION
from tests.support.own_vehicle import CLASSES, own_preset, write_own_dataroot
from tests.support.small_networks import small, small_preset
from tests.support.small_training import small_training


@pytest.mark.long
def test_all_stages_of_another_vehicle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, file = write_own_dataroot(tmp_path / "data"), tmp_path / "own.yaml"
    file.write_text(to_yaml(own_preset()))
    common = [*small_training(file, version=VERSION, batch_size=3), "--class-balanced", "True"]

    def train(stage: str, *more: str) -> Path:
        out = tmp_path / stage
        assert main(["train", stage, str(root), str(out), *common, *more]) == 0
        (written,) = out.glob("*.safetensors")
        assert classes_of(written) == CLASSES
        return written

    teacher = train("teacher")
    encoder = train("label-encoder", "--teacher", str(teacher))
    given = ["--teacher", str(teacher), "--label-encoder", str(encoder)]
    changed = ["--distillation.ratio", "1", "2", "1", "--student.decode.max-candidates", "40"]
    proposed = f"{tmp_path / 'student'} --version {VERSION} --config {file} --split all "
    proposed += f"--teacher {teacher}"
    assert f"student {root} {proposed} --label-encoder {encoder}\n" in capsys.readouterr().out
    student = train("student", *given, *changed)
    decode = replace(own_preset().student.decode, max_candidates=40)
    assert load_student(student).student.config == replace(own_preset().student, decode=decode)
    assert load_student(student).record["distillation"]["ratio"] == [1, 2, 1]
    assert load_teacher(teacher).config == own_preset().teacher
    assert "steps on 6 samples, seed 0, LiDAR and label teacher" in capsys.readouterr().out
    scored = ["--version", VERSION]
    evaluated = ["--split", "all", "--out", str(tmp_path / "scores")]
    assert main(["evaluate", str(student), str(root), *scored, *evaluated]) == 0
    assert "work_site" in capsys.readouterr().out
    results = str(tmp_path / "scores" / "results.json")
    assert main(["evaluate-results", results, str(root), *scored, "--config", str(file)]) == 0
    again = capsys.readouterr().out
    assert main(["evaluate-results", results, str(root), *scored, "--config", str(student)]) == 0
    assert capsys.readouterr().out == again
    assert main(["statistics", str(root), *scored, "--config", str(file)]) == 0
    assert "% of auto by speed" in capsys.readouterr().out
    assert main(["overfit", str(root), str(tmp_path / "few"), *scored, "--config", str(file),
                 "--steps", "1", "--student.decode.max-candidates", "40"]) == 1  # fmt: skip
    learned = load_student(tmp_path / "few" / "student.safetensors").student
    assert learned.config == replace(own_preset().student, decode=decode)


def nuscenes_config() -> StudentConfig:
    """With the six tasks of nuScenes, none of which is of the other vehicle's size."""
    config = small()
    return replace(config, head=replace(config.head, tasks=TASKS), decode=DecodeConfig())


@pytest.fixture
def nuscenes_student(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_student(tmp_path / "nuscenes.safetensors", Student(nuscenes_config()))
    return tmp_path / "nuscenes.safetensors"


def test_other_configurations_are_refused_with_the_mend(nuscenes_student: Path) -> None:
    network = Student(own_preset().student)
    with pytest.raises(CheckpointError, match=r"of another shape: .*; with --partial, training"):
        load_initial(network, nuscenes_student, "student", partial=False)


def test_what_fits_is_taken_and_what_does_not_is_listed(
    nuscenes_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    network = Student(own_preset().student)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    theirs = load_student(nuscenes_student).student.state_dict()
    with caplog.at_level(logging.INFO):
        load_initial(network, nuscenes_student, "student", partial=True)
    after = network.state_dict()
    fits = {n for n in after if n in theirs and theirs[n].shape == after[n].shape}
    assert any(name.startswith("image_encoder.") for name in fits)
    for name, tensor in after.items():
        assert torch.equal(tensor, theirs[name] if name in fits else before[name]), name
    assert f"{len(fits)} of {len(after)} weights are taken" in caplog.text
    assert "head.tasks.0.heatmap.3.weight (1, 8, 3, 3) for (2, 8, 3, 3)" in caplog.text
    assert "weights have another shape and stay as they are: " in caplog.text
    assert "weights of the file have no place: head.tasks.2." in caplog.text


def test_weights_of_nothing_alike_are_refused(nuscenes_student: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weight that fits"):
        load_initial(torch.nn.Linear(2, 2), nuscenes_student, "student", partial=True)


def test_the_same_network_is_taken_whole(nuscenes_student: Path) -> None:
    network = Student(replace(nuscenes_config(), cameras=("a", "b")))
    load_initial(network, nuscenes_student, "student", partial=False)
    theirs = load_student(nuscenes_student).student.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in network.state_dict().items())


def test_robustness_reads_the_classes_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root, model = write_own_dataroot(tmp_path / "data"), tmp_path / "own.safetensors"
    save_student(model, Student(own_preset().student))
    monkeypatch.setattr(degradation, "conditions", lambda _: (OperatingCondition("none"),))
    command = ["robustness", str(root), "--model", str(model), "--split", "all"]
    assert main([*command, "--json", str(tmp_path / "figures.json")]) == 0
    assert not [record.message for record in caplog.records if "categor" in record.message]


def test_runs_of_earlier_versions_go_on(tmp_path: Path, synthetic_dataroot: Path) -> None:
    """Their checkpoints say nothing of classes, which were nuScenes' ten."""
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(to_yaml(small_preset()))
    command = ["train", "teacher", str(synthetic_dataroot), str(out)]
    assert main([*command, *small_training(file)]) == 0
    last = out / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content[IDENTITY]["config"]["head"]["classes"]
    torch.save(content, last)
    assert main([*command, *small_training(file, epochs=2)]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 2 * content["global_step"]
    # One of other classes is another run.
    other = file.read_text().replace("vehicle.car]", "vehicle.van]")
    file.write_text(other)
    assert main([*command, *small_training(file, epochs=3)]) == 2
