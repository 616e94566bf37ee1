# SPDX-License-Identifier: Apache-2.0
"""The LiDAR teacher: CenterPoint on voxels."""
