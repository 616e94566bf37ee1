# SPDX-License-Identifier: Apache-2.0
"""The detector that the node's parameters name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from labeldistill_core.errors import ConfigError
from labeldistill_core.installed_files import demo_model
from labeldistill_core.runtime.detector import Detector

if TYPE_CHECKING:  # the parameters need rclpy
    from labeldistill_ros.parameters import Parameters

LoadDetector = Callable[["Parameters"], Detector]


def load_detector(parameters: Parameters) -> Detector:
    """The detector that the parameters name; the demo model when they name none.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
        ConfigError: the device is not there, or the file is not the one that was named.
    """
    path = Path(parameters.model).expanduser() if parameters.model else demo_model()
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
