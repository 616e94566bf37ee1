# SPDX-License-Identifier: Apache-2.0
"""Tests that run in real time have workers for themselves."""

import pytest


@pytest.mark.real_time
def test_real_time_is_a_group_of_its_own(request: pytest.FixtureRequest) -> None:
    grouped = request.config.getoption("loadgroup", False)
    # How pytest-xdist tells a group; versions of pytest that it does not know leave it out.
    assert request.node.nodeid.endswith("@real_time_node") or not grouped
