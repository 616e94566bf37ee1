# SPDX-License-Identifier: Apache-2.0
"""The step as a GPU wants it: the same shapes every time, and no result that the host waits for.

So a CUDA graph can record it once, and a set of images costs one launch. What depends on the
history is chosen by values: a past frame that is missing is replaced by the current one on the
device.

Shapes: S frames (the current one first), N cameras, D depth bins, H W feature rows and columns,
C context channels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from labeldistill_core.network.decode import Candidates, suppressed
from labeldistill_core.network.depth_net import CAMERA_VECTOR_SIZE, FrameFeatures
from labeldistill_core.network.lift import PoolingTable, pool, ray_points
from labeldistill_core.network.student import Student

_LOG = logging.getLogger(__name__)
_RECORDED = "recorded"
_WARM_UP = 3
"""Steps before recording, in which libraries choose their algorithms and take their memory."""


class FixedStep:
    """Runs a network that `fuse` made over buffers that stay where they are."""

    def __init__(self, network: Student, dtype: torch.dtype, device: torch.device) -> None:
        """Take the memory.

        Args:
            network: on `device`.
            dtype: that its convolutions compute in.
            device: of the buffers; only on CUDA the step is recorded.
        """
        self._network, self._dtype, self._device = network, dtype, device
        config = network.config
        frames, cameras = config.frames, len(config.cameras)
        past = (frames - 1, cameras)

        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._images = buffer(
            1, cameras, 3, config.image.height, config.image.width, dtype=torch.uint8
        )
        self._camera = buffer(cameras, CAMERA_VECTOR_SIZE)
        self._rays = buffer(frames, cameras, 3, 4)
        self._use = buffer(frames, cameras, dtype=torch.bool)
        self._there = buffer(frames - 1, 1, 1, 1, 1, dtype=torch.bool)
        self._depth = buffer(*past, config.depth_bins.count, *config.feature_size)
        self._context = buffer(*past, config.depth_net.context_channels, *config.feature_size)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: tuple[FrameFeatures, Candidates] | None = None
        self._on_gpu = device.type == "cuda"
        self.graph_state = "" if self._on_gpu else "not on a GPU"
        """What became of the CUDA graph: "recorded", why not, or empty before the first step."""

    def __call__(
        self,
        images: Tensor,
        camera: Tensor,
        rays: Tensor,
        use: Tensor,
        past: Sequence[FrameFeatures | None],
    ) -> tuple[FrameFeatures, Candidates]:
        """The step.

        Args:
            images: (1, N, 3, rows, columns) uint8 in red, green, blue, on any device.
            camera: (N, 27), see `camera_vector`; on the CPU, as the next two.
            rays: (S, N, 3, 4), see `lift.ray_matrices`; of the current frame where one is missing.
            use: (S, N) bool, cameras of each frame that take part; the current ones where it is
                missing.
            past: what earlier steps returned, on the device; None where a frame is missing.

        Returns:
            Depth (N, D, H, W) and context (N, C, H, W) of the current frame on the device, and
            boxes on the CPU.
        """
        there = torch.tensor([frame is not None for frame in past], dtype=torch.bool)
        for buffer, value in (
            (self._images, images),
            (self._camera, camera),
            (self._rays, rays),
            (self._use, use),
            (self._there, there.view(-1, 1, 1, 1, 1)),
        ):
            if self._on_gpu and value.device.type == "cpu":
                # From other memory the copy would wait for the device.
                value = value.pin_memory()
            buffer.copy_(value, non_blocking=True)
        for index, frame in enumerate(past):
            if frame is not None:
                self._depth[index].copy_(frame.depth)
                self._context[index].copy_(frame.context)
        with _algorithm_search():
            recordable = self.graph_state in ("", _RECORDED)
            current, found = self._replayed() if recordable else self.compute()
        on_cpu = found.to("cpu", non_blocking=True)
        # the buffers of a recorded step are overwritten by the next one
        kept = FrameFeatures(current.depth.clone(), current.context.clone())
        if self._on_gpu:
            torch.cuda.current_stream(self._device).synchronize()
        return kept, on_cpu

    def compute(self) -> tuple[FrameFeatures, Candidates]:
        """The step over what lies in the buffers, without copies and without waiting."""
        network, config = self._network, self._network.config
        with self._autocast():
            current = network.encode(self._images, self._camera)
        # Chosen by values, as a recording has no branches: a missing past frame is the current one.
        depth = torch.where(self._there, self._depth, current.depth)
        context = torch.where(self._there, self._context, current.context.float())
        features = FrameFeatures(
            torch.cat([current.depth[None], depth]).flatten(0, 1),
            torch.cat([current.context[None].float(), context]).flatten(0, 1),
        )
        points = ray_points(network.pixels, network.depths, self._rays)
        # All points go into it, those outside the grid as well: how many are inside would be a
        # shape.
        table = PoolingTable.build(points, config.grid, self._use, fixed=True)
        cells = pool(features, table).to(self._dtype).flatten(0, 1)[None]
        with self._autocast():
            maps = network.detect(cells).maps
        return current, suppressed(maps, config.grid, config.decode)

    def _replayed(self) -> tuple[FrameFeatures, Candidates]:
        """Record at the first call; without a graph where the device's libraries refuse."""
        if self._graph is None:
            try:
                self._graph, self._outputs = self.record()
                self.graph_state = _RECORDED
            except RuntimeError as error:
                _LOG.warning("steps run without a CUDA graph: %s", error)
                self.graph_state = str(error)
                return self.compute()
        with torch.cuda.device(self._device):
            self._graph.replay()
        assert self._outputs is not None
        return self._outputs

    def record(self) -> tuple[torch.cuda.CUDAGraph, tuple[FrameFeatures, Candidates]]:
        """A graph of the step, and the tensors that each replay of it writes to.

        Raises:
            RuntimeError: the device's libraries refuse.
        """
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            # a recording that fails leaves its stream as the current one; this brings ours back
            with torch.cuda.stream(aside):
                # On the stream of the recording, since libraries keep a workspace for each.
                for _ in range(_WARM_UP):
                    self.compute()
                graph = torch.cuda.CUDAGraph()
                # other threads may use the device meanwhile
                with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                    outputs = self.compute()
            torch.cuda.current_stream().wait_stream(aside)
        return graph, outputs

    def _autocast(self) -> torch.autocast:
        # a recorded step must not depend on casts that an earlier one left behind
        enabled = self._dtype != torch.float32
        return torch.autocast(self._device.type, self._dtype, enabled=enabled, cache_enabled=False)


@contextmanager
def _algorithm_search() -> Iterator[None]:
    """Let cuDNN measure which algorithm is the fastest: shapes stay, so the search pays.

    The switch belongs to the process, whose other networks may see another shape every time.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
