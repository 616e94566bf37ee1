# SPDX-License-Identifier: Apache-2.0
"""Pictures and pages for people: boxes in images and from above, charts, HTML."""
