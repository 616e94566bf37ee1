# SPDX-License-Identifier: Apache-2.0
"""Where the demo and the benchmarks run: beside other ROS systems, disturbing none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from labeldistill_core.installed_files import shared_file


@contextmanager
def own_domain() -> Iterator[None]:
    """A ROS domain on this machine, with the Fast DDS profile, unless the user set one."""
    # Fast DDS 2 of Humble and Jazzy reads the one variable; Fast DDS 3 warns of it.
    fast_dds = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "jazzy") else "FASTDDS"
    chosen = {
        # 1 to 100: 0 is the domain that everybody uses by default, and those above 101 meet the
        # ephemeral ports of Linux.
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        f"{fast_dds}_DEFAULT_PROFILES_FILE": str(shared_file("config/fastdds.xml")),
    }
    if os.environ.get("ROS_DISTRO") == "humble":  # does not know the range; later ones warn of this
        chosen["ROS_LOCALHOST_ONLY"] = "1"
    # What the user set stays: somebody who watches with RViz has chosen the domain for both.
    added = {key: value for key, value in chosen.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]
