# SPDX-License-Identifier: Apache-2.0
"""What the published code does otherwise, and its configurations and weights read into ours."""
