# SPDX-License-Identifier: Apache-2.0
"""`labeldistill synth`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset


def synth(out: Positional[Path], options: Flat[WorldOptions]) -> None:
    """Write driving scenes of a synthetic world as a nuScenes data root.

    A call that was cut off goes on where it stopped when it is repeated.

    Args:
        out: folder for the data root.
        options: what is written.
    """
    version = write_dataset(out, options)
    print(f"{out}: {options.scenes} scenes of {options.key_frames} key frames as {version}")
    tell_written(out, then=("labeldistill", "view", out, f"{out}_pages", "--limit", "20"))
