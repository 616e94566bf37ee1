# SPDX-License-Identifier: Apache-2.0
"""A ROS domain of its own and a small model, as the tests of the package itself have them."""

from tests.ros.conftest import ros_domain_id, tiny_model  # noqa: F401
