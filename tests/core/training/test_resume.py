# SPDX-License-Identifier: Apache-2.0
"""A run that was cut off ends as one that was not: every stage, in the middle of an epoch too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset, LidarSample, StudentDataset, StudentSample
from labeldistill_core.distillation.config import DistillationConfig, LabelEncoderConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.lidar.config import SweepsConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.training.averaging import MovingAverage
from labeldistill_core.training.fit import Machine, fit
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.sampling import EpochOrder, class_balanced
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage
from tests.support.small_networks import small, small_teacher

STAGES = ("teacher", "label encoder", "student")
RECIPE = Recipe(epochs=2, batch_size=1, accumulate=3, ema_decay=0.9)
"""Eight batches an epoch make three steps, of which the last has two batches."""


def made(kind: str, root: Path, recipe: Recipe) -> tuple[Stage, Any, Any]:
    """Stage, samples and how they are put together."""
    tables = NuScenesTables(root, "v1.0-mini")
    points = Points(SweepsConfig(0, 0))
    seed_everything(3, verbose=False)
    teacher = Teacher(small_teacher())
    encoder = LabelEncoderConfig(
        small_teacher().grid, small_teacher().head.tasks, (8, 12), hidden_channels=8
    )
    seed_everything(recipe.seed, verbose=False)
    if kind == "student":
        config = replace(small(), depth_net=replace(small().depth_net, dropout=0.5))
        distiller = Distiller(DistillationConfig(), config, teacher, LabelEncoder(encoder))
        data = StudentDataset(tables, tables.scene_names, config, None, points)
        return StudentStage(config, recipe, distiller), data, StudentSample.collate
    scans = LidarDataset(tables, tables.scene_names, CAMERAS, None, points)
    if kind == "teacher":
        return TeacherStage(small_teacher(), recipe), scans, LidarSample.collate
    return LabelEncoderStage(encoder, recipe, teacher), scans, LidarSample.collate


def run(
    kind: str,
    root: Path,
    out: Path,
    recipe: Recipe = RECIPE,
    stop_at_batch: int | None = None,
    save_every: int = 1,
    workers: int = 0,
) -> dict[str, Tensor] | None:
    """Weights after a run; None when it was cut off before a batch, counted from its start."""
    stage, data, collate = made(kind, root, recipe)
    batches, step = 0, stage.training_step

    def counting(sample: Any, batch_idx: int) -> Tensor:
        nonlocal batches
        if batches == stop_at_batch:
            raise KeyboardInterrupt
        batches += 1
        return step(sample, batch_idx)

    stage.training_step = counting  # type: ignore[method-assign, assignment]
    machine = Machine(precision="32-true", workers=workers)
    try:
        fit(stage, data, collate, out, {"stage": kind}, machine, save_every=save_every)
    except SystemExit:  # how lightning ends after an interrupt
        return None
    return {name: tensor.clone() for name, tensor in stage.state_dict().items()}


def steps(folder: Path) -> int:
    # This test's own file: the unpickler that checks what strangers write takes ten times as long.
    return int(torch.load(folder / "checkpoints/last.ckpt", weights_only=False)["global_step"])


@pytest.mark.parametrize("kind", STAGES)
def test_every_stage_ends_with_the_same_weights(
    kind: str, synthetic_dataroot: Path, tmp_path: Path
) -> None:
    whole = run(kind, synthetic_dataroot, tmp_path / "whole")
    parts = tmp_path / "parts"
    # within a step of the first epoch; then right behind its end; then within the second
    for batch, step in ((5, 1), (6, 3), (4, 4)):
        assert run(kind, synthetic_dataroot, parts, stop_at_batch=batch) is None
        assert steps(parts) == step
    again = run(kind, synthetic_dataroot, parts, workers=1)
    assert whole is not None
    assert again is not None
    assert steps(parts) == steps(tmp_path / "whole") == 6
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_a_run_that_is_taken_up_is_not_saved_within_a_step(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    """Half a step's gradients are in no checkpoint, so that the file would say the wrong batch."""
    recipe = replace(RECIPE, epochs=1)
    assert run("teacher", synthetic_dataroot, tmp_path, recipe, stop_at_batch=4) is None
    before = (tmp_path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert run("teacher", synthetic_dataroot, tmp_path, recipe, stop_at_batch=1) is None
    assert (tmp_path / "checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_a_folder_of_another_stage_is_not_taken_up(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=1)
    run("label encoder", synthetic_dataroot, tmp_path, recipe)
    with pytest.raises(CheckpointError, match="stage was label encoder, is teacher"):
        run("teacher", synthetic_dataroot, tmp_path, recipe)


def test_pace_counts_batches_and_steps(synthetic_dataroot: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=7, accumulate=2)  # 28 steps of two batches
    run("teacher", synthetic_dataroot, tmp_path, recipe, save_every=100)
    lines = [json.loads(x) for x in (tmp_path / "log/scalars.jsonl").read_text().splitlines()]
    paces = [line for line in lines if "pace/step_s" in line]
    assert len(paces) == 2
    for line in paces:
        # two samples a step
        assert line["pace/samples_s"] * line["pace/step_s"] == pytest.approx(2.0, rel=1e-5)
        assert 0 <= line["pace/wait_share"] < 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_order_that_is_taken_up_goes_on(accumulate: int) -> None:
    def epochs(order: EpochOrder, first: int) -> list[tuple[int, int]]:
        pairs = []
        for epoch in range(first, 3):
            order.set_epoch(epoch)
            pairs += list(order)
        return pairs

    whole = epochs(EpochOrder(range(17), 2, seed=5), 0)
    each = -(-8 // accumulate)
    for step in range(3 * each):
        later = EpochOrder(range(17), 2, seed=5)
        later.start_at(step, accumulate)
        epoch, done = divmod(step, each)
        assert epochs(later, epoch) == whole[epoch * 16 + done * accumulate * 2 :]


def test_processes_share_an_epoch() -> None:
    parts = [list(EpochOrder(range(11), 2, 0, rank, 2)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 4
    assert len({pair[0] for part in parts for pair in part}) == 8


def test_classes_are_drawn_equally_often() -> None:
    classes = [frozenset({"car"})] * 90 + [frozenset({"car", "bus"})] * 10 + [frozenset()] * 5
    drawn = class_balanced(classes, seed=0)
    # 110 holders in all: half of the draws for each class, where every bus comes with a car
    assert len(drawn) == 110
    assert sum("bus" in classes[i] for i in drawn) == pytest.approx(55 + 5.5, abs=12)
    assert all(classes[i] for i in drawn)
    assert drawn == class_balanced(classes, seed=0)
    assert drawn != class_balanced(classes, seed=1)


def averaged(average: MovingAverage, trainer: Any, module: LightningModule) -> dict[str, Tensor]:
    """The weights that a checkpoint would hold."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    average.on_save_checkpoint(trainer, module, checkpoint)
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    return weights


def test_the_average_lives_on_the_device_of_the_network() -> None:
    average = MovingAverage(decay=0.9)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    stage = TeacherStage(small_teacher(), RECIPE)
    average.setup(trainer, stage, "fit")
    assert {t.device.type for t in averaged(average, trainer, stage).values()} == {"meta"}


def test_fewer_scored_samples_than_processes(synthetic_dataroot: Path, tmp_path: Path) -> None:
    stage, data, collate = made("teacher", synthetic_dataroot, RECIPE)
    with pytest.raises(ConfigError, match="0 samples to score for 1 processes"):
        fit(stage, data, collate, tmp_path, {}, Machine(), torch.utils.data.Subset(data, []))  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "reach"), [(100, 15), (2000, 110)])
def test_the_average_of_a_short_run_has_forgotten_its_beginning(steps: int, reach: int) -> None:
    module = LightningModule()
    module.weight = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage(decay=0.99)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"), global_step=0)
    average.setup(trainer, module, "fit")
    for trainer.global_step in range(1, steps + 1):
        module.weight.data.fill_(trainer.global_step)
        average.on_train_batch_end(trainer, module, None, None, 0)
    assert steps - reach < averaged(average, trainer, module)["weight"].item() < steps - 5


def test_a_gpu_is_fed_by_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    for cuda, devices, loaders in ((False, 1, 1), (True, 1, 8), (True, 4, 3), (True, 16, 1)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert Machine(devices=devices).loaders == loaders
        assert Machine(devices=devices, workers=0).loaders == 0


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("boxes", [True, False])
def test_every_loss_reaches_every_parameter(
    synthetic_dataroot: Path, kind: str, boxes: bool
) -> None:
    """Processes that train together wait for each gradient of each batch."""
    stage, data, collate = made(kind, synthetic_dataroot, RECIPE)
    sample = collate([data[0]])
    if not boxes:
        sample = replace(sample, boxes=tuple(found[:0] for found in sample.boxes))
    torch.stack(list(stage.losses(sample).values())).sum().backward()
    without = [name for name, parameter, _ in stage.parameter_rates() if parameter.grad is None]
    assert not without
