# SPDX-License-Identifier: Apache-2.0
"""`labeldistill label`, which needs no library for bags."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.labelling import label as labelling


def label(
    dataroot: Positional[Path], options: Flat[labelling.LabelOptions], force: bool = False
) -> None:
    """Annotate a data root with the boxes of a LiDAR teacher, or of a result file.

    Boxes above the threshold of their class are put together to objects over time. The tables
    become a folder of their own beside those that are there, unless --into names these.

    Args:
        dataroot: in nuScenes form.
        options: whose boxes become labels, and which of them.
        force: replace tables that were labelled before.
    """
    done = labelling.label(dataroot, options, force=force)
    counts = ", ".join(f"{count} {name}" for name, count in done.boxes.items()) or "none"
    print(f"{done.scenes} scenes, {done.instances} objects; boxes: {counts}")
    print(
        f"left out: {done.weak} boxes below the lowest score, {done.brief} of objects in fewer "
        f"than {options.min_frames} key frames"
    )
    words = ("--version", done.folder.name)
    tell_written(done.folder, then=("labeldistill", "view", dataroot, f"{dataroot}_pages", *words))
