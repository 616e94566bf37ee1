# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.errors import DataError
from labeldistill_core.names import (
    fault_of_name,
    fault_of_relative_path,
    plain_name,
    plain_text,
    shown,
)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "stands for a folder"),
        ("..", "stands for a folder"),
        ("../victim", "slash"),
        ("/etc/passwd", "slash"),
        ("a\\b", "slash"),
        ("a\0b", "cannot be printed"),
        ("a\nb", "cannot be printed"),
        ("\ud800", "cannot be printed"),
        ("\u202egpj.exe", "cannot be printed"),
        ("é" * 128, "longer than 255 bytes"),
    ],
)
def test_no_plain_names(name: str, reason: str) -> None:
    assert reason in fault_of_name(name)
    with pytest.raises(DataError, match=f"scene .*is no plain name: .*{reason}"):
        plain_name(name, "scene")


def test_plain_names() -> None:
    for name in ("scene-0061", "n015 2018+0800", "场景", ".hidden", "a" * 255):
        assert plain_name(name, "scene") == name


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("../../etc/passwd", "leaves its folder"),
        ("samples/../../x", "leaves its folder"),
        ("samples//x", "empty"),
        ("samples/", "empty"),
        ("", "empty"),
        ("samples/a\0b", "cannot be printed"),
    ],
)
def test_paths_that_leave_their_folder(path: str, reason: str) -> None:
    assert reason in fault_of_relative_path(path)


@given(st.text(st.characters(), max_size=40))
def test_what_is_let_through_stays_below(path: str) -> None:
    if not fault_of_relative_path(path):
        root = Path("/data/root")
        assert Path(*(root / path).parts).is_relative_to(root)
        assert (root / path) != root
        assert ".." not in (root / path).parts


def test_long_texts_are_cut() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1000)) < 100
    assert plain_text("head.weight") == "head.weight"
    assert plain_text("a\x1b[2J") == r"a\x1b[2J"
    assert len(plain_text("x" * 1000)) == 200
