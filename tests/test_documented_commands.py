# SPDX-License-Identifier: Apache-2.0
"""Every command line that the pages show is one that there is, with the options that it names."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from labeldistill_ros import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_CALL = re.compile(r"(?:\S+/)?(labeldistill|python -m benchmarks\.\w+)((?: .*)?)$")
_ANY = {"...", "COMMAND"}
"""Words that stand for whatever command."""


def shown(page: str) -> Iterator[str]:
    """Lines of shell in a page: of its blocks, and between backticks in its text."""
    for language, block in _FENCED.findall(page):
        if language in ("", "sh"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from _INLINE.findall(_FENCED.sub("", page))


def calls(lines: Iterator[str] | list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Program and words of each call of ours."""
    for line in lines:
        call = _CALL.match(line.partition(" #")[0].strip())
        if call:
            words = tuple(shlex.split(call[2]))
            if words and not set(words[:2]) & _ANY:
                yield call[1], words


@cache
def known_options(program: str, name: tuple[str, ...]) -> frozenset[str]:
    """Options that the help of a command lists; none where there is no such command."""
    module = cli if program == "labeldistill" else importlib.import_module(_module(program))
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        module.main([*name, "--help"])
    called_as = ("usage:", *program.split(), *name)
    if tuple(said.getvalue().split()[: len(called_as)]) != called_as:
        return frozenset()  # the help of all commands
    rows = re.findall(r"^\W +(-.*)$", said.getvalue(), re.MULTILINE)
    return frozenset(option for row in rows for option in re.findall(r"--[\w.-]+", row))


def _module(program: str) -> str:
    return f"{program.rpartition(' ')[2]}.__main__"


def command_name(program: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that name the command; what follows are its arguments."""
    if program == "labeldistill":
        return words[:2] if words[0] in cli.GROUPS else words[:1]
    return words[:1] if program.endswith((".detector", ".node")) else ()


def complaint(program: str, words: tuple[str, ...]) -> str:
    """What is wrong with a call; empty if nothing is."""
    name = command_name(program, words)
    if words[0].startswith("-"):
        return "" if words[0] in ("--help", "--version") else f"no option {words[0]}"
    if program == "labeldistill" and " ".join(name) not in cli.COMMANDS:
        return f"no command {' '.join(name)}"
    known = known_options(program, name)
    if not known:
        return f"no command {' '.join(name)}"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return ", ".join(f"no option {option}" for option in sorted(options - known))


FOUND = sorted({(p.name, *call) for p in PAGES for call in calls(shown(p.read_text()))})
MADE = sorted(calls([line.strip() for line in (ROOT / "Makefile").read_text().splitlines()]))


@pytest.fixture(autouse=True)
def heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heap of the tests stays as it is."""
    main = importlib.import_module("benchmarks.detector.__main__")
    monkeypatch.setattr(main, "keep_freed_memory", lambda _: None)


@pytest.mark.parametrize(
    ("page", "program", "words"),
    [*FOUND, *(("Makefile", *call) for call in MADE)],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else part,
)
def test_what_a_page_shows_can_be_called(page: str, program: str, words: tuple[str, ...]) -> None:
    assert not complaint(program, words), f"{page}: {program} {' '.join(words)}"


def test_the_pages_calls_are_found() -> None:
    pages = {page for page, *_ in FOUND}
    assert {"README.md", "bags.md", "training.md", "performance.md"} <= pages
    assert ("README.md", "python -m benchmarks.parity", ("RECORDING",)) in FOUND
    assert ("labeldistill", ("demo",)) in MADE


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("labeldistill bag scroe BAG", "no command bag scroe"),
        ("labeldistill bag score BAG --jsno OUT  # figures", "no option --jsno"),
        (".venv/bin/labeldistill --hlep", "no option --hlep"),
        ("python -m benchmarks.detector acuracy MODEL", "no command acuracy"),
        ("python -m benchmarks.training WORLD --batchsize=8", "no option --batchsize"),
        ("python -m benchmarks.training WORLD --batch-size 8", ""),
    ],
)
def test_a_wrong_call_would_be_seen(line: str, wrong: str) -> None:
    ((program, words),) = calls(shown(f"```python\nx = 1\n```\n\n```sh\n{line}\n```\n"))
    assert complaint(program, words) == wrong
