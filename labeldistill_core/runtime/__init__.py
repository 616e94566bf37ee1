# SPDX-License-Identifier: Apache-2.0
"""The streaming detector that offline evaluation, bag tools and the node all call."""

from labeldistill_core.runtime.detector import Detections, Detector, Precision

__all__ = ["Detections", "Detector", "Precision"]
