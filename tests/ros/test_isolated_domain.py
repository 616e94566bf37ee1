# SPDX-License-Identifier: Apache-2.0
"""What the demo's processes find in their environment, and that no two runs share a domain."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from labeldistill_core.errors import ConfigError
from labeldistill_ros import isolated_domain
from labeldistill_ros.isolated_domain import free_domain, own_domain

PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


@pytest.mark.parametrize(
    ("distribution", "expected"), [("humble", 1), ("jazzy", 1), ("kilted", 0), ("", 0)]
)
def test_only_the_variable_that_fast_dds_reads_is_set(
    distribution: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROFILES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    with own_domain():
        there = [name in os.environ for name in PROFILES]
    assert there == [index == expected for index in range(len(PROFILES))]
    assert not any(name in os.environ for name in PROFILES)


HOLD = """
import sys
from labeldistill_ros.isolated_domain import free_domain
with free_domain() as domain:
    print(domain, flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_hold_one_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        # both begin at the same number, as two process ids that differ by 100 do
        monkeypatch.setattr(isolated_domain, "_numbers", iter(range(theirs - 1, theirs + 100)))
        with free_domain() as ours:
            assert ours != theirs
        other.kill()
    monkeypatch.setattr(isolated_domain, "_numbers", iter(range(theirs - 1, theirs + 100)))
    with free_domain() as again:
        assert again == theirs  # a process that dies leaves nothing behind


def test_no_free_domain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_domain, "_DOMAINS", range(90, 93))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(free_domain())
        with pytest.raises(ConfigError, match="90 to 92: wait for one to end"):
            held.enter_context(free_domain())
