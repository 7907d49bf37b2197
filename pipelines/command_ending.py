"""How a command ends: with an exit code and at most one line that says why, never with a traceback on the screen."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from oatflow.components.errors import OatflowError
from oatflow.components.progress import hide_secrets
from oatflow.components.step_ending import ABOVE, PREFIX, describe_failure, is_cause

from .laptop.place import home_folder

INTERRUPTED = 130
READER_GONE = 128 + signal.SIGPIPE
MEMORY = "close other programs, or lower the batch sizes"


def run_to_end(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; whatever it raises becomes one line on standard error.

    A failure that was not foreseen leaves its traceback in a file that the line names. Who closes the other end of
    standard output (`oatflow status | head`) has seen enough: that is no failure, and says nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that is not UTF-8, and names of files that are not, get escapes in place of an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run_and_flush(command)
    except KeyboardInterrupt:
        _say_line("stopped; run the same command again to continue")
        code = INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone(sys.stdout):
            code = READER_GONE
        else:
            _say_error(error)
            code = getattr(error, "exit_code", 1)
    _give_up_output()
    return code


def end_threads_in_one_line() -> None:
    """Let a thread that fails say so in one line, too."""

    def say_failure(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, Exception):
            _say_error(failed.exc_value)

    threading.excepthook = say_failure


def _run_and_flush(command: Callable[[], int]) -> int:
    try:
        code = command()
    except SystemExit as end:
        # argparse's end of --help.
        code = end.code if isinstance(end.code, int) else 0
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _is_reader_gone(stream: TextIO | None) -> bool:
    """Whether nobody can read any more what is written to a stream."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def _say_error(error: Exception) -> None:
    """Say in one line why the command failed, and where to read more about it if there is more."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("oatflow"):
        _say_line(f"the package {error.name} is not installed; `pip install 'oatflow[laptop]'` installs what every "
                  "command needs")  # fmt: skip
        return
    message = str(error)
    sentence, _ = describe_failure(error, MEMORY)
    if not is_cause(sentence):
        log = _write_log("".join(traceback.format_exception(error)))
        sentence = sentence.replace(ABOVE, f"the file {log}" if log else "what you did", 1)
    elif isinstance(error, OatflowError) and "\n" in message:
        # The lines after the first are the end of another program's log.
        sentence = message.partition("\n")[0]
        log = _write_log(message)
        sentence += f" (more: {log})" if log else ""
    _say_line(sentence)


def _say_line(line: str) -> None:
    with suppress(OSError, AttributeError):
        print(f"{PREFIX}{hide_secrets(line)}", file=sys.stderr, flush=True)


def _write_log(text: str) -> Path | None:
    """Write a text into a new file that only this user can read: below the home folder if there is one."""
    logs = home_folder(None) / "logs"
    command = " ".join(sys.argv)
    for folder in (logs, None):
        with suppress(OSError):
            handle, name = tempfile.mkstemp(prefix="oatflow-error-", suffix=".log", dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(hide_secrets(f"{command}\nPython {sys.version}\n\n{text.rstrip()}\n"))
            return Path(name)
    return None


def _give_up_output() -> None:
    """Let what could not be written go, where Python would try it again at its end and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except AttributeError:
            continue
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
