# SPDX-License-Identifier: Apache-2.0
"""Names of devices, and the precisions that they compute natively."""

import pytest
import torch

from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.runtime import Detector
from labeldistill_core.runtime.device import resolve_device, resolve_precision
from labeldistill_core.runtime.loading import torch_engine


def test_the_fastest_precision_is_one_of_the_device(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, expected in (
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert Detector(torch_engine(student, precision="auto")).precision == expected
    with pytest.raises(ConfigError, match="no precision 'int4': use auto, float32"):
        Detector(torch_engine(student, precision="int4"))  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(student: Student) -> None:
    with pytest.raises(ConfigError, match="'cuda:0' was asked for, but there is no CUDA"):
        Detector(torch_engine(student, device="cuda:0"))
    assert Detector(torch_engine(student, device="auto")).device.type == "cpu"


def test_a_device_that_does_not_exist(student: Student) -> None:
    with pytest.raises(ConfigError, match="no device 'toaster'"):
        Detector(torch_engine(student, device="toaster"))
    # torch knows these names, and on the first it would compute nothing at all
    for name in ("meta", "mps", "xpu"):
        with pytest.raises(ConfigError, match=f"device '{name}' is not supported: use cpu"):
            torch_engine(student, device=name)


def test_a_gpu_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda").type == "cuda"
    assert resolve_device("cuda:1").index == 1
    with pytest.raises(ConfigError, match="'cuda:2' was asked for, but the last GPU is cuda:1"):
        resolve_device("cuda:2")


def test_the_precision_of_a_torch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
