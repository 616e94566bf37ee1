# SPDX-License-Identifier: Apache-2.0
"""What killed, failed and crossing writers of a bag leave, and what nobody may take away."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labeldistill_core.errors import BagError
from labeldistill_ros.bags import writer as writing
from labeldistill_ros.bags.partial_folder import PartialFolder, abandoned
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recover import recover, recover_abandoned
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.messages.bag_family import BAG
from tests.support.damage import BEGIN_NS
from tests.support.full_disk import files_no_larger_than

KIND = "std_msgs/msg/String"
COUNT = 500


def write(bag: BagWriter, count: int = COUNT) -> None:
    for number in range(count):
        bag.write("/text", KIND, BAG.make(KIND, data="x" * 1000), BEGIN_NS + number)
    bag.flush()


def killed(path: Path, *, keep: bool = True, storage: str = "mcap", count: int = COUNT) -> Path:
    """What a writer leaves that is killed."""
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.ros.bags.test_partial_folder import write\n"
        f"bag = BagWriter(Path({str(path)!r}), keep={keep}, storage={storage!r})\n"
        "bag.__enter__()\n"
        f"write(bag, {count}) if {count} else None\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = path.parent.glob(f".{path.name}.partial-*")
    return left


def counts(path: Path) -> dict[str, int]:
    with BagReader(path) as reader:
        assert sum(reader.counts().values()) == len(list(reader.raw()))
        return reader.counts()


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_recovered_may_get_the_name_of_the_recording(keep: bool, tmp_path: Path) -> None:
    left = killed(tmp_path / "run", keep=keep)
    assert recover(left, tmp_path / "run") == {"/text": COUNT}
    assert left.is_dir()
    assert counts(tmp_path / "run") == {"/text": COUNT}


def test_no_other_writer_takes_a_recording_away(tmp_path: Path) -> None:
    left = killed(tmp_path / "run")
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
    assert counts(tmp_path / "run") == {"/text": 3}
    assert recover(left, tmp_path / "again") == {"/text": COUNT}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_cannot_be_recovered_now_stays(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", storage=storage)
    with files_no_larger_than(100_000):
        assert recover_abandoned(tmp_path / "run") == []
    assert f"what an earlier recording left stays in {left}" in caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert recover_abandoned(tmp_path / "run") == [tmp_path / "run.recovered-1"]
    assert counts(tmp_path / "run.recovered-1") == {"/text": COUNT}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.recovered-1"]


def test_a_recording_without_a_byte_is_cleared_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", count=0)
    for file in left.glob("run/*"):
        file.write_bytes(b"")
    assert recover_abandoned(tmp_path / "run") == []
    assert not caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert not left.exists()


def test_two_writers_of_one_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag)
        with pytest.raises(BagError, match="run is being written by another process"):
            BagWriter(tmp_path / "run", force=True).__enter__()
    assert counts(tmp_path / "run") == {"/text": COUNT}


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


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_recording_that_is_interrupted_at_its_end(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(writing, "metadata_text", fail)

    def run() -> None:
        with BagWriter(tmp_path / "run", keep=True) as bag:
            write(bag)

    with pytest.raises(error):
        run()
    monkeypatch.undo()
    (left,) = tmp_path.glob(".run.partial-*")
    assert recover(left, tmp_path / "run") == {"/text": COUNT}


def test_a_bag_that_cannot_be_replaced_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
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
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
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


def killed_between_the_names(path: Path, *, keep: bool, calls: int = 2) -> Path:
    """What a writer leaves that is killed while it replaces a bag, at that renaming of the two."""
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.ros.bags.test_partial_folder import write\n"
        f"with BagWriter(Path({str(path)!r}), force=True, keep={keep}) as bag:\n"
        "    write(bag, 5)\n"
        "    rename, seen = Path.rename, []\n"
        "    def last(self, target):\n"
        "        seen.append(self)\n"
        f"        if len(seen) == {calls}:\n"
        "            os._exit(9)\n"
        "        return rename(self, target)\n"
        "    Path.rename = last\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (left,) = path.parent.glob(f".{path.name}.partial-*")
    return left


@pytest.mark.parametrize("link", [True, False])
def test_killed_between_the_names(
    link: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with BagWriter(tmp_path / "real") as bag:
        write(bag, 3)
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
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
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
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)

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


def test_folders_without_a_name_are_cleared_away(tmp_path: Path) -> None:
    old, new = (tmp_path / f".run.partial-new-{number}" for number in (1, 2))
    for folder in (old, new):
        (folder / "run").mkdir(parents=True)
    os.utime(old, (0, 0))
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "run"]


@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
def test_a_bag_whose_name_cannot_be_taken_stays(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
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
    with BagWriter(tmp_path / "run") as bag:
        write(bag, 3)
    code = (
        "import os, shutil\n"
        "from pathlib import Path\n"
        "from labeldistill_ros.bags.writer import BagWriter\n"
        "from tests.ros.bags.test_partial_folder import write\n"
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


def test_starters_do_not_take_each_other_away(tmp_path: Path) -> None:
    """A process that looks at a folder holds its lock for a moment."""
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag)
        lock = bag.partial / "run.lock"
        with lock.open("rb") as looking:
            assert lock.stat().st_size == 0
            with pytest.raises(BlockingIOError):
                fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert abandoned(tmp_path / "run") == []
    left = killed(tmp_path / "other")
    with (left / "other.lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert abandoned(tmp_path / "other") == [left]


def test_what_two_recordings_left_is_not_made_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        killed(tmp_path / name)
    with pytest.raises(BagError, match="holds 2 bags, .*: recover them one by one"):
        recover(tmp_path, tmp_path.with_name("out"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_without_a_message_is_cleared_away(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", storage=storage, count=0)
    assert recover_abandoned(tmp_path / "run") == []
    assert not caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert not left.exists()


def test_an_empty_folder_may_become_a_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    with BagWriter(tmp_path / "out") as bag:
        write(bag, 3)
    assert counts(tmp_path / "out") == {"/text": 3}
    (tmp_path / "file").write_text("")
    assert main(["bag", "recover", str(tmp_path / "out"), str(tmp_path / "file")]) == 2
    assert "file is no bag, so it is not replaced" in capsys.readouterr().err


def test_several_bags_are_not_made_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with BagWriter(tmp_path / "runs" / name) as bag:
            write(bag, 3)
    with pytest.raises(BagError, match="holds 2 bags, 'one', 'two': recover them one by one"):
        recover(tmp_path / "runs", tmp_path / "out")
