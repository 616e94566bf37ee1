# SPDX-License-Identifier: Apache-2.0
"""What the demo's processes find in their environment."""

import os

import pytest

from labeldistill_ros.isolated_domain import own_domain

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
