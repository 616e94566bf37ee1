# SPDX-License-Identifier: Apache-2.0
"""The ablation: arms are compared, runs go on, several run at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core import presets
from labeldistill_core.checkpoints import save_network
from labeldistill_core.config_files import to_yaml
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import CheckpointError, ConfigError, DataError
from labeldistill_core.experiments.ablation_report import (
    FinishedRun,
    Scores,
    finished_runs,
    write_report,
)
from labeldistill_core.experiments.ablation_run import AblationRun
from labeldistill_core.experiments.arms import ARMS
from labeldistill_core.experiments.processes import in_processes
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.presets import Recipes
from labeldistill_core.training.options import StudentOptions, TrainingOptions
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.train import train_student
from labeldistill_ros.cli import main
from tests.core.training.test_export import content_of_a_run
from tests.support import process_work
from tests.support.small_networks import small_preset, small_teacher
from tests.support.small_training import small_training


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """The small preset as a file, which other processes can read."""
    file = tmp_path / "small.yaml"
    file.write_text(to_yaml(small_preset()))
    return file


@pytest.mark.long
def test_ablation_compares_arms_and_goes_on(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(presets.PRESETS, "small", replace(
        small_preset(), recipes=Recipes(*[Recipe(epochs=1, batch_size=2)] * 3)
    ))  # fmt: skip
    figures = tmp_path / "figures.json"
    command = [
        "ablation", str(synthetic_dataroot), str(tmp_path / "out"), "--seeds", "2",
        *small_training(split="train", batch_size=2), "--json", str(figures),
    ]  # fmt: skip
    assert main([*command, "--arms", "none", "lidar+label+partition"]) == 0
    content = json.loads(figures.read_text())
    assert set(content["arms"]) == {"none", "lidar+label+partition"}
    assert content["budget"].startswith("1 epochs of 4 samples of 1 scenes, batch 2,")
    assert content["scored"] == "4 key frames of 1 scenes"
    for arm in content["arms"].values():
        assert len(arm["seeds"]) == 2
        assert 0 <= arm["mAP"]["mean"] <= 1
        assert arm["NDS"]["std"] >= 0
        assert list(arm["mean_ap_by_distance"]) == [
            "0-10 m",
            "10-20 m",
            "20-30 m",
            "30-40 m",
            "40-50 m",
        ]
        assert {"distance 0-10 m", "LiDAR returns 1-4"} < set(arm["recall"])
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 5000
    kept = (tmp_path / "out" / "none" / "seed0" / "student.safetensors").stat().st_mtime_ns
    assert main([*command, "--arms", "none", "lidar"]) == 0
    assert set(json.loads(figures.read_text())["arms"]) == {"none", "lidar"}
    again = (tmp_path / "out" / "none" / "seed0" / "student.safetensors").stat().st_mtime_ns
    assert kept == again
    assert "| lidar |" in capsys.readouterr().out
    assert main([*command, "--arms", "all"]) == 2
    assert "no arm all: there are none, lidar" in capsys.readouterr().err
    # what was found with other settings is not taken for an answer
    init = ["--arms", "none", "--init", str(tmp_path / "out" / "none/seed0/student.safetensors")]
    assert main([*command, *init]) == 2
    assert "none/seed0 holds a run of other settings" in capsys.readouterr().err
    assert main([*command, "--arms", "none", "--published"]) == 2
    assert "none/seed0 holds a run of other settings" in capsys.readouterr().err
    # nor what was found with a teacher's network of other cells, which is told before any training
    shipped = Path(__file__).parents[3] / "config/models/demo_teacher.safetensors"
    assert main([*command, "--arms", "none", "lidar", "--teacher", str(shipped)]) == 2
    assert "demo_teacher.safetensors has other cells than the student" in capsys.readouterr().err
    command[2] = str(tmp_path / "again")
    assert main([*command, *init, "--seeds", "1"]) == 0
    assert "2 steps on 4 samples" in json.loads(figures.read_text())["init"]


@pytest.mark.long
def test_ablation_runs_several_students_at_once(
    synthetic_dataroot: Path, tmp_path: Path, small_file: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = [
        "ablation", str(synthetic_dataroot), str(tmp_path), "--arms", "none", "--jobs", "2",
        *small_training(small_file, split="train", batch_size=2),
    ]  # fmt: skip
    caplog.set_level("INFO")
    assert main([*command, "--seeds", "2"]) == 0
    assert "arm none, seed 1: mAP 0." in caplog.text
    assert "2 of 2 runs" in caplog.text
    assert len(json.loads((tmp_path / "ablation.json").read_text())["arms"]["none"]["seeds"]) == 2
    for seed in (0, 1):
        assert "epoch 1 of 1" in (tmp_path / "none" / f"seed{seed}" / "output.txt").read_text()
    assert not (tmp_path / "teacher").exists()
    # before the third run is trained in another way
    assert main([*command, "--seeds", "3", "--learning-rate", "1e-5"]) == 2
    assert "none/seed0 holds a run of other settings" in capsys.readouterr().err
    assert not (tmp_path / "none" / "seed2").exists()
    for nothing in (["--jobs", "0"], ["--seeds", "0"], ["--arms"]):
        assert main([*command, *nothing]) == 2
        assert "there must be one of each" in capsys.readouterr().err
    assert main([*command, "--devices", "2"]) == 2
    assert "use several with --jobs instead of --devices" in capsys.readouterr().err


def test_a_partial_root_is_compared_as_it_is_trained_on(
    synthetic_dataroot: Path, tmp_path: Path, small_file: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Samples without a scan or an image are left out of what it is known by, too."""
    shutil.copytree(synthetic_dataroot, tmp_path / "root")
    tables = NuScenesTables(tmp_path / "root")
    without = tables.samples(split_scenes(tables, "train")[0])[0]
    lidar = tables.lidar(without).token
    file = tmp_path / "root" / "v1.0-mini" / "sample_data.json"
    rows = [row for row in json.loads(file.read_text()) if row["token"] != lidar]
    by_token = {row["token"]: row for row in rows}
    for row in rows:
        for end in ("prev", "next"):
            row[end] = row[end] if row[end] in by_token else ""
    file.write_text(json.dumps(rows))
    teacher = tmp_path / "teacher.safetensors"
    network = Teacher(replace(small_teacher(), sweeps=SweepsConfig(2, 1)))
    save_network(teacher, "teacher", network, network.config)
    trained: list[Path] = []

    def noted(dataroot: Path, folder: Path, options: StudentOptions) -> object:
        trained.append(folder)
        return train_student(dataroot, folder, options)

    monkeypatch.setattr("labeldistill_core.experiments.ablation_run.train_student", noted)
    command = [
        "ablation", str(tmp_path / "root"), str(tmp_path / "out"), "--arms", "lidar", "--seeds",
        "1", "--teacher", str(teacher), *small_training(small_file, split="train", batch_size=2),
    ]  # fmt: skip
    assert main(command) == 2
    assert "1 of 4 samples lack LiDAR scans" in capsys.readouterr().err
    assert main([*command, "--partial"]) == 0
    assert main([*command, "--partial"]) == 0
    assert len(trained) == 2


