# SPDX-License-Identifier: Apache-2.0
"""LabelDistill: camera-only 3D object detection, its training and its streaming detector.

Nothing here imports ROS; `labeldistill_ros` puts this package on topics.
"""
