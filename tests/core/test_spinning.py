# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

from labeldistill_core.spinning import TURNS, bound_spinning

OPENBLAS = "OPENBLAS_THREAD_TIMEOUT"
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", OPENBLAS)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of spinning, before torch is imported."""
    for name in NAMES:
        # Set first, so that what the function sets goes when the test ends.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "numpy")
    return monkeypatch


def test_spinning_is_bounded(quiet: pytest.MonkeyPatch) -> None:
    bound_spinning()
    assert os.environ[OPENBLAS] == "4"
    assert os.environ["GOMP_SPINCOUNT"] == str(TURNS)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_says_stays(name: str, quiet: pytest.MonkeyPatch) -> None:
    quiet.setenv(name, "7")
    bound_spinning()
    assert os.environ[name] == "7"
    assert ("GOMP_SPINCOUNT" in os.environ) == (name in ("GOMP_SPINCOUNT", OPENBLAS))


@pytest.mark.parametrize(("module", "name"), [("torch", "GOMP_SPINCOUNT"), ("numpy", OPENBLAS)])
def test_after_its_import_it_is_too_late(module: str, name: str, quiet: pytest.MonkeyPatch) -> None:
    quiet.setitem(sys.modules, module, object())
    bound_spinning()
    assert name not in os.environ


@pytest.mark.parametrize(
    "start",
    [
        "from labeldistill_ros import cli; cli.main(['--version'])",
        "import labeldistill_ros.node",
    ],
)
def test_commands_and_node_bound_it_before_torch_is_there(start: str) -> None:
    program = f"""
import os, sys
{start}
assert "torch" not in sys.modules
assert os.environ["GOMP_SPINCOUNT"] == "{TURNS}"
assert os.environ["{OPENBLAS}"] == "4"
"""
    environment = {name: v for name, v in os.environ.items() if name not in NAMES}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
