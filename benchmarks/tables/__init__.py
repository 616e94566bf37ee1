# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables at their real size, against the devkit."""
