"""Entry point: the commands, and what becomes of errors.

Every way to end has its exit code (README, "Exit codes"), and an error is one line on stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from igcnn.errors import IgcnnError
from igcnn.version import __version__

from .convert import convert_group
from .data import data_group
from .doctor import doctor_command
from .eval import evaluate_command
from .gradcheck import gradcheck_command
from .launch import launch_command
from .predict import predict_command
from .reproduce import reproduce_command
from .runs import plot_command, runs_command
from .summary import summary_command
from .trace import trace_command
from .train import train_command

OUT_OF_MEMORY = 4
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as programs end that the signal kills


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(__version__, prog_name="igcnn")
def cli() -> None:
    """Interleaved Group Convolution networks: train, evaluate, predict.

    \b
    igcnn train --net resnet_igc --L 24 --M 2 --dataset digits
    igcnn eval runs/digits/…/checkpoints/best.h5
    igcnn predict runs/digits/…/checkpoints/best.h5 image.png
    igcnn summary --net resnet_igc --depth 20 --L 24 --M 2
    igcnn data fetch cifar10

    Each command explains itself by --help. IGCNN_DEBUG=1 shows the traceback of an error.
    """


cli.add_command(train_command)
cli.add_command(evaluate_command)
cli.add_command(predict_command)
cli.add_command(summary_command)
cli.add_command(trace_command)
cli.add_command(gradcheck_command)
cli.add_command(reproduce_command)
cli.add_command(launch_command)
cli.add_command(doctor_command)
cli.add_command(runs_command)
cli.add_command(plot_command)
cli.add_command(data_group)
cli.add_command(convert_group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with cli.make_context("igcnn", arguments or ["--help"]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        return fail(error, error.format_message(), error.exit_code)
    except IgcnnError as error:
        return fail(error, str(error), error.exit_code)
    except MemoryError as error:
        advice = "not enough memory; use a smaller --batch-size or a smaller network"
        return fail(error, advice, OUT_OF_MEMORY)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # nobody reads the output: keep the interpreter from writing to it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return fail(error, f"{error}; what was saved before is untouched", 1)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return fail(error, f"{reason} (internal error; IGCNN_DEBUG=1 shows the traceback)", 1)
    return 0


def fail(error: BaseException, message: str, code: int) -> int:
    """Print one line about an error, and with IGCNN_DEBUG its traceback; return the code."""
    if os.environ.get("IGCNN_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    print("igcnn: error:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
