# SPDX-License-Identifier: Apache-2.0
"""Spawned processes that begin as copies of one that has imported torch.

To import it takes 2 s of computing, and tests start some forty processes that need it. What such a
copy lacks is the environment of the test that starts it, so that processes that speak ROS, in the
domain of their test, are spawned as they are.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from types import ModuleType

import pytest

from labeldistill_core import processes as pools
from labeldistill_core.experiments import processes as trainings

_IMPORTED = ["torch", "labeldistill_core.processes", "labeldistill_core.experiments.processes"]


class _Prepared(ModuleType):
    """`multiprocessing`, but for what is spawned."""

    def __getattr__(self, name: str) -> object:
        return getattr(multiprocessing, name)

    @staticmethod
    def get_context(method: str) -> BaseContext:
        return multiprocessing.get_context("forkserver" if method == "spawn" else method)


def prepare_processes(patch: pytest.MonkeyPatch) -> None:
    """Let pools and trainings in several processes start theirs in this way."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    for module in (pools, trainings):
        patch.setattr(module, "multiprocessing", _Prepared("multiprocessing"))
