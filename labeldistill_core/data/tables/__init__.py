# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables as columns: a typed reading, and an index of them that processes share."""
