# SPDX-License-Identifier: Apache-2.0
"""`labeldistill synth`."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm
from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.processes import worker_count
from labeldistill_core.synthetic.dataset import WorldOptions, scene_settings, write_dataset


def synth(out: Positional[Path], options: Flat[WorldOptions], bags: bool = False) -> None:
    """Write driving scenes of a synthetic world as a nuScenes data root.

    A call that was cut off goes on where it stopped when it is repeated.

    Args:
        out: folder for the data root.
        options: what is written.
        bags: write a bag for each scene instead, as the vehicle would record it: images as the
            lenses bend them, at the rates of the cameras.
    """
    if not bags:
        version = write_dataset(out, options)
        print(f"{out}: {options.scenes} scenes of {options.key_frames} key frames as {version}")
        tell_written(out, then=("labeldistill", "view", out, f"{out}_pages", "--limit", "20"))
        return
    # Imported here, since a data root needs no library for bags.
    from labeldistill_ros.bags.world import record_worlds
    from labeldistill_ros.bags.writer import BagOutput

    _, settings = scene_settings(options)
    workers = worker_count(options.workers)
    done = record_worlds(settings, out, BagOutput(), workers=workers)
    for _ in tqdm(done, total=len(settings), unit="scene", disable=None):
        pass
    print(f"{out}: {len(settings)} bags of {options.key_frames} key frames")
    bags_there = sorted(file.parent for file in out.glob("*/metadata.yaml"))
    tell_written(
        out,
        then=("labeldistill", "bag", "to-nuscenes", *bags_there, f"{out}_dataset", "--plan"),
    )
