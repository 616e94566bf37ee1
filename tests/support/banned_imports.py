# SPDX-License-Identifier: Apache-2.0
"""Imports in a process in which ROS, or the library of bags, cannot be imported.

It is forked from one that knows torch and the core, neither of which imports what is banned.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")

ROS = ("rclpy", "message_filters", "tf2_ros", "builtin_interfaces", "rcl_interfaces", "*_msgs")
"""The client library and all packages of messages."""


class _Nobody:
    """Finds no module of these names, which may begin with a star."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def bans(self, module: str) -> bool:
        top = module.partition(".")[0]
        return any(top == n or n[0] == "*" and top.endswith(n[1:]) for n in self._names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self.bans(name):
            raise ModuleNotFoundError(name)


def _banning(names: tuple[str, ...], work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    nobody = _Nobody(names)
    assert not [module for module in sys.modules if nobody.bans(module)], "imported before"
    sys.meta_path.insert(0, nobody)
    return work(*arguments)


def without(names: tuple[str, ...], work: Callable[..., T], *arguments: object) -> T:
    """What a function of a module of the tests gives where these packages cannot be imported."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_banning, names, work, arguments).result()


def import_all(package: str) -> list[str]:
    """Import all modules of a package; gives their names."""
    path = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.walk_packages(path, f"{package}.")]
    for name in names:
        importlib.import_module(name)
    return names


def import_one(module: str) -> list[str]:
    """Import a module; gives the names of all that are there then."""
    importlib.import_module(module)
    return list(sys.modules)
