# SPDX-License-Identifier: Apache-2.0
"""A simulated vehicle and a running node, for tests, failure table and benchmarks."""
