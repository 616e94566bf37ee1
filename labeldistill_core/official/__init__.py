# SPDX-License-Identifier: Apache-2.0
"""The published code's names and configuration, read into ours."""
