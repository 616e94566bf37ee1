# SPDX-License-Identifier: Apache-2.0
import gc
import subprocess
import sys

import pytest

from labeldistill_ros.garbage import pause_collection, resume_collection


def test_the_search_goes_on_without_what_was_there() -> None:
    pause_collection()
    try:
        assert not gc.isenabled()
    finally:
        resume_collection()
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_nothing_is_kept_where_the_search_was_not_stopped() -> None:
    gc.unfreeze()
    before = gc.get_freeze_count()
    resume_collection()
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


@pytest.mark.parametrize(
    ("entry", "words"), [("command", ["config", "--help"]), ("node", ["--ros-args", "-p", "a"])]
)
def test_a_program_searches_once_it_is_imported(entry: str, words: list[str]) -> None:
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print('searches', gc.isenabled(), gc.get_freeze_count()))\n"
        f"from labeldistill_ros.entry import {entry} as begin\nbegin()"
    )
    _, enabled, frozen = _last_line(code, words).split()
    assert enabled == "True"
    assert int(frozen) > 10_000


def test_a_module_called_as_a_program_searches_no_sooner() -> None:
    code = (
        "import atexit, gc, runpy\n"
        "atexit.register(lambda: print('searches', gc.isenabled(), gc.get_freeze_count()))\n"
        "runpy.run_module('labeldistill_ros.cli', run_name='__main__')"
    )
    _, enabled, frozen = _last_line(code, ["config", "--help"]).split()
    assert enabled == "True"
    assert int(frozen) > 10_000


def _last_line(code: str, words: list[str]) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    return run.stdout.splitlines()[-1]
