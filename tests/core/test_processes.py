# SPDX-License-Identifier: Apache-2.0
"""Pools end with their parent, and at once when their block is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from labeldistill_core.errors import ConfigError
from labeldistill_core.processes import refuse_odd_launcher, worker_pool
from tests.support.process_work import is_gone, sleep


def wait_for(path: Path) -> int:
    until = time.monotonic() + 60.0
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_pool_does_ends_when_an_exception_leaves_its_block(
    tmp_path: Path, method: Literal["fork", "spawn"]
) -> None:
    def interrupted() -> None:
        with worker_pool(2, method) as pool:
            for number in range(6):
                pool.submit(sleep, tmp_path / str(number))
            for number in range(2):
                wait_for(tmp_path / str(number))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(is_gone(wait_for(tmp_path / str(number))) for number in range(2))


def test_a_worker_that_the_system_ends_is_told(tmp_path: Path) -> None:
    def killed() -> None:
        with worker_pool(2, "fork") as pool:
            future = pool.submit(sleep, tmp_path / "work")
            os.kill(wait_for(tmp_path / "work"), signal.SIGKILL)
            future.result()

    with pytest.raises(ConfigError, match="a worker process was ended from outside"):
        killed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_pool_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from labeldistill_core.processes import worker_pool\n"
        "from tests.support.process_work import is_gone, sleep\n"
        "if __name__ == '__main__':\n"
        "    with worker_pool(1, 'spawn') as pool: pool.submit(sleep, Path(sys.argv[1])).result()\n"
    )
    (tmp_path / "parent.py").write_text(program)
    pid_file = tmp_path / "pid"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "parent.py"), str(pid_file)]
    with subprocess.Popen(command, env=environment) as parent:
        try:
            worker = wait_for(pid_file)
            parent.send_signal(number)
            assert parent.wait(10) == -number
        finally:
            parent.kill()
    assert is_gone(worker)


@pytest.mark.parametrize(("name", "value"), [("RANK", "x"), ("SLURM_PROCID", "-1"), ("RANK", "")])
def test_a_launcher_that_numbers_nothing_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_odd_launcher()
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} in the environment is '{value}', and launchers"):
        refuse_odd_launcher()
