# SPDX-License-Identifier: Apache-2.0
"""Files that come along: models and settings, in a checkout or where they were installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from labeldistill_core.errors import ConfigError
from labeldistill_core.runtime.detector import Detector

if TYPE_CHECKING:  # without ROS, too, the files are found
    from labeldistill_ros.parameters import Parameters

DEMO_MODEL = "config/models/demo.safetensors"
_PACKAGE = "labeldistill_ros"

LoadDetector = Callable[["Parameters"], Detector]


def shared_file(name: str) -> Path:
    """Path of a file of the package's share folder.

    Args:
        name: path inside of it, such as `config/detector.yaml`.

    Raises:
        ConfigError: it is not there; lists where it was looked for.
    """
    folders = [Path(__file__).resolve().parents[1], Path(sys.prefix) / "share" / _PACKAGE]
    try:
        from ament_index_python.packages import get_package_share_directory

        folders.insert(0, Path(get_package_share_directory(_PACKAGE)))
    except (ImportError, LookupError, OSError):
        pass  # no ROS distribution, or not built with colcon
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"no file {name} in {', '.join(map(str, folders))}")


def load_detector(parameters: Parameters) -> Detector:
    """The detector that the parameters name; the demo model when they name none.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
        ConfigError: the device is not there, or the file is not the one that was named.
    """
    path = Path(parameters.model).expanduser() if parameters.model else shared_file(DEMO_MODEL)
    detector = Detector.load(
        path,
        device=parameters.device,
        precision=parameters.precision,
        backend=parameters.backend,
        history_tolerance_s=parameters.history.tolerance,
    )
    wanted = parameters.model_sha256.lower()
    if wanted and wanted != detector.checkpoint_sha256:
        raise ConfigError(
            f"{path} has the sha256 {detector.checkpoint_sha256}, model_sha256 says {wanted}: "
            "this is another model"
        )
    return detector