def test_figures_stand_for_folders_that_were_lost(
    synthetic_dataroot: Path, tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    command = [
        "ablation", str(synthetic_dataroot), str(out), "--arms", "none", "--json", str(figures),
        *small_training(small_file, split="train", batch_size=2),
    ]  # fmt: skip
    assert main([*command, "--seeds", "1"]) == 0
    first = json.loads(figures.read_text())
    (run,) = first["runs"]
    assert (run["arm"], run["seed"]) == ("none", 0)
    assert run["scores"]["mean_ap"] == first["arms"]["none"]["seeds"][0]["mAP"]
    shutil.rmtree(out)
    trained: list[int] = []

    def noted(dataroot: Path, folder: Path, options: StudentOptions) -> object:
        assert options.seed is not None
        trained.append(options.seed)
        if options.seed == 2:
            raise DataError("the disk is gone")
        return train_student(dataroot, folder, options)

    monkeypatch.setattr("labeldistill_core.experiments.ablation_run.train_student", noted)
    assert main([*command, "--seeds", "1"]) == 0
    assert trained == []
    assert json.loads(figures.read_text()) == first
    # what is found is written before the next run begins
    assert main([*command, "--seeds", "3"]) == 2
    assert "the disk is gone" in capsys.readouterr().err
    assert trained == [1, 2]
    assert [run["seed"] for run in json.loads(figures.read_text())["runs"]] == [0, 1]
    # figures of other settings are no answer, and stay beside those that are asked for
    shutil.rmtree(out)
    trained.clear()
    assert main([*command, "--seeds", "1", "--learning-rate", "1e-5"]) == 0
    assert trained == [0]
    content = json.loads(figures.read_text())
    assert len(content["arms"]["none"]["seeds"]) == 1
    assert len(content["runs"]) == 3
    kept = figures.read_bytes()
    figures.write_text("[]")
    assert main([*command, "--seeds", "1"]) == 2
    assert "figures.json holds no figures of an ablation" in capsys.readouterr().err
    figures.write_bytes(kept)
    # another world has scenes of the same names
    other = tmp_path / "other"
    shutil.copytree(synthetic_dataroot, other)
    table = other / "v1.0-mini" / "sample_annotation.json"
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([{**row, "size": [9.0, 9.0, 9.0]} for row in rows]))
    command[1] = str(other)
    assert main([*command, "--seeds", "1", "--learning-rate", "1e-5"]) == 2
    assert "none/seed0 holds a run of other settings" in capsys.readouterr().err
    trained.clear()
    command[2] = str(tmp_path / "third")
    assert main([*command, "--seeds", "1", "--seed", "5"]) == 0
    assert trained == [5]
    # the same scenes by their names
    scored = split_scenes(NuScenesTables(other), "val")
    assert main([*command, "--seeds", "1", "--seed", "5", "--val-scenes", *scored]) == 0
    assert trained == [5]
    # a root that is whole by now has other samples
    image = next((other / "samples" / "CAM_FRONT").iterdir())
    image.rename(tmp_path / "image")
    assert main([*command, "--seeds", "1", "--seed", "6", "--partial"]) == 0
    (tmp_path / "image").rename(image)
    assert main([*command, "--seeds", "1", "--seed", "6"]) == 2
    assert "none/seed6 holds a run of other settings" in capsys.readouterr().err
    # figures that cannot be written are told before a run is trained
    command[command.index(str(figures))] = str(tmp_path)
    assert main([*command, "--seeds", "1", "--seed", "7"]) == 2
    assert f"{tmp_path}: Is a directory: name a file in it" in capsys.readouterr().err
    # nor figures that the runs would write over
    own = str(Path(command[2]) / "table.md")
    command[command.index(str(tmp_path))] = own
    assert main([*command, "--seeds", "1", "--seed", "7"]) == 2
    assert f"--json {own} is in the folder of the runs" in capsys.readouterr().err
    # the last of the seeds
    command[command.index(own)] = str(figures)
    assert main([*command, "--seeds", "2", "--seed", str(2**32 - 1)]) == 2
    told = f"--seeds 2 from --seed {2**32 - 1} on go beyond the last"
    assert told in capsys.readouterr().err
    assert trained == [5, 6]
    # a link to the figures in the folder is no other file
    link = Path(command[2]) / "link.json"
    (Path(command[2]) / "ablation.json").rename(link)
    (Path(command[2]) / "ablation.json").symlink_to(link)
    command[command.index(str(figures))] = str(Path(command[2]) / "ablation.json")
    assert main([*command, "--seeds", "1", "--seed", "5"]) == 0
    # nor are scores of a version that did not tell what is nothing here
    scores = Path(command[2]) / "none" / "seed5" / "scores.json"
    content = json.loads(scores.read_text())
    assert content["settings"].pop("sweeps_sha256") is None
    scores.write_text(json.dumps(content))
    assert main([*command, "--seeds", "1", "--seed", "5"]) == 0
    assert main([*command, "--seeds", "1", "--seed", "5", "--batch-size", "1"]) == 2
    told = "holds a run of other settings: recipe.batch_size was 2, is 1. Give another folder"
    assert told in capsys.readouterr().err
    assert trained == [5, 6]


