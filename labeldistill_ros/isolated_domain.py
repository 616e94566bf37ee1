# SPDX-License-Identifier: Apache-2.0
"""Where the demo, the benchmarks and the tests run: beside other ROS systems, disturbing none."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from labeldistill_core.errors import ConfigError
from labeldistill_core.installed_files import shared_file

_DOMAINS = range(1, 101)
"""0 is the domain that everybody uses by default, and those above 101 meet the ephemeral ports of
Linux."""
# One after the other, since participants of a run that has just ended may still be known.
_turn = itertools.count(os.getpid())


@contextmanager
def free_domain(domains: Sequence[int] = _DOMAINS) -> Iterator[int]:
    """The number of a ROS domain that no other run on this machine holds.

    Only callers of this function are kept apart; a ROS system that somebody else started is not
    seen.

    Args:
        domains: numbers to choose from.

    Raises:
        ConfigError: all are held.
    """
    first = next(_turn)
    for number in range(first, first + len(domains)):
        domain = domains[number % len(domains)]
        # A name in Linux's abstract namespace: one process can bind it, no file stays behind, and
        # the system gives it back when the process dies. Like DDS's loopback traffic it belongs to
        # the network namespace, so that containers do not keep each other waiting.
        with socket.socket(socket.AF_UNIX) as held:
            try:
                held.bind(f"\0labeldistill-ros-domain-{domain}")
            except OSError:
                continue
            yield domain
            return
    raise ConfigError(
        f"other runs on this machine hold the ROS domains {domains[0]} to {domains[-1]}: wait for "
        "one to end, or set ROS_DOMAIN_ID"
    )


def domain_environment(domain: int) -> dict[str, str]:
    """Variables that keep ROS in a domain on this machine, with the Fast DDS profile."""
    # Fast DDS 2 of Humble and Jazzy reads the one variable; Fast DDS 3 warns of it.
    fast_dds = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "jazzy") else "FASTDDS"
    variables = {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        f"{fast_dds}_DEFAULT_PROFILES_FILE": str(shared_file("config/fastdds.xml")),
    }
    if os.environ.get("ROS_DISTRO") == "humble":  # does not know the range; later ones warn of this
        variables["ROS_LOCALHOST_ONLY"] = "1"
    return variables


@contextmanager
def own_domain() -> Iterator[None]:
    """A ROS domain on this machine, with the Fast DDS profile, unless the user set one.

    Raises:
        ConfigError: other runs hold all domains.
    """
    with free_domain() as domain:
        # What the user set stays: somebody who watches with RViz has chosen the domain for both.
        chosen = domain_environment(domain).items()
        added = {key: value for key, value in chosen if key not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for key in added:
                del os.environ[key]
