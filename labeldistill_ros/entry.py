# SPDX-License-Identifier: Apache-2.0
"""Where the programs `labeldistill` and `detector_node` begin.

They import nothing heavy before signals are looked after, see `early_signals`.
"""

from __future__ import annotations

from typing import NoReturn

from labeldistill_ros.early_signals import ignore_signals
from labeldistill_ros.garbage import resume_collection
from labeldistill_ros.program import begin_program, end_program
from labeldistill_ros.standard_streams import lose_what_nobody_reads


def command() -> NoReturn:
    """The program `labeldistill`; ends with the codes of `exit_codes`."""
    begin_program()  # the search for garbage goes on when the command is imported, see `cli`
    from labeldistill_ros.cli import main

    end_program(main())


def node() -> NoReturn:
    """The program `detector_node`; ends with the codes of `exit_codes`."""
    begin_program()
    lose_what_nobody_reads()
    from labeldistill_ros.node.detector_node import main

    resume_collection()
    code = main()
    ignore_signals()  # a second one would kill Python while it ends
    end_program(code)
