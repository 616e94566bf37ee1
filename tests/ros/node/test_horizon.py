# SPDX-License-Identifier: Apache-2.0
"""Images of whose upper part nothing reaches the network are told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeldistill_ros.testing.simulated_drive import SimulatedDrive
from tests.support.rig import PATIENT


@pytest.mark.real_time
@pytest.mark.parametrize(("size_px", "told"), [((160, 90), False), ((160, 128), True)])
def test_images_of_5_to_4_are_told_of(
    tiny_model: Path, size_px: tuple[int, int], told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    parameters = {**PATIENT, "detect_without_listeners": True, "diagnostics.period": 0.1}
    with SimulatedDrive(tiny_model, parameters, size_px=size_px, period_s=0.3) as run:
        run.vehicle.listen()
        assert run.vehicle.wait(lambda: run.processed > 1, 30) is not None
        found = run.vehicle.wait(
            lambda: "horizon" in run.vehicle.diagnostic("camera CAM_FRONT").message,
            10 if told else 1,
        )
        assert (found is not None) == told
        level = run.vehicle.diagnostic("camera CAM_FRONT").level
    assert level == b"\1" or not told
    assert (
        "images of 160 x 128 pixels the network sees rows 64 to 128" in capfd.readouterr().err
    ) == told