def test_a_pipe_gets_figures_once_and_a_finished_training_is_not_made_longer(
    synthetic_dataroot: Path, tmp_path: Path, small_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["ablation", str(synthetic_dataroot), str(out), "--arms", "none"]
    small = partial(small_training, small_file, split="train", batch_size=2)
    assert main([*command, "--seeds", "1", *small()]) == 0
    capfd.readouterr()
    assert main([*command, "--seeds", "2", *small(), "--json", "/dev/stdout"]) == 0
    assert [run["seed"] for run in json.loads(capfd.readouterr().out)["runs"]] == [0, 1]
    # as where the call was cut off while the student was scored
    scores = out / "none" / "seed1" / "scores.json"
    content = scores.read_bytes()
    scores.unlink()
    assert main([*command, "--seed", "1", "--seeds", "1", *small(epochs=2)]) == 2
    told = f"{out / 'none' / 'seed1'} holds a run of 1 epochs, and 2 are asked for: give another"
    assert told in capfd.readouterr().err
    # the figures stand for its scores, whatever became of its checkpoint
    last = scores.parent / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(b"")
    assert main([*command, "--seeds", "2", *small()]) == 0
    last.write_bytes(whole)
    # what would score the same student is told where there is such a thing
    scores.write_bytes(content)
    anew = "without scores.json it is scored anew"
    for other, helps in ((["--val-scenes", "scene-0061"], True), (["--learning-rate", "1"], False)):
        assert main([*command, "--seed", "1", "--seeds", "1", *small(), *other]) == 2
        assert (anew in capfd.readouterr().err) == helps
    # nor is a teacher, which finished students had
    of_teacher = out / "teacher" / "checkpoints" / "last.ckpt"
    of_teacher.parent.mkdir(parents=True)
    torch.save(content_of_a_run({"recipe": {"epochs": 5}}), of_teacher)
    assert main([*command[:-1], "lidar", *small()]) == 2
    told = "teacher holds a run of 5 epochs, and 20 are asked for"
    assert told in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "[" * 100_000, '{"arms": {}, "runs": 3}', '{"arms": {}, "runs": [5]}',
        '{"precious": 1}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": [1], "scores": {}}]}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": "a",'
        ' "scores": {"mean_ap": "b"}}]}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": "a",'
        ' "scores": {"mean_ap": 0.1, "nds": 0.1, "errors": null}}]}',
        '{"arms": 5}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": "a",'
        ' "scores": {"mean_ap": Infinity, "nds": 0.1, "errors": {}}}]}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": "a",'
        ' "scores": {"mean_ap": 0.1, "nds": 0.1, "errors": {"trans_err": Infinity}}}]}',
        '{"arms": {}, "runs": [{"arm": "none", "seed": 0, "settings": "a",'
        ' "scores": {"mean_ap": 0.1, "nds": 0.1, "errors": {}, "recall": {"x": -7}}}]}',
        '{"arms": {}, "runs": [{"scores": ' + '{"a": ' * 900 + "1" + "}" * 901 + "]}",
    ],
    ids=[
        "empty", "list", "deep", "number", "no run", "other", "settings", "word", "errors",
        "arms", "infinity", "infinite error", "negative recall", "deep scores",
    ],
)  # fmt: skip
def test_damaged_figures_are_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"figures.json holds no figures of an ablation"):
        finished_runs(file)


