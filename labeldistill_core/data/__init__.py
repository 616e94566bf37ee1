# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables to samples, augmentation, depth labels, batches."""
