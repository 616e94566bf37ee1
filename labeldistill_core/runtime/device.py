# SPDX-License-Identifier: Apache-2.0
"""Devices and precisions by name, and what "auto" means on this machine."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal, get_args

import torch

from labeldistill_core.errors import ConfigError

_LOG = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
        _tell(name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {name!r}: use cpu, cuda:0 or auto") from error
    # torch has names of devices for which nothing here was written, and some compute nothing.
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported: use cpu, cuda:0 or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for, but there is no CUDA: use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device {name!r} was asked for, but the last GPU is cuda:{count - 1}")
    return device


@cache
def _tell(name: str) -> None:
    # Once: a command asks for its device in several places.
    _LOG.info("device auto: %s", name)


def resolve_precision(name: Precision, device: torch.device) -> Precision:
    """The precision of a name; "auto" is float16 on CUDA, bfloat16 on a CPU that multiplies it.

    Raises:
        ConfigError: there is no such precision.
    """
    if name not in get_args(Precision):
        raise ConfigError(f"no precision {name!r}: use {', '.join(get_args(Precision))}")
    if name == "auto":
        if device.type == "cuda":
            return "float16"
        # AVX-512 without these instructions computes bfloat16 more slowly than float32,
        # and older torch, which cannot tell, is given the safe one.
        native = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
        return "bfloat16" if native.get("avx512_bf16") or native.get("amx_bf16") else "float32"
    return name
