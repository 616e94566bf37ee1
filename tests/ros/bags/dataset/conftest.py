# SPDX-License-Identifier: Apache-2.0
"""The recording of another vehicle, made once."""

from pathlib import Path

import pytest

from labeldistill_core.synthetic.dataset import scene_settings
from labeldistill_ros.bags.world import record_world
from labeldistill_ros.bags.writer import BagOutput
from tests.support.other_car import SCENE, world_options


@pytest.fixture(scope="session")
def car_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four key frames of three cameras and a LiDAR, not to be changed."""
    folder = tmp_path_factory.mktemp("car")
    (settings,) = scene_settings(world_options(folder))[1]
    assert settings.name == SCENE
    return record_world(settings, folder / "drive", BagOutput())
