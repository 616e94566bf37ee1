# SPDX-License-Identifier: Apache-2.0
"""A small world that writes driving scenes in nuScenes form."""
