# SPDX-License-Identifier: Apache-2.0
"""rclpy's event callbacks are found under the module names of all distributions."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from labeldistill_ros import event_callbacks


class OfHumble:
    """Stands for both classes of Humble's module."""


def test_humble_has_them_in_another_module(monkeypatch: pytest.MonkeyPatch) -> None:
    humble = ModuleType("rclpy.qos_event")
    vars(humble).update(PublisherEventCallbacks=OfHumble, SubscriptionEventCallbacks=OfHumble)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rclpy.event_handler", None)
        patch.setitem(sys.modules, "rclpy.qos_event", humble)
        found = importlib.reload(event_callbacks)
        assert found.PublisherEventCallbacks is found.SubscriptionEventCallbacks is OfHumble
    importlib.reload(event_callbacks)


def test_nothing_else_imports_a_module_that_humble_lacks(repository: Path) -> None:
    """Of those that Humble's rclpy does not have and later ones do."""
    lacks = ("rclpy.event_handler", "rclpy.clock_type", "rclpy.parameter_client")
    sources = [*repository.glob("labeldistill_*/**/*.py"), *repository.glob("tests/ros/**/*.py")]
    found = [
        path.relative_to(repository).as_posix()
        for path in sources
        if any(f"from {module} import" in path.read_text() for module in lacks)
    ]
    assert found == ["labeldistill_ros/event_callbacks.py"]
