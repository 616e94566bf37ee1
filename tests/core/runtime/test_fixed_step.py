# SPDX-License-Identifier: Apache-2.0
"""What a CUDA graph allows, watched without a GPU: fake tensors stand in for those on a device."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import deform_conv2d

from labeldistill_core.config import StudentConfig
from labeldistill_core.network.depth_net import CAMERA_VECTOR_SIZE, FrameFeatures
from labeldistill_core.network.lift import PoolingTable
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.fixed_step import FixedStep
from labeldistill_core.runtime.fuse import fuse

GPU = torch.device("cuda", 0)
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Watch(TorchDispatchMode):
    """Notes operations that a graph cannot hold, and copies between host and device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forbidden: list[str] = []
        self.waiting_copies: list[str] = []
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        frames = [f for f in traceback.extract_stack() if "labeldistill_core" in f.filename]
        where = f"{func} at {frames[-1].filename}:{frames[-1].lineno}" if frames else str(func)
        # an index of whole numbers has a shape that the host knows
        known = func is torch.ops.aten.index.Tensor and not any(
            x.dtype in (torch.bool, torch.uint8) for x in tree_leaves(args[1]) if x is not None
        )
        # torchvision starts its kernels on the default stream, where a recording does not see them
        unseen = func.namespace == "torchvision"
        waits = WAITS & set(func.tags) and not known
        if unseen or waits or any(x.device.type == "cpu" for x in tensors):
            self.forbidden.append(where)
        if len({x.device.type for x in tensors}) > 1:
            self.copies += 1
            names = [argument.name for argument in func._schema.arguments]
            given = dict(zip(names, args, strict=False)) | (kwargs or {})
            if not given.get("non_blocking"):
                self.waiting_copies.append(where)
        return out


@contextmanager
def fake_gpu() -> Iterator[None]:
    with (
        FakeTensorMode(),
        # autocast and the buffers ask
        patch("torch.cuda.is_available", lambda: True),
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
    ):
        yield


def on_gpu(network: Student) -> Student:
    """The network with fakes in place of its tensors."""
    for module in network.modules():
        parameters, buffers = (
            module.named_parameters(recurse=False),
            module.named_buffers(recurse=False),
        )
        for name, tensor in (*parameters, *buffers):
            fake = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU
            )
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
            setattr(module, name, fake)
    return network


@pytest.fixture(params=[torch.float32, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    dtype: torch.dtype = request.param
    return dtype


@pytest.mark.parametrize("history_s", [(), (0.5, 1.0)])
@torch.inference_mode()
def test_what_is_recorded_neither_waits_nor_copies(
    new_student: Callable[..., Student],
    tiny_config: StudentConfig,
    dtype: torch.dtype,
    history_s: tuple[float, ...],
) -> None:
    network = fuse(new_student(replace(tiny_config, history_s=history_s)), dtype)
    with fake_gpu():
        step = FixedStep(on_gpu(network), dtype, GPU)
        with Watch() as watch:
            current, found = step.compute()
    assert watch.forbidden == []
    assert {current.depth.device, found.boxes.device, found.keep.device} == {GPU}
    assert current.depth.dtype == torch.float32
    assert current.context.dtype == dtype


@torch.inference_mode()
def test_the_host_waits_once(
    student: Student, tiny_config: StudentConfig, dtype: torch.dtype
) -> None:
    network, frames, cameras = fuse(student, dtype), tiny_config.frames, 6
    waited = MagicMock()
    with (
        fake_gpu(),
        patch("torch.cuda.current_stream", waited),
        patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
    ):
        step = FixedStep(on_gpu(network), dtype, GPU)
        images = torch.zeros(1, cameras, 3, 64, 128, dtype=torch.uint8)
        geometry = (torch.zeros(cameras, CAMERA_VECTOR_SIZE), torch.zeros(frames, cameras, 3, 4))
        use = torch.ones(frames, cameras, dtype=torch.bool)
        size = tiny_config.feature_size
        past = FrameFeatures(
            torch.zeros(cameras, tiny_config.depth_bins.count, *size, device=GPU),
            torch.zeros(cameras, tiny_config.depth_net.context_channels, *size, device=GPU),
        )
        step.graph_state = "not recorded"
        with Watch() as watch:
            _, found = step(images, *geometry, use, [past, None])
    assert watch.waiting_copies == []
    assert watch.copies >= 10  # five inputs, and the boxes
    assert found.boxes.device.type == "cpu"
    waited.return_value.synchronize.assert_called_once_with()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: deform_conv2d(*(x.new_zeros(1, n, 1, 1) for n in (1, 2, 1))),
    ],
    ids=["from the host", "number", "mask", "places", "to the host", "torchvision"],
)
def test_the_watch_sees(spoil: Callable[[Tensor], object]) -> None:
    with fake_gpu():
        x = torch.zeros(4, device=GPU)
        with Watch() as watch:
            try:
                spoil(x)
                refused = False
            except (DataDependentOutputException, DynamicOutputShapeException):
                refused = True  # a fake has no values
    assert refused or watch.forbidden


def test_tables_of_fixed_size_sum_the_same(student: Student, tiny_config: StudentConfig) -> None:
    """Points outside fill up a fixed table and add nothing."""
    torch.manual_seed(0)
    points = 40 * torch.randn(1, 6, 10, 4, 8, 3)
    plain, fixed = (PoolingTable.build(points, tiny_config.grid, fixed=f) for f in (False, True))
    assert len(fixed.depth_index) == 6 * 10 * 4 * 8 > len(plain.depth_index)
    assert fixed.share is not None
    assert int(fixed.share.sum()) == len(plain.depth_index)
