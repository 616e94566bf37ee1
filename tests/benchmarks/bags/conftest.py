# SPDX-License-Identifier: Apache-2.0
"""A ROS domain of its own."""

from tests.support.ros_fixtures import ros_domain_id as ros_domain_id
