# SPDX-License-Identifier: Apache-2.0
"""`labeldistill bag to-nuscenes`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.errors import ConfigError
from labeldistill_core.exit_codes import REFUSED
from labeldistill_core.processes import worker_count
from labeldistill_ros.bags.dataset.convert import plan_drives, write_drives
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.plan import Drive
from labeldistill_ros.bags.dataset.plan_text import plan_text


def to_nuscenes(
    paths: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="BAG [BAG ...] OUT")],
    options: Flat[DatasetOptions],
    plan: bool = False,
    force: bool = False,
    workers: int = 0,
) -> int:
    """Convert rosbags of one's own vehicle to a data root in nuScenes form.

    A call that was cut off goes on where it stopped when it is repeated, and a later one adds its
    drives to those that are there.

    Args:
        paths: folders or files of the bags, of which those that overlap or follow one another are
            one drive, and at last the folder of the data root.
        options: what is taken.
        plan: print what was found and what would become of it, and write nothing.
        force: write scenes anew that are there already.
        workers: scenes at a time; one a core when 0.
    """
    *bags, out = paths or (Path(),)
    worker_count(workers)  # refused before a look through hours of bags
    if not bags:
        raise ConfigError("name one bag or more, and then the folder of the data root")
    with tqdm(total=100 * len(bags), unit="%", desc="looking through", disable=None) as bar:
        shares: dict[Path, float] = {}

        def progress(bag: Path, share: float) -> None:
            shares[bag] = share
            bar.update(round(100 * sum(shares.values())) - bar.n)

        drives = plan_drives(bags, options, progress)
    # Nothing has been written so far: a plan shows what a day of conversion would do.
    if plan:
        for drive in drives:
            print(plan_text(drive))
        return REFUSED if any(drive.problems for drive in drives) else 0
    for drive in drives:
        # To the error stream, so that what is piped on is the result alone.
        for note in drive.notes:
            print(f"{drive.name}: {note}", file=sys.stderr)
    return _write(drives, out, options, force, workers)


def _write(
    drives: list[Drive], out: Path, options: DatasetOptions, force: bool, workers: int
) -> int:
    failed = kept = 0
    total = sum(len(drive.scenes) for drive in drives)
    with tqdm(total=total, unit="scene", disable=None) as bar:
        for result in write_drives(drives, out, options, workers=workers, force=force):
            bar.update()
            failed += bool(result.error)
            if result.error:
                tqdm.write(f"error: {result.error}", file=sys.stderr)
            elif done := result.done:
                tqdm.write(
                    f"{result.name}: {done.key_frames} key frames, {done.images} images, "
                    f"{done.scans} scans, {done.boxes} boxes"
                )
            else:
                kept += 1
    if kept:
        print(f"{kept} of {total} scenes were there already")
    if failed:
        print(f"error: {failed} of {total} scenes failed; no tables were written", file=sys.stderr)
        return REFUSED
    print(f"{out}: {total} scenes as {options.version}")
    words = ("--version", options.version)
    tell_written(out, then=("labeldistill", "view", out, f"{out}_pages", *words, "--limit", "20"))
    return 0
