# SPDX-License-Identifier: Apache-2.0
"""`labeldistill doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.files import refuse_unwritable, write_json
from labeldistill_ros.doctor.bag import observe_bag
from labeldistill_ros.doctor.examination import DoctorOptions, Observe, examine
from labeldistill_ros.doctor.finding import verdict


def doctor(
    options: Flat[DoctorOptions],
    bag: Positional[Path | None] = None,
    json: Path | None = None,
) -> int:
    """Check a live vehicle, or a bag of it: topics, rates, clocks, calibrations, transforms, speed.

    Each line names what was looked at, whether that is ok, a WARNING or a FAULT, and the mend. The
    exit code is 0 without a fault, and 1 with one.

    Args:
        options: what the node is told.
        bag: bag to check, which needs no ROS; a live system when not given.
        json: file to write the findings to.
    """
    refuse_unwritable(json)
    with _observer(bag, options) as observe:
        found = examine(observe, options)
    for finding in found:
        print(finding.line())
    print(f"\n{verdict(found)}")
    if json:
        write_json(json, [asdict(finding) for finding in found])
        tell_written(json)
    return MISSED if any(finding.level == "fault" for finding in found) else 0


@contextmanager
def _observer(bag: Path | None, options: DoctorOptions) -> Iterator[Observe]:
    """What watches the bag, or the live system while ROS runs."""
    if bag is not None:
        source = bag
        yield lambda vehicle, _: observe_bag(source, vehicle)
        return
    # A bag is checked without ROS.
    import rclpy

    from labeldistill_ros.doctor.live import observe_live
    from labeldistill_ros.starting import init_ros

    init_ros()
    try:
        yield partial(observe_live, seconds=options.seconds)
    finally:
        rclpy.try_shutdown()
