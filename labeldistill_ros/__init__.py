# SPDX-License-Identifier: Apache-2.0
"""LabelDistill on ROS 2: the detector node, its messages and health, and nuScenes rosbags."""
