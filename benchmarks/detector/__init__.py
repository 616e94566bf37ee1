# SPDX-License-Identifier: Apache-2.0
"""The detector: by stage, its accuracy, its parts."""