def test_figures_come_back(tmp_path: Path) -> None:
    whole = Scores(0.2, 0.3, {"trans_err": float("nan")}, {"distance 0-10 m": 1}, {"0-10 m": 0.5})
    bare = Scores(0.1, 0.2, {"trans_err": 0.5})
    runs = [FinishedRun("none", 0, "a", whole), FinishedRun("lidar", 0, "b", bare)]
    file = tmp_path / "figures.json"
    write_report(tmp_path, file, {"none": [whole], "lidar": [bare]}, {}, runs)
    first, second = finished_runs(file)
    assert second == runs[1]
    assert np.isnan(first.scores.errors["trans_err"])
    assert first.scores.recall == whole.recall
    assert "| distance 0-10 m | 1.000 ± - | - |" in (tmp_path / "table.md").read_text()
    assert finished_runs(Path("/dev/full")) == []
    # another call's runs stay
    write_report(tmp_path, file, {"none": [bare]}, {}, [FinishedRun("none", 1, "c", bare)])
    assert [run.settings for run in finished_runs(file)] == ["a", "b", "c"]


def test_a_run_is_reported_when_it_ends(tmp_path: Path) -> None:
    seen: list[int] = []
    file = tmp_path / "second has ended"

    def report(index: int, came: bool) -> None:
        assert came
        seen.append(index)
        file.touch()

    outputs = [tmp_path / f"{i}.txt" for i in range(2)]
    # the first waits for the second to be reported
    assert list(in_processes(process_work.wait_for, [file, None], outputs, 2, report)) == [True] * 2
    assert seen == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "[" * 100_000, '{"settings": {}}', '{"scores": 5}',
        '{"settings": {}, "scores": {"mean_ap": 1, "nds": "b", "errors": {}}}',
        '{"settings": {}, "scores": {"mean_ap": 7, "nds": 0.1, "errors": {}}}',
        '{"settings": {}, "scores": ' + '{"a": ' * 900 + "1" + "}" * 901,
        '{"settings": [["a", 1]], "scores": {"mean_ap": 0.1, "nds": 0.1, "errors": {}}}',
    ],
    ids=["empty", "list", "deep", "settings", "scores", "word", "seven", "deep scores", "pairs"],
)  # fmt: skip
def test_damaged_scores_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    run = AblationRun(tmp_path, tmp_path, ARMS["none"], {}, (), (), "", None, TrainingOptions())
    with pytest.raises(CheckpointError, match=r"scores.json is damaged: remove it"):
        run.kept()
