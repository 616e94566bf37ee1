# SPDX-License-Identifier: Apache-2.0
"""No search for garbage while a program imports, nor ever again in what was imported.

Imports make a million objects that all stay. Looking through them again and again takes a third of
the time of a start, and later a sixth of a second at each full search, in the middle of a step.
"""

from __future__ import annotations

import gc


def pause_collection() -> None:
    """Stop Python's search for garbage until `resume_collection`."""
    gc.disable()


def resume_collection() -> None:
    """Search again, but not in what there is by now; nothing where the search was not stopped."""
    if not gc.isenabled():
        gc.freeze()  # which forked processes share the longer for it, too
        gc.enable()
