"""Entry point: the commands. Exit codes: docs/runs.md, "How a run ends"."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from igcnn.version import __version__

from .conformance import conformance_command
from .convert import convert_group
from .data import data_group
from .doctor import doctor_command
from .eval import evaluate_command
from .export import export_command
from .failure import report
from .gradcheck import gradcheck_command
from .inspection import inspect_command
from .launch import launch_command
from .predict import predict_command
from .reproduce import reproduce_command
from .runs import compare_command, plot_command, runs_command
from .summary import summary_command
from .sweep import sweep_command
from .trace import trace_command
from .train import train_command

COMPLETION = "_IGCNN_COMPLETE"  # how shells ask what may come next


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(__version__, prog_name="igcnn")
def cli() -> None:
    """Interleaved Group Convolution networks: train, evaluate, predict.

    \b
    igcnn train --net resnet_igc --L 24 --M 2 --out try
    igcnn eval try
    igcnn predict try image.png
    igcnn summary --net resnet_igc --depth 20 --L 24 --M 2
    igcnn data fetch cifar10

    COMMAND --help explains a command. IGCNN_DEBUG=1 shows the traceback of an error.
    """


cli.add_command(train_command)
cli.add_command(sweep_command)
cli.add_command(evaluate_command)
cli.add_command(predict_command)
cli.add_command(summary_command)
cli.add_command(trace_command)
cli.add_command(gradcheck_command)
cli.add_command(conformance_command)
cli.add_command(inspect_command)
cli.add_command(reproduce_command)
cli.add_command(launch_command)
cli.add_command(doctor_command)
cli.add_command(runs_command)
cli.add_command(compare_command)
cli.add_command(plot_command)
cli.add_command(data_group)
cli.add_command(export_command)
cli.add_command(convert_group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a sign shows a ?
            stream.reconfigure(errors="replace")
    if instruction := os.environ.get(COMPLETION):
        return shell_complete(cli, {}, "igcnn", COMPLETION, instruction)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with cli.make_context("igcnn", arguments or ["--help"], obj=arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
