# SPDX-License-Identifier: Apache-2.0
"""The index of tables: made once, shared, made anew where anything about it is not right."""

import errno
import json
import logging
import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from labeldistill_core.checked_header import packed_header, read_header
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.tables import build, opening, store
from labeldistill_core.data.tables.opening import INDEX_NAME
from labeldistill_core.errors import DataError
from tests.support.full_disk import files_no_larger_than
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.odd_places import ODD, put_there


@pytest.fixture(autouse=True)
def indexed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An index of the smallest tables too, and a cache of this test's own."""
    monkeypatch.setattr(opening, "SMALL_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose tables were parsed."""
    done: list[Path] = []

    def counted(folder: Path) -> Any:
        done.append(folder)
        return build.build_columns(folder)

    monkeypatch.setattr(opening, "build_columns", counted)
    return done


def opened(root: Path) -> NuScenesTables:
    """The tables, whose answers are those of their JSON."""
    tables = NuScenesTables(root, VERSION)
    rows = json.loads((root / VERSION / "sample.json").read_text())
    samples = {row["token"]: row["timestamp"] * 1000 for row in rows}
    assert {t: tables.stamp_ns(t) for s in SCENES for t in tables.samples(s)} == samples
    boxes = json.loads((root / VERSION / "sample_annotation.json").read_text())
    for token in samples:
        truth = tables.ground_truth(token)
        wanted = {b["token"]: b for b in boxes if b["sample_token"] == token}
        assert set(truth.tokens) <= set(wanted)
        for center, box in zip(truth.boxes.centers.tolist(), truth.tokens, strict=True):
            assert center == wanted[box]["translation"]
        assert {record.sample_token for record in tables.sensors(token).values()} == {token}
    return tables


def is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap | memoryview)


def test_the_second_opening_maps_what_the_first_made(dataroot: Path, builds: list[Path]) -> None:
    first, second = (opening.open_columns(dataroot / VERSION) for _ in range(2))
    assert len(builds) == 1
    assert is_mapped(first.data.pose)
    assert is_mapped(second.data.pose)
    left = [path.name for path in (dataroot / VERSION).iterdir() if path.suffix != ".json"]
    assert sorted(left) == [INDEX_NAME, INDEX_NAME + ".lock"]
    tables = opened(dataroot)
    again = pickle.loads(pickle.dumps(tables))
    assert again.samples(SCENES[0]) == tables.samples(SCENES[0])
    assert len(builds) == 1


