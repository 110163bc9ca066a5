"""What becomes of errors: one line on stderr and the documented exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from igcnn.errors import IgcnnError

OUT_OF_MEMORY = 4
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as programs end that the signal kills


def report(error: BaseException) -> int:
    """Print one line about an error, if there is something to say; return the exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():  # a group of commands by itself
            click.echo(error.format_message())
            return 0
        case click.ClickException():
            return _fail(error, error.format_message(), error.exit_code)
        case IgcnnError():
            return _fail(error, str(error), error.exit_code)
        case MemoryError():
            advice = "not enough memory; use a smaller --batch-size or a smaller network"
            return _fail(error, advice, OUT_OF_MEMORY)
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case BrokenPipeError():
            # nobody reads the output: keep the interpreter from writing to it once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        case OSError():
            return _fail(error, f"{error}; earlier files are unchanged", 1)
    reason = f"{type(error).__name__}: {error}"
    advice = "(internal error; IGCNN_DEBUG=1 shows the traceback)"
    return _fail(error, f"{reason} {advice}", 1)


def _fail(error: BaseException, message: str, code: int) -> int:
    if os.environ.get("IGCNN_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    print("igcnn: error:", " ".join(message.split()), file=sys.stderr, flush=True)
    return code
