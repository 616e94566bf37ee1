# SPDX-License-Identifier: Apache-2.0
"""`labeldistill demo`."""

from __future__ import annotations

from pathlib import Path

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.evaluation.verdict import write_junit
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.files import refuse_unwritable
from labeldistill_ros import demo as demonstration


def demo(options: Flat[demonstration.DemoOptions], junit: Path | None = None) -> int:
    """Replay a bag through the detector node over ROS, score its boxes and draw them.

    The node is the one that `ros2 launch` starts, in a process of its own; images and boxes go
    over DDS. No ROS distribution is needed. The exit code is 1 when a threshold is missed, so that
    a CI server tests a model on a bag with one call.

    Args:
        options: what is replayed, which detector sees it, and what it must reach.
        junit: file to write the verdict to, as JUnit XML.
    """
    refuse_unwritable(junit, options.animation)
    # At once: loading torch and starting the node take longer than people wait in silence.
    print(f"replaying {options.played} through the node ...", flush=True)
    done = demonstration.demo(options)
    print(done.replayed)
    print(done.score.table())
    for sentence in (options.expected, done.slow):
        if sentence:
            print(f"\n{sentence}")
    if done.checks:
        print("", *(check.sentence() for check in done.checks), sep="\n")
    if junit:
        write_junit(junit, done.checks, {done.score.name: done.record})
        tell_written(junit)
    print(f"\nopen {done.page}")
    return 0 if done.passed else MISSED