def test_small_tables_have_no_index(
    dataroot: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    opened(dataroot)
    assert not (dataroot / VERSION / INDEX_NAME).exists()


def test_faults_are_told_at_each_opening(
    dataroot: Path, builds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = dataroot / VERSION / "ego_pose.json"
    poses = json.loads(path.read_text())
    poses[0]["rotation"] = [2, 0, 0, 0]
    path.write_text(json.dumps(poses))
    for _ in range(2):
        caplog.clear()
        tables = NuScenesTables(dataroot, VERSION)
        assert "1 of 2 scenes cannot be used" in caplog.text
        with pytest.raises(DataError, match=r"ego_pose\.json.*`rotation`"):
            tables.samples(SCENES[0])
    # where the tables are now, not where they were when the index was made
    moved = dataroot.rename(tmp_path / "elsewhere")
    caplog.clear()
    with pytest.raises(DataError, match="elsewhere") as raised:
        NuScenesTables(moved, VERSION).samples(SCENES[0])
    assert str(moved / VERSION) in caplog.text
    assert str(dataroot) not in caplog.text + str(raised.value)
    assert len(builds) == 1


def move_boxes(root: Path) -> None:
    """Another table of the same size."""
    path = root / VERSION / "sample_annotation.json"
    text = path.read_text()
    path.write_text(text.replace('"num_lidar_pts": 40', '"num_lidar_pts": 41'))


def test_a_table_that_changes(dataroot: Path, builds: list[Path]) -> None:
    old = opened(dataroot)
    path = dataroot / VERSION / "sample_annotation.json"
    before = path.stat()
    move_boxes(dataroot)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    new = opened(dataroot)
    assert len(builds) == 2
    assert 41 in new.ground_truth("sample-0-0").num_lidar_pts
    assert 41 not in old.ground_truth("sample-0-0").num_lidar_pts


def test_a_table_that_loses_rows(dataroot: Path) -> None:
    opened(dataroot)
    for name, told in [
        ("ego_pose", r"ego_pose\.json"),
        ("sample_data", r"sample_data\.json"),
        ("sample_annotation", r"sample_annotation\.json"),
        ("sample", r"sample\.json"),
        ("calibrated_sensor", r"calibrated_sensor\.json"),
        ("instance", r"instance\.json"),
    ]:
        path = dataroot / VERSION / f"{name}.json"
        whole = path.read_text()
        path.write_text(json.dumps(json.loads(whole)[:2]))
        with pytest.raises(DataError, match=told):
            NuScenesTables(dataroot, VERSION)
        path.write_text(whole)
        opened(dataroot)


def test_a_table_that_goes_and_comes(dataroot: Path, builds: list[Path]) -> None:
    opened(dataroot)
    path = dataroot / VERSION / "visibility.json"
    text = path.read_text()
    path.unlink()
    assert set(opened(dataroot).ground_truth("sample-0-0").visibility) == {""}
    path.write_text(text)
    assert "v80-100" in opened(dataroot).ground_truth("sample-0-0").visibility


@pytest.mark.parametrize("name", ["sample_data", "scene"])
def test_a_table_that_changes_while_it_is_read(
    dataroot: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, times = dataroot / VERSION / f"{name}.json", 1
    whole = build.build_columns

    def disturbed(folder: Path) -> Any:
        nonlocal times
        columns = whole(folder)
        if times:
            times -= 1
            path.write_text(path.read_text() + " ")
        return columns

    monkeypatch.setattr(opening, "build_columns", disturbed)
    opened(dataroot)
    times = 100
    path.write_text(path.read_text() + " ")
    with pytest.raises(DataError, match="change while they are read"):
        NuScenesTables(dataroot, VERSION)


def damaged(index: Path, how: str) -> None:
    data = bytearray(index.read_bytes())
    if how == "empty":
        data.clear()
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "longer":
        data += b"\0" * 100
    elif how == "without its end":
        data[-2000:] = b"\0" * 2000
    elif how == "header":
        data[40] ^= 1
    elif how == "another file":
        data[:] = b"PK" * 1000
    index.write_bytes(data)


@pytest.mark.parametrize(
    "how", ["empty", "cut", "longer", "without its end", "header", "another file"]
)
def test_a_damaged_index_is_made_anew(dataroot: Path, builds: list[Path], how: str) -> None:
    opened(dataroot)
    damaged(dataroot / VERSION / INDEX_NAME, how)
    opened(dataroot)
    opened(dataroot)
    assert len(builds) == 2


@pytest.mark.parametrize("name", [INDEX_NAME, INDEX_NAME + ".lock"])
@pytest.mark.parametrize("what", ODD)
def test_something_else_in_its_place_costs_only_time(
    dataroot: Path, builds: list[Path], name: str, what: str
) -> None:
    put_there(dataroot / VERSION / name, what)
    opened(dataroot)
    opened(dataroot)
    assert len(builds) == 1  # in the cache, if not there


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "O"},
        {"dtype": "no such"},
        {"shape": [-1]},
        {"shape": [2**62, 4]},
        {"offset": -64},
    ],
    ids=str,
)
def test_a_header_of_others_that_tells_of_no_arrays(
    dataroot: Path, builds: list[Path], change: dict[str, Any]
) -> None:
    opened(dataroot)
    index = dataroot / VERSION / INDEX_NAME
    data = index.read_bytes()
    found = read_header(data, b"LDTABLES", dict)
    assert found is not None
    header: dict[str, Any] = found[0]
    next(iter(header["arrays"].values())).update(change)
    head = packed_header(b"LDTABLES", header)
    head = head.ljust(len(head) + -len(head) % 64, b"\0")
    index.write_bytes(head + data[len(data) - header["size"] :])
    opened(dataroot)
    assert len(builds) == 2


