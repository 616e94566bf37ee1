# SPDX-License-Identifier: Apache-2.0
"""`labeldistill demo`."""

from __future__ import annotations

from labeldistill_core.console import Flat
from labeldistill_ros import demo as demonstration


def demo(options: Flat[demonstration.DemoOptions]) -> None:
    """Replay a bag through the detector node over ROS, score its boxes and draw them.

    The node is the one that `ros2 launch` starts, in a process of its own; images and boxes go
    over DDS.

    Args:
        options: what is replayed, and which detector sees it.
    """
    # First, and at once: loading torch and starting the node take longer than people wait in
    # silence.
    print(f"replaying {options.played} through the node ...", flush=True)
    done = demonstration.demo(options)
    print(done.replayed)
    print(done.score.table())
    for sentence in (options.expected, done.slow):
        if sentence:
            print(f"\n{sentence}")
    print(f"\nopen {done.page}")
