# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parity.__main__ import main
from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import StageResult, absolute, features, integers
from labeldistill_core.errors import CheckpointError


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Path:
    folder = shared_data / "golden" / "A"
    if not folder.is_dir():
        pytest.skip("needs a recording of the published code")
    return folder


@pytest.fixture
def copy(golden: Path, tmp_path: Path) -> Path:
    """The recording, to be disturbed: files that are written to replace their links."""
    for file in golden.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def disturb(
    folder: Path,
    name: str,
    array: str,
    change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
) -> None:
    path = folder / f"{name}.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[array] = change(arrays[array])
    path.unlink()
    np.savez(path, **arrays)


def test_all_stages_pass(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "parity.json"
    assert main([str(golden), "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert " 0 failed" in printed
    content = json.loads(report.read_text())
    assert content["passed"] is True
    stages = {stage["stage"]: stage for stage in content["stages"]}
    assert len(stages) == len(content["stages"])
    for name in (
        "preprocessing/training_images",
        "student/image_neck",
        "student/geometry/cells_frame0",
        "student/bev_frame2",
        "student/head/task5_heatmap",
        "student/boxes/1",
        "training/losses/detection",
        "training/gradients/norms",
        "training/published/total",
        "training/targets/grid128/task0_heatmap",
        "training/label_raster/grid128/box",
        "training/odd_boxes/edge_nan/response",
        "label_encoder/level1",
        "label_encoder/head/loss",
        "teacher/boxes/1",
    ):
        assert stages[name]["passed"] is True
        assert stages[name]["max_abs"] is not None
    groups = {name.partition("/")[0] for name in stages}
    assert groups == {"preprocessing", "student", "training", "label_encoder", "teacher"}


def test_a_disturbed_recording_fails_in_its_stages_alone(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disturb(copy, "student_eval", "bev/frame1", lambda x: x + 0.01 * x.std())
    disturb(copy, "targets", "dataset/ind/task0", lambda x: x + (x > 0))
    report = copy / "report.json"
    assert main([str(copy), "--json", str(report)]) == 1
    content = json.loads(report.read_text())
    assert content["passed"] is False
    failed = [stage["stage"] for stage in content["stages"] if stage["passed"] is False]
    of_targets = [
        name for name in failed if name.startswith("training/targets/dataset/task0_cells")
    ]
    assert of_targets
    # the adaptor of level 0 is fed with the recorded frame
    others = {"student/bev_frame1", "training/adaptors/lidar_level0"}
    assert set(failed) == others.union(of_targets)
    assert f"{len(failed)} failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is no golden folder: config.json"),
        ("config.json", b"{}", "is no golden folder: config.json: 'params'"),
        ("dataset.npz", None, "lacks dataset.npz"),
        ("dataset.npz", b"PK nonsense", "dataset.npz is truncated or no archive"),
    ],
)
def test_a_folder_that_is_damaged(
    copy: Path, name: str, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    assert main([str(copy)]) == 2
    assert message in capsys.readouterr().err


def test_weights_that_are_damaged(copy: Path) -> None:
    (copy / "state_dict.safetensors").unlink()
    (copy / "state_dict.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="state_dict.safetensors is truncated"):
        _ = GoldenFolder(copy).weights


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "absent is no golden folder" in capsys.readouterr().err


def test_tolerance_of_features() -> None:
    theirs = np.array([1.0, 100.0, 0.0])
    assert features("s", theirs * (1 + 5e-5), theirs).passed
    assert not features("s", theirs * (1 + 5e-4), theirs).passed
    assert features("s", theirs + [0, 0, 1e-3], theirs).passed  # a small share of the spread
    assert not features("s", theirs + [0, 0, 0.1], theirs).passed
    result = features("s", theirs + [0, 1.0, 0], theirs)
    assert (result.max_abs, result.max_rel) == pytest.approx((1.0, 0.01))


def test_tolerance_of_integers() -> None:
    theirs = np.zeros(10_000)
    ours = theirs.copy()
    ours[:2] = 5
    assert integers("s", ours, theirs).passed
    ours[:3] = 5
    result = integers("s", ours, theirs)
    assert not result.passed
    assert result.note == "3 of 10000 differ"


@pytest.mark.parametrize("compare", [features, integers, partial(absolute, tolerance=1e9)])
def test_other_shapes_never_pass(compare: Callable[..., StageResult]) -> None:
    assert compare("s", np.zeros((3, 2)), np.zeros((2, 3))).passed is False
    assert compare("s", np.zeros((4, 11)), np.zeros((0, 11))).passed is False
    assert compare("s", np.zeros((0, 11)), np.zeros((0, 11))).passed is True


def test_what_is_not_finite_never_passes() -> None:
    theirs = np.ones(3)
    assert features("s", [1.0, np.nan, 1.0], theirs).passed is False
    assert features("s", [1.0, np.inf, 1.0], theirs).passed is False
    assert absolute("s", [1.0, np.nan, 1.0], theirs, 1e9).passed is False


def test_lines() -> None:
    assert features("a/b", [1.0], [1.0]).line().startswith("ok       a/b")
    assert features("a/b", [2.0], [1.0]).line().startswith("FAILED   a/b")
