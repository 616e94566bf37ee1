# SPDX-License-Identifier: Apache-2.0
"""The streaming detector that offline evaluation, bag tools and the node all call."""

from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_core.runtime.device import Precision

__all__ = ["Detections", "Detector", "Precision"]
