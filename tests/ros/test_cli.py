# SPDX-License-Identifier: Apache-2.0
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labeldistill_core.errors import DataError
from labeldistill_ros import cli
from labeldistill_ros.cli import COMMANDS, GROUPS, find_command, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    assert f"labeldistill {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    assert find_command(name).__doc__


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert GROUPS["train"] in printed
    for name, text in COMMANDS.items():
        assert name.partition(" ")[0] in printed
        assert text in printed or " " in name


def test_no_command_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detonate"]) == 2
    assert "no command 'detonate'" in capsys.readouterr().err


def test_an_unknown_option_is_a_wrong_call() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate-results", "file", "--jsno", "x"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "call",
    [
        "bag score none --out",
        "bag score none --json",
        "bag score none --junit",
        "bag score none --report",
        "bench --model none --json",
        "demo --bag none --animation",
        "demo --bag none --junit",
        "doctor none --json",
        "evaluate none none --out",
        "evaluate-results none none --json",
        "robustness none --json",
        "robustness none --page",
        "robustness none --plot",
        "statistics none --json",
        "view none none --animation",
    ],
)
def test_what_cannot_be_written_is_told_before_anything_else(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main([*call.split(), "file/x.webp"]) == 2
    assert "error: file/x.webp" in capsys.readouterr().err


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of our own, one in a group."""

    def refuse() -> None:
        raise DataError("the folder is empty: fill it")

    def count(number: int) -> int:
        return number

    def odd() -> None:
        raise ModuleNotFoundError("No module named 'embreex.x'", name="embreex.x")

    ours: dict[str, Callable[..., object]] = {"refuse": refuse, "bag count": count, "odd": odd}
    monkeypatch.setattr(cli, "COMMANDS", dict.fromkeys(ours, "for a test"))
    monkeypatch.setattr(cli, "find_command", ours.__getitem__)


@pytest.mark.usefixtures("commands")
def test_our_errors_are_one_line_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refuse"]) == 2
    assert capsys.readouterr().err == "error: the folder is empty: fill it\n"


@pytest.mark.usefixtures("commands")
def test_groups_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "count", "--number", "7"]) == 7
    assert main(["bag", "conut"]) == 2
    assert "no command 'bag conut'; did you mean `labeldistill bag count`?" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("evalute", "evaluate"), ("teacher", "train teacher"), ("replay", "bag replay")],
)
def test_what_may_have_been_meant(
    wrong: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([wrong]) == 2
    assert f"did you mean `labeldistill {meant}`?" in capsys.readouterr().err


def test_an_option_that_may_have_been_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate-results", "file", "root", "--jsno", "x"])
    assert "--json" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("labeldistill ")


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from labeldistill_ros.cli import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.usefixtures("commands")
def test_a_missing_library_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["odd"]) == 2
    assert "embreex.x, which is not installed: pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [("label", ""), ("bag to-nuscenes", "apsw, which is not installed: pip inst")],
)
def test_label_needs_no_library_for_bags(words: str, told: str) -> None:
    code = (
        "import sys; sys.modules['apsw'] = sys.modules['rosbags'] = None; "
        f"from labeldistill_ros.cli import main; sys.exit(main([*{words.split()}, '--help']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if told else 0), done.stderr
    assert told in done.stderr


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = "import sys; from labeldistill_ros.cli import main; sys.exit(main(['--help']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def _program(*words: str, closed: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    code = "from labeldistill_ros.entry import command; command()"
    call = shlex.join([sys.executable, "-c", code, *words])
    return subprocess.run(
        ["sh", "-c", f"{call} {closed}"], capture_output=True, env={**os.environ, **variables}
    )


def test_a_full_output_is_named_once() -> None:
    done = _program("--help", closed="> /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        b"error: standard output: No space left on device: free some space, or write elsewhere"
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    assert _program("--help", closed=closed).returncode == 0
    # Nothing that is printed lands in a file that the command opens.
    words = ("synth", str(tmp_path / "no/\x01"), "--workers", "-1")
    assert _program(*words, closed=closed).returncode == 2


def test_a_terminal_that_knows_ascii_alone() -> None:
    # The encoding by itself: what LC_ALL gives depends on the version of Python.
    done = _program("bag", "score", "caf\u00e9", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert b"caf\\xe9" in done.stderr


@pytest.mark.parametrize(("limit", "told"), [(2 << 30, True), (1 << 40, False), (-1, False)])
def test_a_small_limit_of_addresses_is_told_beforehand(
    limit: int, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, -1))
    assert main(["config", "demo"]) == 0
    assert ("may use 2.0 GiB of addresses (`ulimit -v`)" in capsys.readouterr().err) == told
