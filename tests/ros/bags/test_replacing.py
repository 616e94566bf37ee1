# SPDX-License-Identifier: Apache-2.0
"""What a new bag may take the place of, and that neither is lost on the way."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from labeldistill_core.errors import BagError, LabelDistillError
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.partial_folder import PartialFolder
from labeldistill_ros.bags.recover import recover, recover_abandoned
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from tests.support.damage import write_small_bag
from tests.support.killed_writers import (
    COUNT,
    counts,
    killed,
    killed_between_the_names,
    make,
    write,
)


@pytest.mark.parametrize("keep", [True, False])
def test_what_appears_meanwhile_is_not_replaced(keep: bool, tmp_path: Path) -> None:
    def run() -> None:
        with BagWriter(tmp_path / "run", keep=keep) as bag:
            write(bag)
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "thesis.txt").write_text("mine")

    with pytest.raises(BagError, match="it came while this bag was written, which is complete in"):
        run()
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    (left,) = tmp_path.glob(".run.partial-*")
    assert counts(left / "run") == {"/text": COUNT}
    with BagWriter(tmp_path / "other", force=True) as bag:
        write(bag, 3)
    assert left.is_dir()


def test_a_bag_that_cannot_be_replaced_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run", 3)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == tmp_path / "run" and self.parent != target.parent and self.name == "run":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    def replace() -> None:
        with BagWriter(tmp_path / "run", force=True) as bag:
            write(bag)
            monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(BagError, match="what was there before is untouched"):
        replace()
    assert counts(tmp_path / "run") == {"/text": 3}


@pytest.mark.parametrize("keep", [True, False])
def test_a_stranger_between_the_two_names_costs_no_bag(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "run", 3)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if target == tmp_path / "run":
            target.mkdir()
            (target / "thesis.txt").write_text("mine")
        return rename(self, target)

    def replace() -> None:
        with BagWriter(tmp_path / "run", force=True, keep=keep) as bag:
            write(bag)
            monkeypatch.setattr(Path, "rename", late)

    with pytest.raises(BagError, match="cannot write"):
        replace()
    monkeypatch.undo()
    assert re.search(r"what was there before is in .*run\.replaced", caplog.text)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    (left,) = tmp_path.glob(".run.partial-*")
    assert counts(left / "run") == {"/text": COUNT}
    assert counts(left / "run.replaced") == {"/text": 3}
    assert recover(left, tmp_path / "again") == {"/text": COUNT}
    assert recover_abandoned(tmp_path / "run") == [tmp_path / "run.recovered-1"]
    assert counts(tmp_path / "run.replaced-1") == {"/text": 3}
    assert not left.exists()


@pytest.mark.parametrize("link", [True, False])
def test_killed_between_the_names(
    link: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "real", 3)
    run = tmp_path / "run"
    if link:
        run.symlink_to("real")
    else:
        (tmp_path / "real").rename(run)
    left = killed_between_the_names(run, keep=False)
    shutil.copytree(left, tmp_path / "copy", symlinks=True)
    assert recover(tmp_path / "copy", tmp_path / "again") == {"/text": 5}
    with BagWriter(run, force=True) as bag:
        write(bag, 4)
    assert f"`labeldistill bag recover {left} OUT` makes a bag of it" in caplog.text
    assert recover_abandoned(run) == [tmp_path / "run.recovered-1"]
    assert counts(tmp_path / "run.recovered-1") == {"/text": 5}
    replaced = tmp_path / "run.replaced-1"
    assert replaced.is_symlink() if link else counts(replaced) == {"/text": 3}
    assert f"the bag that it was about to replace is in {replaced}" in caplog.text
    assert not left.exists()


def test_what_was_to_be_replaced_comes_back_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "run", 3)
    left = killed_between_the_names(tmp_path / "run", keep=True)
    shutil.rmtree(left / "run")
    assert recover(left, tmp_path / "again") == {"/text": 3}
    assert recover_abandoned(tmp_path / "run") == []
    assert counts(tmp_path / "run.replaced-1") == {"/text": 3}
    assert "nothing recovered" not in caplog.text
    assert not left.exists()


def test_a_disk_that_is_full_at_the_last_step_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run", 3)

    def full(self: object, text: str) -> None:
        if text:
            raise OSError(28, "No space left on device")

    with BagWriter(tmp_path / "run", force=True, keep=True) as bag:
        write(bag, 5)
        monkeypatch.setattr(PartialFolder, "mark", full)
    assert counts(tmp_path / "run") == {"/text": 5}
    with pytest.raises(BagError, match="No space left on device"):
        BagWriter(tmp_path / "other").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
def test_a_bag_whose_name_cannot_be_taken_stays(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run", 3)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self != tmp_path / "run":
            return rename(self, target)
        if isinstance(error, KeyboardInterrupt):
            rename(self, target)
        raise error

    def replace() -> None:
        with BagWriter(tmp_path / "run", force=True) as bag:
            write(bag)
            monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises((BagError, KeyboardInterrupt)):
        replace()
    assert counts(tmp_path / "run") == {"/text": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["other.mcap", "cut.db3", "metadata.yaml", "notes.txt"])
@pytest.mark.parametrize("force", [True, False])
def test_a_file_is_no_bag_to_be_replaced(name: str, force: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(BagError, match="is no bag, so it is not replaced"):
        BagWriter(tmp_path / name, force=force)


def test_a_killed_writer_that_had_its_name_leaves_nothing_worth_keeping(tmp_path: Path) -> None:
    make(tmp_path / "run", 3)
    code = (
        "import os, shutil\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.support.killed_writers import write\n"
        f"with BagWriter(Path({str(tmp_path / 'run')!r}), force=True, keep=True) as bag:\n"
        "    write(bag, 5)\n"
        "    shutil.rmtree = lambda *_, **__: os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert counts(tmp_path / "run") == {"/text": 5}
    assert len(list(tmp_path.iterdir())) == 2
    with BagWriter(tmp_path / "run", force=True) as bag:
        write(bag, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_bag_may_be_called_as_a_replaced_one(tmp_path: Path) -> None:
    killed(tmp_path / "x.replaced")
    assert recover_abandoned(tmp_path / "x.replaced") == [tmp_path / "x.replaced.recovered-1"]


def test_folders_whose_place_no_other_can_take(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(BagError, match="cannot be replaced by a folder: name one within it"):
        BagWriter(tmp_path / "link")
    for name in (".", "..", "/"):
        with pytest.raises(BagError, match="is no name of a bag"):
            BagWriter(Path(name))


def test_an_empty_folder_may_become_a_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out", 3)
    assert counts(tmp_path / "out") == {"/text": 3}
    (tmp_path / "file").write_text("")
    assert main(["bag", "recover", str(tmp_path / "out"), str(tmp_path / "file")]) == 2
    assert "file is no bag, so it is not replaced" in capsys.readouterr().err


def test_the_bag_that_is_read_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag"
    write_small_bag(bag)
    (tmp_path / "link").symlink_to(bag)
    before = {file: file.read_bytes() for file in bag.iterdir()}
    for out in (bag, tmp_path / "link", bag / "within"):
        assert main(["bag", "recover", str(bag), str(out), "--force"]) == 2
        assert "that is read: choose another name" in capsys.readouterr().err
        with pytest.raises(LabelDistillError, match="that is read: choose another name"):
            detect_bag(bag, out, cast(Detector, None))
    assert main(["bag", "recover", str(bag / "bag.mcap"), str(bag), "--force"]) == 2
    assert {file: file.read_bytes() for file in bag.iterdir()} == before


def test_the_demo_replaces_nothing_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detections").mkdir()
    (tmp_path / "detections/mine.txt").write_text("mine")
    assert main(["demo", "--bag", "rosbags/demo", "--out", str(tmp_path)]) == 2
    assert "detections is no bag, so it is not replaced" in capsys.readouterr().err
    assert (tmp_path / "detections/mine.txt").read_text() == "mine"


def test_what_is_no_part_of_a_bag_is_not_replaced(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    write_small_bag(bag)
    (bag / "notes.txt").write_text("mine")
    with pytest.raises(LabelDistillError, match=r"holds 'notes.txt', which is no part of a bag"):
        BagWriter(bag, force=True)
