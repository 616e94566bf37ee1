# SPDX-License-Identifier: Apache-2.0
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.checkpoints import save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.cli import main
from labeldistill_ros.robustness import degradation
from labeldistill_ros.robustness.page import BEGIN, END, markdown, write_page
from tests.support.small_networks import small

CHOSEN = (
    "none", "CAM_BACK off", "any camera off, skip", "20% of images lost, mask",
    "stamps jitter by 5 ms", "calibration off by 1 degrees", "half the rate",
)  # fmt: skip


def test_conditions_are_scored(
    synthetic_dataroot: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = tuple(c for c in degradation.conditions(CAMERAS) if c.name in CHOSEN)
    monkeypatch.setattr(degradation, "conditions", lambda _: chosen)
    file, page, plot = (tmp_path / name for name in ("rows.json", "page.md", "plot.svg"))
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command = ["robustness", str(synthetic_dataroot), "--model", str(tiny_model)]
    command += ["--version", "v1.0-mini", "--split", "all", "--scenes", "1", "--device", "cpu"]
    command += ["--json", str(file), "--page", str(page), "--plot", str(plot)]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(f"\nwrote {file}, {page}, {plot}\n")
    figures = json.loads(file.read_text())
    assert figures["scenes"] == 1
    rows = {row["fault"]: row for row in figures["rows"]}
    assert tuple(rows) == CHOSEN
    assert {row["samples"] for row in rows.values()} == {4}
    assert rows["none"]["sets"] == 4
    assert rows["CAM_BACK off"]["sets"] == 4  # without the camera
    assert rows["any camera off, skip"]["sets"] == 0
    assert rows["half the rate"]["sets"] == 2
    text = page.read_text()
    assert "old" not in text
    assert "| half the rate |" in text
    assert plot.read_text().startswith("<?xml")


def test_a_vehicle_of_one_camera(synthetic_dataroot: Path, tmp_path: Path) -> None:
    model = tmp_path / "one.safetensors"
    save_student(model, Student(replace(small(), cameras=("CAM_FRONT",))))
    detector, tables = Detector.load(model), NuScenesTables(synthetic_dataroot)
    found = {
        condition.name: degradation.degradation(
            replace(condition, every=4), tables, tables.scene_names, detector
        )
        for condition in degradation.conditions(("CAM_FRONT",))
        if condition.name in (*CHOSEN, "CAM_FRONT off")
    }
    # One image a scene, which has the only pose that is known there.
    assert found["none"].sets == found["stamps jitter by 5 ms"].sets == 2
    assert found["CAM_FRONT off"].sets == 0


def test_a_vehicle_of_few_cameras_detects_without_one(
    synthetic_dataroot: Path, tmp_path: Path
) -> None:
    cameras = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT")
    model = tmp_path / "three.safetensors"
    save_student(model, Student(replace(small(), cameras=cameras)))
    detector, tables = Detector.load(model), NuScenesTables(synthetic_dataroot)
    found = {
        condition.name: degradation.degradation(condition, tables, tables.scene_names, detector)
        for condition in degradation.conditions(cameras)
        if condition.name in ("CAM_BACK off", "any camera off, skip")
    }
    assert found["CAM_BACK off"].sets == found["CAM_BACK off"].samples > 0
    assert found["any camera off, skip"].sets == 0


def test_finished_rows_are_kept(
    synthetic_dataroot: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[degradation.Degradation]:
        yield degradation.Degradation("none", 0.4, 0.5, 4, 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(degradation, "robustness", interrupted)
    file = tmp_path / "rows.json"
    command = ["robustness", str(synthetic_dataroot), "--model", str(tiny_model), "--split", "all"]
    assert main([*command, "--json", str(file)]) == 130
    figures = json.loads(file.read_text())
    assert [row["fault"] for row in figures["rows"]] == ["none"]
    assert figures["model"]["name"] == tiny_model.name
    assert len(figures["model"]["sha256"]) == 64
    assert {"command", "commit", "machine", "device"} < set(figures)


def test_what_could_not_be_written_is_told_before(
    synthetic_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(degradation, "robustness", None)  # so that nothing is worked out
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\nmy notes\n")
    command = ["robustness", str(synthetic_dataroot)]
    assert main([*command, "--page", str(page)]) == 2
    assert "add that where the table ends" in capsys.readouterr().err
    assert "my notes" in page.read_text()
    for option in ("--json", "--plot", "--page"):
        assert main([*command, option, str(tmp_path)]) == 2
    same = str(tmp_path / "same")
    assert main([*command, "--json", same, "--page", same]) == 2
    assert "are different files" in capsys.readouterr().err
    assert main([*command, "--scenes", "-1"]) == 2
    assert "--scenes must be 0 or more" in capsys.readouterr().err


def test_a_page_may_be_new(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.md"
    rows = [degradation.Degradation("none", 0.4, 0.5, 4, 4)]
    write_page(page, rows)
    first = page.read_text()
    assert "| none | 0.400 | 0.500 | +0% | 4 / 4 |" in first
    write_page(page, rows)
    assert page.read_text() == first
    page.write_text("a last line without an end")
    write_page(page, rows)
    assert page.read_text().startswith(f"a last line without an end\n{BEGIN}\n")


def test_a_change_of_nothing_has_no_share() -> None:
    rows = [degradation.Degradation(f"{m}", m, 0.0, 4, 4) for m in (0.0, 0.2, math.nan)]
    assert [line.split(" | ")[3] for line in markdown(rows).splitlines()[2:]] == ["–"] * 3
    assert "| – |" in markdown([replace(rows[0], mean_ap=0.4), rows[2]])
