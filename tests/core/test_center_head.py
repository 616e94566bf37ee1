# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import torch

from labeldistill_core.config import HeadConfig
from labeldistill_core.network.center_head import CenterHead

CONFIG = HeadConfig(tasks=(("car",), ("bus", "trailer")), shared_channels=8, branch_channels=4)


def test_maps_of_every_task():
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


def test_a_new_head_expects_few_objects():
    torch.manual_seed(0)
    head = CenterHead(CONFIG, 6)
    for task in head.tasks:
        assert (task["heatmap"][-1].bias == CONFIG.heatmap_bias).all()
    published = CenterHead(replace(CONFIG, heatmap_bias=None), 6)
    assert published.tasks[0]["heatmap"][-1].bias.abs().max() < 0.5


def test_maps_are_float32_under_autocast():
    head = CenterHead(CONFIG, 6)
    with torch.autocast("cpu", torch.bfloat16):
        maps = head(torch.randn(1, 6, 5, 7))
    assert {maps[0].heatmap.dtype, maps[1].box_code.dtype} == {torch.float32}
