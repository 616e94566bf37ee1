# SPDX-License-Identifier: Apache-2.0
"""A bag that tests read and do not change."""

from pathlib import Path

import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_ros.bags.convert import convert_scene
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.fixture(scope="session")
def bag(shared_dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scene, with sweeps."""
    out = tmp_path_factory.mktemp("bags") / "first"
    convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], out)
    return out
