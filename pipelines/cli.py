"""The entry of the command line: what takes time to import is imported where its failures become one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from .command_ending import end_threads_in_one_line, run_to_end


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit (2: input refused, 3: claim held, 4: waits for people, 130: stopped, 1: failed)."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        # A shell starts background commands deaf to Ctrl-C; and a polite end must stop what was started, too.
        signal.signal(stop, signal.default_int_handler)
    if argv is not None:
        sys.exit(run_to_end(lambda: _run(argv)))
    end_threads_in_one_line()
    code = run_to_end(lambda: _run(sys.argv[1:]))
    for stop in (signal.SIGINT, signal.SIGTERM):
        # While Python clears up, Ctrl-C has nothing left to stop, and its traceback nobody to catch it.
        signal.signal(stop, signal.SIG_DFL)
    sys.exit(code)


def _run(argv: Sequence[str]) -> int:
    from .command_table import run_command

    return run_command(argv)


if __name__ == "__main__":
    main()
