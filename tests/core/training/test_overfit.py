# SPDX-License-Identifier: Apache-2.0
"""Training on a handful of samples, as the first thing to try on a new data set."""

import shutil
from pathlib import Path

import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.runtime import Detector
from labeldistill_ros.cli import main
from tests.support.small_networks import small


def test_overfit_says_whether_it_reached_its_target(
    synthetic_dataroot: Path, tmp_path: Path, small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = [
        "overfit", str(synthetic_dataroot), str(tmp_path), "--preset", "small", "--samples", "1",
        "--steps", "3",
    ]  # fmt: skip
    assert main(command) == 1
    assert "mAP over the classes that are there: 0." in capsys.readouterr().out
    assert main([*command, "--target", "0"]) == 0
    assert Detector.load(tmp_path / "student.safetensors").config == small()
    assert main([*command, "--samples", "0"]) == 2
    assert "has images" in capsys.readouterr().err


def test_overfit_takes_no_step_of_a_single_image(
    synthetic_dataroot: Path, tmp_path: Path, small_in_presets: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    root = tmp_path / "data"
    shutil.copytree(synthetic_dataroot, root)
    tables = NuScenesTables(root)
    first, second = tables.scene_names
    # Five samples are left, which are four and one.
    for token in tables.samples(second)[1:]:
        tables.cameras(token)["CAM_FRONT"].path.unlink()
    command = ["overfit", str(root), str(tmp_path / "out"), "--preset", "small", "--steps", "2"]
    command += ["--target", "0", "--student.cameras", "CAM_FRONT"]
    assert main([*command, "--samples", "1", "--scenes", first]) == 2
    assert "take two samples at least" in capsys.readouterr().err
    assert main([*command, "--samples", "4"]) == 0
    train = ["train", "student", str(root), str(tmp_path / "run"), "--preset", "small"]
    train += ["--partial", "--batch-size", "1", "--student.cameras", "CAM_FRONT"]
    assert main(train) == 2
    assert "take two samples at least" in capsys.readouterr().err
