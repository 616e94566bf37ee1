# SPDX-License-Identifier: Apache-2.0
"""Many scenes: in parallel, cut off, repeated, on a full disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, DataError
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.scenes import convert_scenes
from labeldistill_ros.bags.storage import Sqlite3File
from labeldistill_ros.bags.truth import read_samples
from labeldistill_ros.bags.writer import Storage
from labeldistill_ros.cli import main
from tests.support.full_disk import files_no_larger_than
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.mark.long
def test_all_scenes_in_parallel_and_again(
    shared_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gar nicht übel" / "Fahrten"  # spaces and letters beyond ASCII
    words = ["bag", "from-nuscenes", str(shared_dataroot), str(out), "--version", VERSION]
    command = [sys.executable, "-m", "labeldistill_ros.cli", *words, "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in SCENES:
        with BagReader(out / name) as reader:
            assert {sample.scene for sample in read_samples(reader)} == {name}
        assert f"{out / name}: 3 samples, 30 images, 3 clouds" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == list(SCENES)

    before = (out / SCENES[0] / f"{SCENES[0]}.mcap").stat().st_mtime_ns
    (out / SCENES[1] / "metadata.yaml").write_text("half")
    assert main([*words, "--workers", "1"]) == 2
    told = capsys.readouterr().err
    assert f"{SCENES[1]} is there already and is no bag of {SCENES[1]}" in told
    assert main([*words, "--workers", "1", "--no-sweeps"])
    (out / SCENES[1] / "metadata.yaml").unlink()
    (out / SCENES[1] / f"{SCENES[1]}.mcap").unlink()
    (out / SCENES[1]).rmdir()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert f"{out / SCENES[0]}: was complete already" in again.stdout
    assert (out / SCENES[0] / f"{SCENES[0]}.mcap").stat().st_mtime_ns == before


def test_killed_in_the_middle(shared_dataroot: Path, tmp_path: Path) -> None:
    """The bag that was complete stays; the litter of the other goes with the next run."""
    out = tmp_path / "bags"
    code = (
        "import os, signal\n"
        "import labeldistill_ros.bags.convert as convert\n"
        "from labeldistill_ros.cli import main\n"
        "real = convert.truth_markers\n"
        "def deadly(boxes, names, stamp_ns, **family):\n"
        "    if stamp_ns > 1_600_000_050_000_000_000:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(boxes, names, stamp_ns, **family)\n"
        "convert.truth_markers = deadly\n"
        f"main(['bag', 'from-nuscenes', {str(shared_dataroot)!r}, {str(out)!r},"
        f" '--version', {VERSION!r}, '--workers', '1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    names = sorted(path.name for path in out.iterdir())
    assert names[0].startswith(f".{SCENES[1]}.partial-")
    assert names[1:] == [SCENES[0]]
    with BagReader(out / SCENES[0]) as reader:
        assert len(read_samples(reader)) == 3
    command = ["bag", "from-nuscenes", str(shared_dataroot), str(out), "--version", VERSION]
    assert main([*command, "--workers", "1"]) == 0
    assert sorted(path.name for path in out.iterdir()) == list(SCENES)


def test_a_scene_that_fails_does_not_end_the_others(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    for record in tables.sensor_data(SCENES[0], modality="camera"):
        record.path.unlink()
    command = ["bag", "from-nuscenes", str(dataroot), str(tmp_path / "o"), "--version", VERSION]
    assert main([*command, "--workers", "1"]) == 2
    told = capsys.readouterr()
    assert "none of its 3 samples has all its images" in told.err
    assert "1 of 2 scenes failed" in told.err
    assert f"{SCENES[1]}: 3 samples" in told.out


def test_two_scenes_with_one_name(dataroot: Path, tmp_path: Path) -> None:
    path = dataroot / VERSION / "scene.json"
    scenes = json.loads(path.read_text())
    scenes[1]["name"] = SCENES[0]
    path.write_text(json.dumps(scenes))
    tables = NuScenesTables(dataroot, VERSION)
    with pytest.raises(DataError, match=f"more than one scene {SCENES[0]}"):
        tables.about(SCENES[0])
    with pytest.raises(DataError, match="more than one scene"):
        list(convert_scenes(tables, [SCENES[0]], tmp_path / "o", ConversionOptions()))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("storage", "reason"), [("mcap", "File too large"), ("sqlite3", "disk I/O error")]
)
def test_a_full_disk(
    dataroot: Path,
    tmp_path: Path,
    storage: Storage,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Writing fails in the same place."""
    out = tmp_path / "bags"
    command = ["bag", "from-nuscenes", str(dataroot), str(out / "x"), "--version", VERSION]
    command += ["--scene", SCENES[0], "--storage", storage]
    with files_no_larger_than(60_000):
        assert main(command) == 2
    told = capsys.readouterr().err
    assert f"cannot write {out / 'x'}: {reason}; nothing is left of it" in told
    assert not list(out.iterdir())

    tables, options = NuScenesTables(dataroot, VERSION), ConversionOptions(storage=storage)
    convert_scene(tables, SCENES[0], out / "x", options)
    before = {file.name: file.read_bytes() for file in (out / "x").iterdir()}
    with files_no_larger_than(60_000):
        assert main([*command, "--force"]) == 2
    assert "what was there before is untouched" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in (out / "x").iterdir()} == before
    assert [folder.name for folder in out.iterdir()] == ["x"]


