"""`igcnn gradcheck`: are the gradients right?"""

from __future__ import annotations

import json
from typing import Any

import click

from .dataset import Progress
from .network import make_network, network_options, settings_line
from .options import GroupedCommand, setting_options

SHRINKING = 4  # of the images, to be done in seconds


@click.command("gradcheck", cls=GroupedCommand)
@network_options
@click.option(
    "--elements",
    type=click.IntRange(0),
    default=40,
    show_default=True,
    help="Random elements to check per tensor; 0 for all.",
)
@click.option("--tolerance", type=float, default=1e-6, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@setting_options("device", device="cpu")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gradcheck_command(
    elements: int, tolerance: float, seed: int, device: str | None, as_json: bool, **options: Any
) -> None:
    """Check gradients by central differences.

    Compares the gradient of every layer, in float64. Images have a quarter of their usual
    side, 8×8 or 56×56, unless --image-size says otherwise. Each layer is checked alone, at
    its input in the network, with a random cotangent; the last row is the loss of
    the whole network. Errors are relative to the gradient, beyond what rounding explains.
    Elements at which a layer is not differentiable (ReLU at 0) are counted and do not fail.
    Exit code 1 if a check fails.

    \b
    igcnn gradcheck --net resnet_igc --depth 8 --L 4 --M 2
    igcnn gradcheck --net plain_igc --elements 0
    igcnn gradcheck --depth 8 --L 4 --device emu --elements 3
    """
    from igcnn.backend import on_device, resolve_device
    from igcnn.errors import AutogradError
    from igcnn.inspection import check_gradients

    device = resolve_device(device or "cpu")
    network, image_shape = make_network(**options, dtype="float64")
    if options["image_size"] is None:
        side = network.image_size // SHRINKING
        image_shape = 3, side, side
    network.to(device)
    with on_device(device):
        checks = check_gradients(
            network,
            image_shape,
            elements=elements or None,
            tolerance=tolerance,
            seed=seed,
            progress=Progress("elements", at_once=False),
        )
    if as_json:
        rows = [check.to_json() for check in checks]
        click.echo(json.dumps({"network": network.settings, "layers": rows}))
    else:
        click.echo(f"{settings_line(network)}\n")
        width = max(len(check.name) for check in checks)
        kind = max(len(check.type) for check in checks)
        head = f"{'layer':{width}}  {'type':{kind}}  elements  worst error  of"
        click.echo(head)
        for check in checks:
            report = check.report
            worst = f"{check.tensors[report.worst_input]}{list(report.worst_index)}"
            state = f"  {report.kinks} not differentiable" if report.kinks else ""
            state += "" if report.passed else "  FAILED"
            click.echo(
                f"{check.name:{width}}  {check.type:{kind}}  {report.elements:8}  "
                f"{report.worst_error:11.1e}  {worst}{state}"
            )
    failed = [check.name for check in checks if not check.report.passed]
    if failed:
        raise AutogradError(
            f"gradcheck: {len(failed)} of {len(checks)} failed: {', '.join(failed)}; the "
            "backward pass of these layers does not match their forward pass"
        )
