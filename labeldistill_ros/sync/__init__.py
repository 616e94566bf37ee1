# SPDX-License-Identifier: Apache-2.0
"""Image streams to sets of images that were taken together. Nothing here imports ROS."""
