# SPDX-License-Identifier: Apache-2.0
"""nuScenes results, the official metrics, and pictures."""
