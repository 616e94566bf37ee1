# SPDX-License-Identifier: Apache-2.0
"""Networks with fewer classes, or in another order, learn from the right labels."""

from __future__ import annotations

import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME
from labeldistill_core.classes import CLASSES, NUSCENES, TASKS
from labeldistill_core.config import BevGrid, HeadConfig
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.targets import build_targets

GRID = BevGrid(cell_m=3.2)
OTHER = (("pedestrian", "car"), ("bus",))


def one_of_each() -> Boxes3D:
    """Ten boxes apart from each other, one of each class."""
    values = torch.zeros(len(CLASSES), 9)
    values[:, 0] = torch.arange(len(CLASSES)) * 9.6 - 46.0
    values[:, 3:6] = 2.0
    return Boxes3D(EGO_FRAME, values, torch.arange(len(CLASSES)), torch.ones(len(CLASSES)))


def test_targets_of_other_tasks_are_those_of_their_classes() -> None:
    usual, other = (
        build_targets([one_of_each()], GRID, HeadConfig(tasks)) for tasks in (TASKS, OTHER)
    )
    where = {
        name: (task, row) for task, names in enumerate(TASKS) for row, name in enumerate(names)
    }
    for task, names in enumerate(OTHER):
        assert other[task].valid.sum() == len(names)
        for row, name in enumerate(names):
            theirs, place = where[name]
            assert torch.equal(other[task].heatmap[0, row], usual[theirs].heatmap[0, place])


def test_label_features_do_not_depend_on_other_classes() -> None:
    encoder = LabelEncoder(LabelEncoderConfig(GRID, OTHER, (4, 4), 8)).eval()
    boxes = one_of_each()
    owned = boxes.labels[[CLASSES.index(name) for task in OTHER for name in task]].sort().values
    assert torch.equal(encoder.embed([boxes]), encoder.embed([boxes[owned]]))
    turned = LabelEncoder(LabelEncoderConfig(GRID, tuple(reversed(OTHER)), (4, 4), 8)).eval()
    turned.load_state_dict(encoder.state_dict())
    first = turned.class_mlp[0]
    assert isinstance(first, torch.nn.Linear)
    first.weight.data = first.weight.data[:, [2, 0, 1]]  # bus, pedestrian, car
    torch.testing.assert_close(turned.embed([boxes]), encoder.embed([boxes]))


def test_a_class_without_ground_truth_is_refused() -> None:
    with pytest.raises(ConfigError, match="names van, of which there is no ground truth"):
        NUSCENES.positions_among(("car", "van"))
