# SPDX-License-Identifier: Apache-2.0
"""Students whose samples look the same in every epoch share what their teacher said of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from labeldistill_core import presets
from labeldistill_core.checkpoints import save_network
from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.training.fit import Machine
from labeldistill_core.training.options import StudentOptions
from labeldistill_core.training.train import train_student
from tests.support.small_networks import small_preset, small_teacher

STILL = AugmentationConfig(bev_rotation_deg=(0.0, 0.0), bev_scale=(1.0, 1.0), bev_flip=False)


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clouds each call of a teacher had."""
    calls: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, points: list[Tensor]) -> object:
        calls.append(len(points))
        return forward(self, points)

    monkeypatch.setattr(Teacher, "forward", counted)
    return calls


@pytest.mark.parametrize("still", [True, False])
def test_the_teacher_runs_once_a_sample_in_all_runs(
    synthetic_dataroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clouds: list[int],
    still: bool,
) -> None:
    preset = small_preset()
    augmentation = STILL if still else replace(STILL, bev_flip=True)
    recipes = preset.recipes.with_settings(augmentation=augmentation, class_balanced=False)
    monkeypatch.setitem(presets.PRESETS, "small", replace(preset, recipes=recipes))
    teacher = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    save_network(teacher, "teacher", Teacher(small_teacher()), small_teacher(), "random")

    def trained(name: str, machine: Machine) -> dict[str, Tensor]:
        options = StudentOptions(
            version="v1.0-mini", preset="small", split="train", epochs=2, batch_size=2,
            teacher=teacher, machine=machine,
        )  # fmt: skip
        assert train_student(synthetic_dataroot, tmp_path / name, options)
        return load_file(tmp_path / name / "student.safetensors")

    on_disk = Machine(precision="32-true", workers=0, teacher_cache=tmp_path / "cache")
    first = trained("first", on_disk)
    seen = sum(clouds)
    again = trained("again", on_disk)
    files = list(tmp_path.glob("cache/*.outputs"))
    if not still:
        assert sum(clouds) == 2 * seen
        assert not files
        return
    assert sum(clouds) == seen
    (file,) = files
    clouds.clear()
    without = trained(
        "without", replace(on_disk, teacher_cache_gib=0.0, teacher_cache=tmp_path / "n")
    )
    assert sum(clouds) == 2 * seen
    assert file.stat().st_size > 0
    for other in (again, without):
        assert all(torch.equal(first[name], other[name]) for name in first)