def test_sqlite_finds_the_disk_full(
    shared_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the pages of a file stands for it; SQLite reports both as the same error."""
    make, limits = Sqlite3File.__init__, iter((1_000_000, 20, 1_000_000))

    def limited(file: Sqlite3File, folder: Path) -> None:
        make(file, folder)
        file.conn.execute(f"PRAGMA max_page_count = {next(limits)}")

    monkeypatch.setattr(Sqlite3File, "__init__", limited)
    tables, options = NuScenesTables(shared_dataroot, VERSION), ConversionOptions(storage="sqlite3")
    first, second = convert_scenes(tables, SCENES, tmp_path / "o", options, workers=1)
    assert first.done
    assert second.error.startswith(
        f"cannot write {tmp_path / 'o' / SCENES[1]}: database or disk is full; nothing is left"
    )
    assert [folder.name for folder in (tmp_path / "o").iterdir()] == [SCENES[0]]

    first, second = convert_scenes(tables, SCENES, tmp_path / "o", options, workers=1)
    assert first.done is None  # kept
    assert second.done
    for name in SCENES:
        with BagReader(tmp_path / "o" / name) as reader:
            assert len(read_samples(reader)) == 3


def test_names_that_are_no_uri(shared_dataroot: Path, tmp_path: Path) -> None:
    tables, sqlite3 = NuScenesTables(shared_dataroot, VERSION), ConversionOptions(storage="sqlite3")
    for name in ("run #3", "50%25", "which?mode=memory"):
        with pytest.raises(BagError, match="no #, % or .* may be in it; choose another name"):
            convert_scene(tables, SCENES[0], tmp_path / name, sqlite3)
        assert not list(tmp_path.iterdir())
    convert_scene(tables, SCENES[0], tmp_path / "run #3")
    with BagReader(tmp_path / "run #3") as reader:
        assert len(read_samples(reader)) == 3


def test_a_living_process_keeps_its_partial_bag(shared_dataroot: Path, tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        alive = tmp_path / f".bag.partial-{sleeper.pid}"
        dead = tmp_path / ".bag.partial-999999999"
        alive.mkdir()
        dead.mkdir()
        convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], tmp_path / "bag")
        assert alive.is_dir()
        assert not dead.exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_folder_that_cannot_be_made(shared_dataroot: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tables = NuScenesTables(shared_dataroot, VERSION)
    with pytest.raises(BagError, match="cannot write .*file/bag: (Not a directory|File exists)"):
        convert_scene(tables, SCENES[0], tmp_path / "file" / "bag")
    assert os.listdir(tmp_path) == ["file"]
