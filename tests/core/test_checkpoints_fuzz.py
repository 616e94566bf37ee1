# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with wrong, missing and added bytes are read or refused, whoever wrote them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.checkpoints import load_student, save_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.student import Student
from labeldistill_core.published.weights import read_state_dict, rename_student
from labeldistill_core.training.export import read_run
from labeldistill_core.weights import load_weights
from tests.support.damage import damaged
from tests.support.fuzzing import fuzz


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_config: StudentConfig) -> tuple[Path, ...]:
    """A student's file, and one of torch."""
    folder = tmp_path_factory.mktemp("sound")
    student = Student(tiny_config)
    save_student(folder / "own.safetensors", student)
    few = {f"model.{name}": value for name, value in list(student.state_dict().items())[:20]}
    torch.save({"state_dict": few}, folder / "theirs.ckpt")
    return folder / "own.safetensors", folder / "theirs.ckpt"


@fuzz(60)
@given(seed=st.integers(0, 2**32), head=st.booleans())
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, ...], seed: int, head: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    data = files[0].read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    spoilt = damaged(data[:size], seed) + data[size:] if head else damaged(data, seed)
    file.write_bytes(spoilt)
    with suppress(CheckpointError):
        student = load_student(file).student
        assert all(p.isfinite().all() for p in student.state_dict().values())


@fuzz(60)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_of_torch_is_refused_and_named(
    tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, ...], seed: int
) -> None:
    source = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    source.write_bytes(damaged(files[1].read_bytes(), seed))
    network = torch.nn.Linear(2, 3)  # what is whole is of another network
    with pytest.raises(CheckpointError) as refused:
        load_weights(network, rename_student(read_state_dict(source)), "the file")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 5000
    with pytest.raises(CheckpointError, match="damaged or not of this project"):
        read_run(source)
