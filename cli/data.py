"""`igcnn data`: what data sets there are, fetch, verify, where, pack."""

from __future__ import annotations

from pathlib import Path

import click

from igcnn.text import terminal_width, wrap_line

from .dataset import Progress, amount, folder_of, known_source, open_dataset, source_names
from .options import DIRECTORY, GroupedCommand, Value, setting_options


@click.group("data")
def data_group() -> None:
    """List, fetch, verify and pack data sets.

    \b
    igcnn data list
    igcnn data fetch cifar10
    igcnn data verify svhn --data-dir ~/data
    igcnn data pack imagenet --data-dir ~/imagenet

    Files are taken for whole only if size and sha256 agree. A download that was stopped goes on
    where it was. IGCNN_DATA_SOURCES=FILE adds sources, IGCNN_OFFLINE=1 forbids the network.
    """


@data_group.command("list", cls=GroupedCommand)
@click.option("--data-dir", metavar="DIR", type=DIRECTORY, help="Folder of the data sets.")
def list_command(data_dir: str | None) -> None:
    """List the data sets: size, what is there, what they are."""
    from igcnn.datasets.sources import load_sources

    lines = ["digits     in the package    1,797 handwritten digits of 8×8 (UCI, CC BY 4.0)"]
    for name, source in load_sources().items():
        folder = folder_of(name, data_dir)
        there = sum((folder / file.name).is_file() for file in source.files)
        state = f"{there} of {len(source.files)} files"
        size = amount(sum(file.size for file in source.files))
        lines.append(f"{name:10} {state:14} {size:>8}  {source.about}")
    lines.append(
        "folder     yours             train/ and test/, each with a folder for each class"
    )
    for line in lines:
        click.echo(wrap_line(line, terminal_width(), indent=11))


@data_group.command("fetch", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@click.option(
    "--data-dir", metavar="DIR", type=DIRECTORY, help="Fetch into DIR/NAME.  [default: the cache]"
)
def fetch_command(name: str, data_dir: str | None) -> None:
    """Fetch a data set's official files and verify them."""
    from igcnn.datasets.fetch import fetch

    source = known_source(name)
    folder = folder_of(source.name, data_dir)
    for path in fetch(source, folder, Progress()):
        click.echo(path)


@data_group.command("verify", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@click.option("--data-dir", metavar="DIR", type=DIRECTORY, help="Where DIR/NAME holds the files.")
def verify_command(name: str, data_dir: str | None) -> None:
    """Compare size and sha256 of a data set's files with the published ones."""
    from igcnn.datasets.fetch import verify
    from igcnn.errors import DataError

    source = known_source(name)
    folder = folder_of(source.name, data_dir)
    states = verify(source, folder)
    for file, state in states.items():
        click.echo(f"{folder / file}: {state}")
    wrong = [file for file, state in states.items() if state != "ok"]
    if wrong == list(states) and set(states.values()) == {"missing"}:
        _verify_unpacked(source.name, data_dir, wrong)
    elif wrong:
        raise DataError(
            f"{source.name}: {', '.join(wrong)} not as published; delete what is damaged and run "
            f"igcnn data fetch {source.name}"
        )


@data_group.command("where", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@click.option("--data-dir", metavar="DIR", type=DIRECTORY, help="Folder of the data sets.")
def where_command(name: str, data_dir: str | None) -> None:
    """Print the folder of a data set's files."""
    click.echo(folder_of(known_source(name).name, data_dir))


@data_group.command("pack", cls=GroupedCommand)
@click.argument("name", type=click.Choice(["imagenet", "cifar10"], case_sensitive=False))
@click.option(
    "--data-dir", metavar="DIR", type=DIRECTORY, help="Folder with the data set as it is."
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="What to write. [default: beside the data]",
)
@setting_options("workers", "on_bad_image")
def pack_command(
    name: str, data_dir: str | None, output: str | None, workers: int | None, on_bad_image: str
) -> None:
    """Write a data set in fewer bytes.

    imagenet: all images, short side 480, into one HDF5 file that is read in sequence. cifar10: a
    folder of six files, 99 MiB in place of 176, without loss.
    """
    from igcnn.datasets.pack import pack
    from igcnn.errors import ConfigError
    from igcnn.training.cores import available_cores

    folder = Path(data_dir) if data_dir else folder_of(name, None)
    if name == "cifar10":
        _pack_cifar10(Path(output) if output else folder / "cifar-10-packed", data_dir)
        return
    path = Path(output) if output else folder / "imagenet.h5"
    if path.exists():
        raise ConfigError(f"{path} exists; move it away or choose another -o")
    dataset = open_dataset(name, data_dir, workers=workers, on_bad_image=on_bad_image)
    workers = available_cores() if workers is None else workers
    left_out = pack(dataset, path, workers, Progress("images"))
    for split, count in left_out.items():
        if count:
            click.echo(f"{split}: {count} broken images left out", err=True)
    click.echo(f"{path}  {amount(path.stat().st_size)}")


def _pack_cifar10(folder: Path, data_dir: str | None) -> None:
    from igcnn.datasets.cifar import pack_cifar10
    from igcnn.errors import ConfigError

    if folder.exists():
        raise ConfigError(f"{folder} exists; move it away or choose another -o")
    dataset = open_dataset("cifar10", data_dir)
    for path in pack_cifar10(dataset, folder, Progress("images")):
        click.echo(f"{path}  {amount(path.stat().st_size)}")


def _verify_unpacked(name: str, data_dir: str | None, missing: list[str]) -> None:
    """Say what is read where none of the published files is there.

    Raises:
        MissingDataError: nothing is.
    """
    from igcnn.datasets import load_dataset
    from igcnn.errors import MissingDataError

    place = data_dir or str(folder_of(name, None).parent)
    try:
        dataset = load_dataset(name, place)
    except MissingDataError:
        raise MissingDataError(
            f"{name}: {', '.join(missing)} missing in {folder_of(name, data_dir)}; run igcnn data "
            f"fetch {name}"
        ) from None
    click.echo(
        f"{place}: {len(dataset.train):,} training and {len(dataset.test):,} test images are read "
        "from unpacked files; a checksum is published for the archive alone"
    )
