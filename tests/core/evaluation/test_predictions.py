# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CAMERAS, FIXED_FRAME, FrameSet
from labeldistill_core.classes import CLASSES
from labeldistill_core.config import ImageConfig
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.runtime.detector import Detector
from tests.support.nuscenes_fixture import SCENES, VERSION


class Blind:
    """Sees a set of images and finds nothing."""

    config = SimpleNamespace(cameras=CAMERAS, image=ImageConfig(64, 160))
    class_names = CLASSES

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []

    def reset(self, reason: str = "") -> None:
        pass

    def detect(self, frames: FrameSet) -> Any:
        self.stamps_ns.append(frames.stamp_ns)
        empty = torch.zeros(0, 9, dtype=torch.float64)
        boxes = Boxes3D(FIXED_FRAME, empty, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        return SimpleNamespace(in_frame=lambda pose: boxes)


def test_samples_without_images_are_left_out_and_counted(
    dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    tables.cameras("sample-1-2")["CAM_BACK"].path.unlink()
    samples = {scene: tables.samples(scene) for scene in SCENES}
    blind = Blind()
    found = student_results(cast(Detector, blind), tables, samples)
    assert len(found) == len(blind.stamps_ns) == 5
    assert "sample-1-2" not in found
    assert "1 of 6 samples lack images and are left out" in caplog.text
    for token in samples[SCENES[0]]:
        tables.cameras(token)["CAM_FRONT"].path.unlink()
    with pytest.raises(DataError, match="none of the 3 samples has all its images"):
        student_results(cast(Detector, blind), tables, {SCENES[0]: samples[SCENES[0]]})
