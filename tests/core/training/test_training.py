# SPDX-License-Identifier: Apache-2.0
"""Training of the student: it learns, stops, goes on, and what it writes is what the node loads."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from labeldistill_core import presets
from labeldistill_core.checkpoints import file_sha256, load_student
from labeldistill_core.config import ConvNeXtConfig, ImageEncoderConfig
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.errors import CheckpointError
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.teacher import load_teacher
from labeldistill_core.published import behaviour
from labeldistill_core.runtime import Detector
from labeldistill_core.training.fit import Machine, fit
from labeldistill_core.training.options import TrainingOptions
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.stage import TrainingBatch
from labeldistill_core.training.student import StudentStage
from labeldistill_ros.cli import main
from tests.support.small_networks import preset_of, small, small_teacher
from tests.support.small_training import small_training


def test_the_loss_falls_on_one_batch(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    config = small()
    dataset = StudentDataset(tables, tables.scene_names, config)
    sample = StudentSample.collate([dataset[1], dataset[6]])
    torch.manual_seed(0)
    training = StudentStage(config, Recipe())
    optimizer = torch.optim.AdamW(training.parameters(), 5e-3)
    values = []
    for _ in range(25):
        losses = training.losses(sample)
        assert set(losses) == {"heatmap", "box", "depth"}
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append({name: value.item() for name, value in losses.items()})
    for name in values[0]:
        assert values[-1][name] < 0.8 * values[0][name]


def test_a_loss_that_is_not_finite_is_named(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    dataset = StudentDataset(tables, tables.scene_names, small())
    training = StudentStage(small(), Recipe())
    with torch.no_grad():
        training.network.head.get_parameter("tasks.0.heatmap.3.bias").fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="heatmap nan"):
        training.training_step(StudentSample.collate([dataset[0], dataset[1]]), 0)


def test_what_is_trained_is_loaded(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    command = ["train", "student", str(synthetic_dataroot)]
    assert main([*command, str(out), *small_training()]) == 0
    detector = Detector.load(out / "student.safetensors")
    assert detector.config == small()
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    token = tables.samples(tables.scene_names[0])[0]
    assert detector.detect(tables.frame_set(token)).boxes.frame == "ego"
    assert "2 steps on 8 samples" in capsys.readouterr().out
    other = tmp_path / "other"
    init = ["--init", str(out / "student.safetensors")]
    assert main([*command, str(other), *small_training(), *init]) == 0
    assert (other / "student.safetensors").exists()


def run(
    dataroot: Path, out: Path, recipe: Recipe, stop_at: int | None = None, workers: int = 0
) -> dict[str, Tensor] | None:
    """Weights after a run; None when it was cut off at a step."""
    tables = NuScenesTables(dataroot, "v1.0-mini")
    config = replace(small(), depth_net=replace(small().depth_net, dropout=0.5))
    data = StudentDataset(tables, tables.scene_names, config)
    seed_everything(recipe.seed, verbose=False)
    stage = StudentStage(config, recipe)
    if stop_at is not None:
        step = stage.training_step

        def stopping(sample: TrainingBatch, batch_idx: int) -> Tensor:
            if stage.global_step == stop_at:
                raise KeyboardInterrupt
            return step(sample, batch_idx)

        stage.training_step = stopping  # type: ignore[method-assign, assignment]
    machine = Machine(precision="32-true", workers=workers)
    try:
        fit(stage, data, StudentSample.collate, out, {"stage": "student"}, machine, save_every=1)
    except SystemExit:  # how lightning ends after an interrupt
        return None
    return {name: tensor.clone() for name, tensor in stage.network.state_dict().items()}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_same_weights(
    synthetic_dataroot: Path, tmp_path: Path, workers: int
) -> None:
    recipe = Recipe(epochs=3, batch_size=2, ema_decay=0.9)  # of four steps
    whole = run(synthetic_dataroot, tmp_path / "whole", recipe)
    assert whole is not None
    # once in the middle of an epoch and once at the end of one
    assert run(synthetic_dataroot, tmp_path / "parts", recipe, 3, workers) is None
    assert run(synthetic_dataroot, tmp_path / "parts", recipe, 8, workers) is None
    parts = run(synthetic_dataroot, tmp_path / "parts", recipe, workers=workers)
    assert parts is not None
    different = [name for name in whole if not torch.equal(whole[name], parts[name])]
    assert different == []
    assert torch.load(tmp_path / "parts/checkpoints/last.ckpt", weights_only=False)[
        "global_step"
    ] == 12  # fmt: skip


def test_another_configuration_is_not_taken_up(synthetic_dataroot: Path, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=4)
    run(synthetic_dataroot, tmp_path, recipe)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    other = replace(recipe, learning_rate=1e-3)
    with pytest.raises(CheckpointError, match="recipe.learning_rate was 0.0004, is 0.001"):
        run(synthetic_dataroot, tmp_path, other)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(before[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        run(synthetic_dataroot, tmp_path, recipe)


def test_bad_calls(
    synthetic_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "student", str(synthetic_dataroot), str(tmp_path), "--version", "v1.0-mini"]
    assert main([*command, "--preset", "nothing"]) == 2
    assert "no preset 'nothing': there are r50_256x704_4key" in capsys.readouterr().err
    assert main([*command, "--batch-size", "99"]) == 2
    assert "4 samples are fewer than one batch of 99" in capsys.readouterr().err
    assert main([*command, "--scenes", "-1"]) == 2
    assert "--scenes must be 0 or more" in capsys.readouterr().err
    # told before a training takes hours, and nothing is lost
    for path, told in (
        ("file", "Not a directory"), ("text/student.safetensors", "is no file of a network"),
        ("folder/student.safetensors/file", "Is a directory"),
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("figures")
        command[3] = str(tmp_path / path.partition("/")[0])
        assert main([*command, "--split", "all", "--batch-size", "2"]) == 2
        assert told in capsys.readouterr().err
        assert (tmp_path / path).read_text() == "figures"
        assert not list(tmp_path.rglob("*.ckpt"))
    assert main([*command[:3], str(tmp_path), "--version", "v1.0-x"]) == 2
    assert "v1.0-mini" in capsys.readouterr().err


def test_the_first_so_many_scenes(synthetic_dataroot: Path) -> None:
    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    options = TrainingOptions(split="all", validate="val")
    both = ["scene-0061", "scene-0103"]
    assert options.scene_names(tables) == (both, ["scene-0103"])
    assert replace(options, scenes=1).scene_names(tables) == (both[:1], ["scene-0103"])


def test_evaluate_scores_a_checkpoint(
    synthetic_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from labeldistill_core.checkpoints import save_student
    from labeldistill_core.network.student import Student

    file = tmp_path / "s.safetensors"
    save_student(file, Student(small()))
    command = ["evaluate", str(file), str(synthetic_dataroot), "--version", "v1.0-mini"]
    assert main([*command, "--split", "val", "--out", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Not a directory" in said.err
    assert main([*command, "--split", "val", "--out", str(tmp_path / "eval")]) == 0
    assert "(4 samples)" in capsys.readouterr().out
    assert (tmp_path / "eval" / "metrics.json").exists()
    assert (tmp_path / "eval" / "results.json").exists()


@pytest.mark.parametrize("published", [False, True])
def test_three_stages_one_after_the_other(
    synthetic_dataroot: Path,
    tmp_path: Path,
    small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
    published: bool,
) -> None:
    common = [*small_training(split="train", batch_size=2), "--validate", "val"]
    common += ["--published"] if published else []
    width = str(small().image.width)
    common += ["--val-scenes", "scene-0103", "--student.image.width", width]
    teacher, encoder = tmp_path / "t/teacher.safetensors", tmp_path / "e/label_encoder.safetensors"
    root = str(synthetic_dataroot)
    assert main(["train", "teacher", root, str(teacher.parent), *common]) == 0
    given = ["--teacher", str(teacher)]
    assert main(["train", "label-encoder", root, str(encoder.parent), *given, *common]) == 0
    given += ["--label-encoder", str(encoder)]
    student = tmp_path / "s" / "student.safetensors"
    assert main(["train", "student", root, str(student.parent), *given, *common]) == 0
    said = capsys.readouterr().out
    assert "LiDAR and label teacher" in said
    for line in said.splitlines():
        if line.startswith("next: "):
            # what is proposed can be called: every option of it is known
            words = shlex.split(line)[2:]
            with pytest.raises(SystemExit):
                main([*words, "--no-such-option"])
            told = capsys.readouterr().err
            assert "no-such-option" in told
            assert not [word for word in words if word.startswith("--") and word in told]
    stages = [line for line in said.splitlines() if line.startswith("next: labeldistill train")]
    for line in stages:
        assert "--val-scenes scene-0103" in line
        assert f"--student.image.width {width}" in line
        assert ("--published" in line) == published
    assert len(stages) == 2
    scored = f"{student} {root} --version v1.0-mini --scenes scene-0103"
    scored += f" --out {tmp_path / 'scores'}"
    assert f"next: labeldistill evaluate {scored}\n" in said
    # the node needs no teacher
    assert Detector.load(student).config == (behaviour.student(small()) if published else small())
    lines = (student.parent / "log" / "scalars.jsonl").read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    assert {"val/mAP", "val/NDS", "val/mATE", "train/learning_rate", "train/box"} < logged
    assert json.loads(lines[0])["step"] == 0
    checkpoint = torch.load(student.parent / "checkpoints" / "last.ckpt", weights_only=False)
    kinds = {name.split(".")[0] for name in checkpoint["state_dict"]}
    assert kinds == {"network", "distiller"}
    made = load_student(student).record
    assert made["recipe"]["decay_everything"] is published
    assert made["distillation"]["partition"] == ("contiguous" if published else "per_frame")
    assert made["distillation"]["teacher_norm"] == ("batch" if published else "running")
    assert made["sample"]["depth_collisions"] == ("last" if published else "nearest")
    assert load_teacher(teacher).config.sweeps.future_needs_past is published
    best = list((student.parent / "checkpoints").glob("best*.ckpt"))
    assert len(best) == 1
    # all three are scored as they were while training
    for file, more in ((teacher, []), (encoder, ["--teacher", str(teacher)]), (student, [])):
        out = tmp_path / f"scores of {file.stem}"
        score = ["evaluate", str(file), root, "--version", "v1.0-mini", "--out", str(out)]
        assert main([*score, *more, "--device", "cpu"]) == 0
        lines = (file.parent / "log" / "scalars.jsonl").read_text().splitlines()
        logged_nds = [json.loads(line)["val/NDS"] for line in lines if "val/NDS" in line]
        found = json.loads((out / "metrics.json").read_text())
        assert found["samples"] == 4
        assert found["NDS"] == pytest.approx(logged_nds[-1], abs=0.02)
    assert main(["evaluate", str(encoder), root, "--version", "v1.0-mini"]) == 2
    assert "is a label encoder: give its teacher (--teacher)" in capsys.readouterr().err
    coarse = ["--teacher", str(teacher), "--precision", "bfloat16"]
    assert main(["evaluate", str(encoder), root, "--version", "v1.0-mini", *coarse]) == 2
    assert "which computes in float32: leave --precision out" in capsys.readouterr().err
    # what one stage wrote is not taken for another
    wrong = ["--teacher", str(student)]
    assert main(["train", "label-encoder", root, str(tmp_path / "x"), *wrong, *common]) == 2
    assert "holds a student, and a teacher is needed" in capsys.readouterr().err


def test_a_teacher_starts_from_another(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    neighbours = replace(small_teacher(), sweeps=SweepsConfig(2, 2))
    monkeypatch.setitem(presets.PRESETS, "small", preset_of(small(), neighbours))
    common = small_training(split="train", batch_size=2)
    first, second = (tmp_path / name / "teacher.safetensors" for name in ("first", "second"))
    start = ["train", "teacher", str(synthetic_dataroot)]
    assert main([*start, str(first.parent), *common]) == 0
    assert "no LiDAR scans between its key frames" in caplog.text
    init = ["--init", str(first)]
    # a rate of nothing leaves what it started from
    still = [*start, str(second.parent), *common, "--learning-rate", "1e-30"]
    assert main([*still, *init]) == 0
    assert f"from the teacher {file_sha256(first)}" in capsys.readouterr().out
    weights, before = (dict(load_teacher(file).named_parameters()) for file in (second, first))
    assert all(torch.equal(weights[name], before[name]) for name in before)
    other = tmp_path / "other.safetensors"
    other.write_bytes(second.read_bytes())
    assert main([*still, "--init", str(other)]) == 2
    assert "init was" in capsys.readouterr().err
    assert main([*still, "--init", str(second)]) == 2
    assert "would be written over by the teacher that is trained from it" in capsys.readouterr().err
    assert second.read_bytes() == other.read_bytes()
    (tmp_path / "damaged.safetensors").write_bytes(first.read_bytes()[:-100])
    damaged = ["--init", str(tmp_path / "damaged.safetensors")]
    assert main([*start, str(tmp_path / "x"), *common, *damaged]) == 2
    assert "damaged.safetensors" in capsys.readouterr().err


def test_weights_alone_decay() -> None:
    """Norms, biases and ConvNeXt's scales do not, unless everything is asked for."""
    config = replace(
        small(),
        image_encoder=ImageEncoderConfig(ConvNeXtConfig("tiny"), neck_channels=(8, 8, 8, 8)),
    )

    def decays(recipe: Recipe) -> tuple[dict[str, float], set[tuple[float, float]]]:
        stage = StudentStage(config, recipe)
        stage.trainer = SimpleNamespace(world_size=1, estimated_stepping_batches=10)  # type: ignore[assignment]
        groups = stage.configure_optimizers()["optimizer"].param_groups
        of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        rates = {(group["lr"], group["weight_decay"]) for group in groups}
        return {name: of[id(p)] for name, p in stage.named_parameters()}, rates

    recipe = Recipe(batch_size=16, image_rate=0.5, weight_decay=0.1, warmup_share=0.1)
    some, rates = decays(recipe)
    assert rates == {(4e-4, 0.1), (4e-4, 0.0), (2e-4, 0.1), (2e-4, 0.0)}
    kinds = {True: set(), False: set()}  # type: dict[bool, set[str]]
    for name, decay in some.items():
        kinds[decay > 0].add(name.rpartition(".")[2])
    assert kinds == {True: {"weight"}, False: {"weight", "bias", "layer_scale"}}
    assert some["network.head.shared.0.weight"] == 0.1
    assert some["network.head.shared.1.weight"] == 0.0
    everything, _ = decays(replace(recipe, decay_everything=True))
    assert set(everything.values()) == {0.1}


