# SPDX-License-Identifier: Apache-2.0
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import tyro
from typing_extensions import Self
from tyro.conf import Positional

from labeldistill_core.console import Flat, run_command, tell_written
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.exit_codes import exit_code
from labeldistill_core.files import write_whole


@dataclass(frozen=True)
class Prepared:
    """Options whose default follows from the arguments."""

    words: int = 0
    """How many arguments there were."""

    @classmethod
    def prepared(cls, args: Sequence[str]) -> tuple[Self, Sequence[str]]:
        return cls(len(args)), args


def test_options_of_one_of_several_programs_are_prepared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[tuple[str, int]] = []

    def first(word: Positional[str], options: Flat[Prepared]) -> None:
        seen.append((word, options.words))

    def second() -> None:
        seen.append(("second", 0))

    commands: dict[str, Callable[..., None]] = {"first": first, "second": second}
    assert run_command("program", commands, ["first", "one"]) == 0
    assert run_command("program", commands, ["second"]) == 0
    assert seen == [("one", 1), ("second", 0)]
    with pytest.raises(SystemExit):
        run_command("program", commands, ["third"])
    assert "third" in capsys.readouterr().err


def test_arguments_without_an_option_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    def command(
        dataroot: Positional[Path],
        runs: Positional[tuple[Path, ...]],
        bag: Positional[Path | None] = None,
    ) -> None:
        """Do it."""

    with pytest.raises(SystemExit):
        run_command("program", command, ["--help"])
    assert "program [-h] DATAROOT [RUN ...] [BAG]" in capsys.readouterr().out


