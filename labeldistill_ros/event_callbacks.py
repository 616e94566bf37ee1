# SPDX-License-Identifier: Apache-2.0
"""rclpy's callbacks for events of the middleware, which Humble keeps in another module."""

from __future__ import annotations

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import (  # type: ignore[import-not-found,no-redef,unused-ignore]
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
    )

__all__ = ["PublisherEventCallbacks", "SubscriptionEventCallbacks"]