def test_a_run_is_known_by_its_samples_and_what_is_said_of_them(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    version = "v1.0-mini"
    shutil.copytree(synthetic_dataroot / version, tmp_path / version)
    file = tmp_path / version / "sample_annotation.json"
    rows = json.loads(file.read_text())
    for row in rows:
        row["size"][0] *= 2
    file.write_text(json.dumps(rows))
    tables, others = NuScenesTables(synthetic_dataroot), NuScenesTables(tmp_path)
    tokens = [token for scene in tables.scene_names for token in tables.samples(scene)]

    def identity(
        tables: NuScenesTables, tokens: list[str], stage: str = "student"
    ) -> Mapping[str, Any]:
        data = SimpleNamespace(tables=tables, tokens=tokens)
        return TrainingOptions().identity(stage, data, SweepsConfig(2, 1))  # type: ignore[arg-type]

    def differing(other: Mapping[str, Any]) -> set[str]:
        return {key for key in first if first[key] != other[key]}

    first = identity(tables, tokens)
    assert differing(identity(NuScenesTables(synthetic_dataroot), tokens)) == set()
    # which has no images and scans either
    assert differing(identity(others, tokens)) == {"boxes_sha256", "sensors_sha256"}
    hashes = {"samples_sha256", "boxes_sha256", "sensors_sha256", "sweeps_sha256"}
    assert differing(identity(tables, tokens[::-1])) == hashes
    # a calibration that was mended
    root = tmp_path / "mended"
    shutil.copytree(synthetic_dataroot, root)
    file = root / version / "calibrated_sensor.json"
    rows = json.loads(file.read_text())
    camera = next(row for row in rows if row["camera_intrinsic"])
    camera["translation"][2] += 0.5
    file.write_text(json.dumps(rows))
    assert differing(identity(NuScenesTables(root), tokens)) == {"sensors_sha256"}
    # of a camera, whose images no teacher sees either
    next((root / "samples" / "CAM_FRONT").iterdir()).unlink()
    first_teacher = identity(tables, tokens, "teacher")
    assert identity(NuScenesTables(root), tokens, "teacher") == first_teacher
    # numbers that no integer holds
    camera["translation"] = [1e305, -1e305, 1e20]
    file.write_text(json.dumps(rows))
    assert differing(identity(NuScenesTables(root), tokens)) == {"sensors_sha256"}
