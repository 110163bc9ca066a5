"""`igcnn doctor`: checks the installation and prints how to fix what does not work."""

from __future__ import annotations

import json

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def doctor_command(as_json: bool) -> None:
    """Check the installation: BLAS, compiler, GPU, CuPy, NCCL, MPI.

    For each missing part it prints the command that installs it. Training on a CPU needs none
    of them.
    """
    from dataclasses import asdict

    from igcnn.inspection import examine

    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = {True: "ok", False: "--", None: "  "}[finding.works]
        click.echo(f"{mark}  {finding.name:{width}}  {finding.what}")
        if finding.works is False and finding.cure:
            click.echo(f"    {'':{width}}  → {finding.cure}")
