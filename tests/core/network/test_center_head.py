# SPDX-License-Identifier: Apache-2.0
import copy
from dataclasses import replace

import pytest
import torch

from labeldistill_core.config import HeadConfig
from labeldistill_core.network.center_head import CenterHead

CONFIG = HeadConfig(tasks=(("car",), ("bus", "trailer")), shared_channels=8, branch_channels=4)


def test_maps_of_every_task() -> None:
    first, second = CenterHead(CONFIG, 6)(torch.randn(2, 6, 5, 7))
    assert first.heatmap.shape == (2, 1, 5, 7)
    assert second.heatmap.shape == (2, 2, 5, 7)
    code = second.box_code
    assert code.shape == (2, 10, 5, 7)
    assert torch.equal(code[:, 0:2], second.offset)
    assert torch.equal(code[:, 2:3], second.height)
    assert torch.equal(code[:, 3:6], second.size)
    assert torch.equal(code[:, 6:8], second.heading)
    assert torch.equal(code[:, 8:10], second.velocity)


def last_biases(head: CenterHead) -> list[torch.Tensor]:
    """Of the last layer of each task's heatmap."""
    branches = [task.get_submodule("heatmap") for task in head.tasks]
    return [list(branch.parameters())[-1] for branch in branches]


def test_a_new_head_expects_few_objects() -> None:
    torch.manual_seed(0)
    head = CenterHead(CONFIG, 6)
    biases = last_biases(head)
    assert len(biases) == len(CONFIG.tasks)
    assert CONFIG.heatmap_bias is not None
    assert all(bias.eq(CONFIG.heatmap_bias).all() for bias in biases)
    published = CenterHead(replace(CONFIG, heatmap_bias=None), 6)
    assert last_biases(published)[0].abs().max() < 0.5


def test_maps_are_float32_under_autocast() -> None:
    head = CenterHead(CONFIG, 6)
    with torch.autocast("cpu", torch.bfloat16):
        maps = head(torch.randn(1, 6, 5, 7))
    assert {maps[0].heatmap.dtype, maps[1].box_code.dtype} == {torch.float32}


@pytest.mark.parametrize("training", [True, False])
def test_branches_together_are_the_branches_one_by_one(training: bool) -> None:
    torch.manual_seed(0)
    together = CenterHead(CONFIG, 6).train(training)
    for norm in (m for m in together.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    alone = copy.deepcopy(together)
    features = torch.randn(3, 6, 5, 7)
    maps = together(features)
    shared = alone.shared(features)
    expected = [
        {name: branch(shared) for name, branch in task.named_children()} for task in alone.tasks
    ]
    for task, one in zip(maps, expected, strict=True):
        for name, wanted in one.items():
            torch.testing.assert_close(getattr(task, name), wanted)
    sum((task.box_code**2).sum() for task in maps).backward()
    sum((m**2).sum() for one in expected for n, m in one.items() if n != "heatmap").backward()
    gradients = dict(alone.named_parameters())
    for name, parameter in together.named_parameters():
        if "heatmap" not in name:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, msg=name)
    torch.testing.assert_close(together.state_dict(), alone.state_dict())
