# SPDX-License-Identifier: Apache-2.0
"""What the demo's processes find in their environment, and that no two runs share a domain."""

import os
import subprocess
import sys

import pytest

from labeldistill_core.errors import ConfigError
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
with free_domain(range(200, 203)) as domain:
    print(domain, flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_hold_one_domain() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        with free_domain([theirs, 203]) as ours:
            assert ours == 203
        other.kill()
    with free_domain([theirs]) as again:
        assert again == theirs  # a process that dies leaves nothing behind


def test_no_free_domain_is_told() -> None:
    with (
        free_domain([204]),
        pytest.raises(ConfigError, match="204 to 204: wait for one to end"),
        free_domain([204]),
    ):
        pass
