# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from labeldistill_core import cli
from labeldistill_core.cli import COMMANDS, Command, Group, main
from labeldistill_core.errors import DataError


def command_names(group: Group, *names: str) -> Iterator[tuple[str, ...]]:
    for name, member in group.members.items():
        if isinstance(member, Group):
            yield from command_names(member, *names, name)
        else:
            yield (*names, name)


@pytest.mark.parametrize("names", list(command_names(COMMANDS)), ids=" ".join)
def test_every_command_explains_itself(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*names, "--help"])
    assert stopped.value.code == 0
    assert f"labeldistill {' '.join(names)}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, member in COMMANDS.members.items():
        assert name in printed
        assert member.help in printed


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


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of our own, in a group."""

    def refuse() -> None:
        raise DataError("the folder is empty: fill it")

    def count(number: int) -> int:
        return number

    group = Group("numbers", {"count": Command("counts", lambda: count)})
    members = {"refuse": Command("refuses", lambda: refuse), "numbers": group}
    monkeypatch.setattr(cli, "COMMANDS", Group("all", members))


@pytest.mark.usefixtures("commands")
def test_our_errors_are_one_line_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refuse"]) == 2
    assert capsys.readouterr().err == "error: the folder is empty: fill it\n"


@pytest.mark.usefixtures("commands")
def test_groups_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["numbers", "count", "--number", "7"]) == 7
    assert main(["numbers", "conut"]) == 2
    assert "no command 'conut'" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from labeldistill_core.cli import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise ModuleNotFoundError("No module named 'embreex.x'", name="embreex.x")

    monkeypatch.setitem(cli.COMMANDS.members, "odd", cli.Command("odd", load))
    assert cli.main(["odd"]) == 2
    assert "embreex.x, which is not installed: pip install" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = "import sys; from labeldistill_core.cli import main; sys.exit(main(['--help']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
