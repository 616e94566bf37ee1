# SPDX-License-Identifier: Apache-2.0
"""`python -m labeldistill_ros.node`: the same as `detector_node`."""

from labeldistill_ros.entry import node

if __name__ == "__main__":
    node()