def test_an_index_of_another_version_is_made_anew(
    dataroot: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "FORMAT", store.FORMAT + 1)
        opened(dataroot)
    opened(dataroot)
    opened(dataroot)
    assert len(builds) == 2


def test_an_index_of_other_tables_is_not_taken(
    dataroot: Path, tmp_path: Path, builds: list[Path]
) -> None:
    """One that was downloaded with the tables could hold anything."""
    opened(dataroot)
    other = tmp_path / "other"
    (other / VERSION).mkdir(parents=True)
    for path in (dataroot / VERSION).iterdir():
        (other / VERSION / path.name).write_bytes(path.read_bytes())
        stamp = path.stat()
        os.utime(other / VERSION / path.name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    opened(other)
    assert len(builds) == 2


def test_what_a_killed_build_leaves_is_removed(dataroot: Path, builds: list[Path]) -> None:
    """It is killed while it writes, with the lock in its hands."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from labeldistill_core.data.nuscenes import NuScenesTables\n"
        "from labeldistill_core.data.tables import opening\n"
        "opening.SMALL_BYTES = 0\n"
        "def hang(*_): print('writing', flush=True); time.sleep(60)\n"
        "os.fsync = hang\n"
        f"NuScenesTables(Path({str(dataroot)!r}), {VERSION!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    folder = dataroot / VERSION
    assert len([path for path in folder.iterdir() if "partial" in path.name]) == 1
    opened(dataroot)
    assert len(builds) == 1
    assert not [path for path in folder.iterdir() if "partial" in path.name]


def _open_in_process(root: Path, counts: Any) -> None:
    opening.SMALL_BYTES = 0
    slow = build.build_columns

    def counted(folder: Path) -> Any:
        with counts.get_lock():
            counts.value += 1
        time.sleep(0.2)
        return slow(folder)

    vars(opening)["build_columns"] = counted
    opened(root)


def test_several_builders_at_once(dataroot: Path) -> None:
    fork = multiprocessing.get_context("fork")
    counts = fork.Value("i", 0)
    workers = [fork.Process(target=_open_in_process, args=(dataroot, counts)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert counts.value == 1


def test_a_read_only_root_has_its_index_in_the_cache(
    dataroot: Path, tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_writing(monkeypatch, dataroot, errno.EROFS)
    opened(dataroot)
    opened(dataroot)
    assert len(builds) == 1
    assert [path.suffix for path in (tmp_path / "cache/labeldistill/tables").glob("*.index")]
    assert not (dataroot / VERSION / INDEX_NAME).exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_nothing_can_be_written_it_works_in_memory(
    dataroot: Path,
    tmp_path: Path,
    builds: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    refuse_writing(monkeypatch, tmp_path, code)
    with caplog.at_level(logging.WARNING):
        opened(dataroot)
        opened(dataroot)
    assert caplog.text.count("read anew by each process") == 1
    assert os.strerror(code) in caplog.text
    assert len(builds) == 2
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name or p.name == INDEX_NAME]


def test_a_disk_that_fills_up(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The write fails in the middle."""
    with files_no_larger_than(6000):
        tables = NuScenesTables(dataroot, VERSION)
    assert len(tables.samples(SCENES[0])) == 3
    assert "File too large" in caplog.text
    assert not [path for path in (dataroot / VERSION).iterdir() if "partial" in path.name]


def refuse_writing(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int) -> None:
    """As a disk that is full or may not be written to; root may write everywhere."""
    whole, lock = Path.open, FileLock

    def refused(path: Path) -> None:
        if path.is_relative_to(folder):
            raise OSError(code, os.strerror(code), str(path))

    def open_(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode:
            refused(path)
        return whole(path, mode, *args, **options)

    def lock_(path: str, **options: Any) -> Any:
        if code != errno.ENOSPC:  # a full disk has room for an empty file
            refused(Path(path))
        return lock(path, **options)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(opening, "FileLock", lock_)
