# SPDX-License-Identifier: Apache-2.0
"""What becomes of loading processes that fail or die."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labeldistill_core.errors import DataError, LabelDistillError
from labeldistill_core.training.loaders import SharedCollate, begin_loading, loading_error


class Numbers(Dataset[Tensor]):
    """Three tensors, or what is wrong with them."""

    def __init__(self, wrong: str = "") -> None:
        self._wrong = wrong

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        if self._wrong == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._wrong == "data":
            try:
                raise OSError("no such file")
            except OSError as error:
                raise DataError("sample 3: a.jpg is missing: unpack it") from error
        return torch.full((2,), float(index))


def loaded(wrong: str = "") -> list[Any]:
    """Batches out of another process."""
    return list(
        DataLoader(
            Numbers(wrong), 3, num_workers=1, worker_init_fn=begin_loading,
            collate_fn=SharedCollate(lambda samples: {"x": torch.stack(list(samples))}),
        )
    )  # fmt: skip


def test_batches_arrive() -> None:
    assert [batch["x"].tolist() for batch in loaded()] == [[[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]]


def test_too_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    with pytest.raises(RuntimeError) as failed:
        loaded()
    told = loading_error(failed.value, 1)
    assert type(told) is LabelDistillError
    assert "too small for --workers 1. Repeat the command with --workers 0" in str(told)


def test_a_killed_process_is_told() -> None:
    with pytest.raises(RuntimeError) as failed:
        loaded("killed")
    assert "--shm-size" in str(loading_error(failed.value, 1))


def test_an_error_of_ours_comes_without_the_traceback_of_its_process() -> None:
    with pytest.raises(DataError) as failed:
        loaded("data")
    told = loading_error(failed.value, 1)
    assert isinstance(told, DataError)
    assert str(told) == "sample 3: a.jpg is missing: unpack it"


def test_other_errors_stay() -> None:
    assert loading_error(RuntimeError("expected scalar type Half"), 1) is None
    assert loading_error(DataError("sample 3: a.jpg is missing"), 0) is None
