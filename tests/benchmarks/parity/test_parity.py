# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.parity.__main__ import main
from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import (
    StageComparison,
    absolute,
    features,
    float64,
    gradient,
    integers,
    pixels,
)
from labeldistill_core.errors import CheckpointError

Array = NDArray[np.floating[Any]]


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


@pytest.mark.long
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


@pytest.mark.long
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
    assert features("s", theirs * (1 + 5e-5), theirs).judge().passed
    assert not features("s", theirs * (1 + 5e-4), theirs).judge().passed
    assert (
        features("s", theirs + [0, 0, 1e-3], theirs).judge().passed
    )  # a small share of the spread
    assert not features("s", theirs + [0, 0, 0.1], theirs).judge().passed
    result = features("s", theirs + [0, 1.0, 0], theirs).judge()
    assert (result.max_abs, result.max_rel) == pytest.approx((1.0, 0.01))


def test_tolerance_of_integers() -> None:
    theirs = np.zeros(10_000)
    ours = theirs.copy()
    ours[:2] = 5
    assert integers("s", ours, theirs).judge().passed
    ours[:3] = 5
    result = integers("s", ours, theirs).judge()
    assert not result.passed
    assert result.note == "3 of 10000 differ"


@pytest.mark.parametrize("compare", [features, integers, partial(absolute, tolerance=1e9)])
def test_other_shapes_never_pass(compare: Callable[..., StageComparison]) -> None:
    assert compare("s", np.zeros((3, 2)), np.zeros((2, 3))).judge().passed is False
    assert compare("s", np.zeros((4, 11)), np.zeros((0, 11))).judge().passed is False
    assert compare("s", np.zeros((0, 11)), np.zeros((0, 11))).judge().passed is True


def test_what_is_not_finite_never_passes() -> None:
    theirs = np.ones(3)
    assert features("s", [1.0, np.nan, 1.0], theirs).judge().passed is False
    assert features("s", [1.0, np.inf, 1.0], theirs).judge().passed is False
    assert absolute("s", [1.0, np.nan, 1.0], theirs, 1e9).judge().passed is False


def test_lines() -> None:
    assert features("a/b", [1.0], [1.0]).judge().line().startswith("ok       a/b")
    assert features("a/b", [2.0], [1.0]).judge().line().startswith("FAILED   a/b")


@pytest.fixture
def rounded() -> tuple[Array, Array, Array]:
    """A long product in float32 in two orders of its terms, and in float64."""
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=(64, 20_000)), generator.normal(size=(20_000, 64))
    order = generator.permutation(20_000)
    narrow, wide = one.astype(np.float32), two.astype(np.float32)
    ours, theirs = narrow @ wide, narrow[:, order] @ wide[order]
    return ours, theirs, narrow.astype(np.float64) @ wide.astype(np.float64)


def test_another_order_of_float32_sums_passes_where_rounding_is_known(
    rounded: tuple[Array, Array, Array],
) -> None:
    ours, theirs, exact = rounded
    assert features("s", ours, theirs).judge(exact).passed
    # as large as rounding, beyond what is allowed where nothing rounds
    spread, rounding = exact.std(), 2e-3 * exact.std()
    moved, recorded = exact + rounding, exact - rounding
    assert not features("s", moved, recorded).judge().passed
    assert not features("s", moved, recorded).judge(moved).passed
    assert features("s", moved, recorded).judge(exact).passed
    assert not features("s", moved, moved + 0.01 * spread).judge(exact).passed


def test_a_fault_of_a_per_cent_of_the_spread_fails_whatever_rounds(
    rounded: tuple[Array, Array, Array],
) -> None:
    ours, _, exact = rounded
    spread = exact.std()
    for rounding in (0.0, 1e-6, 1e-4, 5e-3, 9e-3, 0.5):
        faulty = ours.copy()
        at = np.abs(ours).argmin()  # where no share of the value is allowed
        faulty.flat[at] += 0.01 * spread
        assert not features("s", faulty, ours).judge(faulty + rounding * spread).passed


def test_a_decision_that_falls_otherwise_in_float64_allows_nothing() -> None:
    theirs = np.eye(8)
    exact = np.roll(theirs, 1, axis=0)
    assert features("s", theirs, theirs).judge(exact).passed
    assert not features("s", theirs + 1e-3, theirs).judge(exact).passed


def test_gradients_follow_the_largest_of_what_rounding_moves() -> None:
    ours = torch.tensor([1.0, -1.0])
    runs = [ours, ours + 1e-3, ours - 2e-3]
    assert gradient("s", runs, (ours + 7e-3).numpy()).judge(ours.numpy()).passed
    assert not gradient("s", runs, (ours + 9e-3).numpy()).judge(ours.numpy()).passed
    assert gradient("s", runs, (ours + 9e-3).numpy()).judge(ours.numpy() + 3e-3).passed


def test_networks_compute_in_float64_where_they_ask_for_float32() -> None:
    with float64():
        layer = torch.nn.Linear(2, 2)
        out = layer(torch.ones(1, 2)).float()
        assert out.dtype == torch.float64
        assert torch.zeros_like(out, dtype=torch.float32).dtype == torch.float64
    assert torch.ones(1).float().dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_an_image_may_be_two_levels_off_in_a_few_values_only() -> None:
    theirs = np.zeros(100_000)
    off = theirs.copy()
    off[:] = 1.0
    assert pixels("s", off, theirs, 1.0).judge().passed
    off[:2] = 2.0
    judged = pixels("s", off, theirs, 1.0).judge()
    assert judged.passed
    assert judged.note == "2 of 100000 are two grey levels apart"
    off[2] = 2.0
    assert not pixels("s", off, theirs, 1.0).judge().passed
    off[1:] = 0.0
    off[0] = 3.0
    assert not pixels("s", off, theirs, 1.0).judge().passed
