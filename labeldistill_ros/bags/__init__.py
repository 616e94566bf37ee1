# SPDX-License-Identifier: Apache-2.0
"""Rosbags: from nuScenes, onto topics, from topics, and scored. Only conversion needs no ROS."""