def test_an_option_of_several_values_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Inner:
        named: Annotated[Mapping[str, str], tyro.conf.arg(name="named")] = field(
            default_factory=dict
        )

    @dataclass(frozen=True)
    class Chosen:
        of_these: tuple[str, ...] = ()
        inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
        check: bool = False

    def command(
        words: Positional[tuple[str, ...]], options: Flat[Chosen], others: tuple[int, ...] = ()
    ) -> None:
        seen.append((words, options.of_these, options.inner.named, others))

    seen: list[Any] = []
    for words in (
        ["--check"],
        ["--of-these", "a", "b", "--others", "-1", "--named", "x", "y"],
        ["--check", "--", "--others"],
    ):
        assert run_command("program", command, words) == 0
    assert seen == [
        ((), (), {}, ()),
        ((), ("a", "b"), {"x": "y"}, (-1,)),
        (("--others",), (), {}, ()),
    ]
    # as by `--of-these $(command without output)`
    for name, args in (
        ("of-these", ("--of-these",)),
        ("of-these", ("--of_these", "--others", "1")),
        ("others", ("--of-these", "a", "--others")),
        ("named", ("--named", "--of-these", "a")),
    ):
        assert run_command("program", command, args) == 2
        assert f"nothing stands behind --{name}: name one" in capsys.readouterr().err


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tracebacks are kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def system_error(number: int, file: str | None = "/data/out.json") -> OSError:
    return OSError(number, os.strerror(number), file)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("--scenes must be 0 or more"), "--scenes must be 0 or more"),
        (system_error(errno.ENOSPC), "/data/out.json: No space left on device: free some space"),
        (system_error(errno.EACCES), "/data/out.json: Permission denied: change its permissions"),
        (system_error(errno.EISDIR), "/data/out.json: Is a directory: name a file in it"),
        (system_error(errno.ENOTDIR), "/data/out.json: Not a directory: a part of this path is"),
        (system_error(errno.ENOENT), "/data/out.json: No such file or directory: check the path"),
        (system_error(errno.EIO), "/data/out.json: Input/output error"),
        (system_error(errno.ENOSPC, None), "No space left on device: free some space"),
        (OSError("odd"), "odd"),
        (TimeoutError(), "TimeoutError"),
        (MemoryError(), "out of memory: take a smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory\nand more"), "out of memory (CUDA out of"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory (DefaultCPU"),
        (ImportError("libx.so: failed to map segment from shared object"), "out of memory (libx"),
        (RuntimeError("can't start new thread"), "out of memory (can't start new thread): take"),
        (system_error(errno.ENOMEM, None), "out of memory ([Errno 12] Cannot allocate memory)"),
        (system_error(errno.EFBIG), "/data/out.json: File too large: raise the limit (`ulimit"),
        (system_error(errno.ELOOP), "/data/out.json: Too many levels of symbolic links: a link"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_code_2(
    error: Exception, told: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(error), "labeldistill x") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not state.exists()


def test_what_came_from_outside_is_escaped_and_cut(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        exit_code(
            raising(DataError("no scene \x1b[31m\u202e\nerror: " + "x" * 10**6)), "labeldistill x"
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("error: no scene \\x1b[31m\\u202e\\nerror: xxx")
    assert said.endswith("x...\n")
    assert len(said) < 11_000


def test_a_link_that_leads_to_itself_is_named(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert exit_code(lambda: (tmp_path / "loop/x").resolve().stat(), "x") == 2
    said = capsys.readouterr().err
    assert "loop/x" in said
    assert "a link in this path leads to itself" in said


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ\nlong")])
def test_a_fault_of_ours_is_one_line_and_code_3(
    error: Exception, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(error), "labeldistill x") == 3
    said = capsys.readouterr().err
    (file,) = (state / "labeldistill").iterdir()
    assert said.startswith(f"error: labeldistill x failed unforeseen ({type(error).__name__}: ")
    assert str(file) in said
    assert said.count("\n") == 1
    assert "in command\n    raise error" in file.read_text()


def test_an_error_of_a_library_that_comes_of_no_memory_is_no_fault(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = SystemError("error return without exception set")
    error.__cause__ = MemoryError()
    assert exit_code(raising(error), "x") == 2
    assert "out of memory (error return without" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["2", "--nu\x1b[31m\x07"], ["2", "--" + "x" * 10**5]])
def test_options_that_are_told_are_escaped_and_cut(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def command(number: Positional[int]) -> None:
        """Do it."""

    with pytest.raises(SystemExit) as ended:
        run_command("program", command, words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "\x1b[31m" not in said
    assert "\x07" not in said
    assert words[-1][:4] in said
    assert len(said) < 3000


def test_arguments_reach_the_command_as_they_are() -> None:
    seen: list[str] = []

    def command(*, word: str) -> int:
        seen.append(word)
        return 1

    odd = "\x1b[31m\udcff\n" + "x" * 1000
    assert run_command("program", command, ["--word", odd]) == 1
    assert seen == [odd]


@pytest.mark.parametrize("size", [10, 10**6])
def test_a_full_output_is_named_and_gets_nothing_more(size: int, tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from labeldistill_core.exit_codes import exit_code\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))\n"
        f"sys.exit(exit_code(lambda: print('x' * {size}), 'program'))"
    )
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert b"File too large: raise the limit" in done.stderr
    assert (tmp_path / "out").read_bytes() == b"xxxx"


def test_an_error_of_another_file_leaves_the_output_as_it_is(
    state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(system_error(errno.ENOSPC, None)), "x") == 2
    assert capfd.readouterr().out == ""


def test_a_traceback_is_not_lost_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert exit_code(raising(ZeroDivisionError("one / zero")), "x") == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "error: x failed unforeseen (ZeroDivisionError: one / zero)" in said


def test_interrupts_and_results() -> None:
    assert exit_code(raising(KeyboardInterrupt()), "x") == 130
    assert exit_code(lambda: 1, "x") == 1
    assert exit_code(lambda: "done", "x") == 0


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as told:
        write_whole(tmp_path / "out.json", b"{}")
    assert told.value.filename == str(tmp_path / "out.json")


def test_a_command_ends_with_what_it_wrote_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a file.json"
    file.write_text("{}")
    tell_written(file, None, tmp_path, Path("/dev/null"), then=("labeldistill", "view", file))
    assert capsys.readouterr().out == (
        f"wrote {file}, {tmp_path}\nnext: labeldistill view '{file}'\n"
    )
    tell_written(None)
    assert capsys.readouterr().out == ""


def test_the_log_is_ours_and_what_others_warn_of() -> None:
    code = (
        "import logging\n"
        "from labeldistill_core.console import run_command\n"
        "def command() -> None:\n"
        "    for name in ('labeldistill_core.x', 'labeldistill_ros.x', 'onnxscript', 'onnx_ir'):\n"
        "        logging.getLogger(name).info('told')\n"
        "        logging.getLogger(name).warning('warned')\n"
        "run_command('x', command, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.endswith("told")] == [
        "INFO labeldistill_core.x: told",
        "INFO labeldistill_ros.x: told",
    ]
    assert sum(line.endswith("warned") for line in lines) == 4
