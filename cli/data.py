"""`igcnn data`: list, download, verify and pack data sets."""

from __future__ import annotations

from pathlib import Path

import click

from igcnn.text import terminal_width, wrap_line

from .dataset import Progress, amount, folder_of, known_source, open_dataset, source_names
from .options import DIRECTORY, GroupedCommand, Value, setting_options

IN_CACHE = setting_options("data_dir", data_dir="the cache")


@click.group("data")
def data_group() -> None:
    """List, download, verify and pack data sets.

    \b
    igcnn data list
    igcnn data fetch cifar10
    igcnn data verify svhn --data-dir ~/data
    igcnn data pack imagenet --data-dir ~/imagenet

    A download is accepted only if its size and SHA-256 match; an interrupted one resumes where it
    stopped. IGCNN_DATA_SOURCES=FILE adds sources, IGCNN_OFFLINE=1 forbids downloads.
    """


@data_group.command("list", cls=GroupedCommand)
@IN_CACHE
def list_command(data_dir: str | None) -> None:
    """List the data sets, their sizes and the files that are present."""
    from igcnn.datasets.sources import load_sources

    lines = ["digits     included          1,797 handwritten digits of 8×8 (UCI, CC BY 4.0)"]
    for name, source in load_sources().items():
        folder = folder_of(name, data_dir)
        there = sum((folder / file.name).is_file() for file in source.files)
        state = f"{there} of {len(source.files)} files"
        size = amount(sum(file.size for file in source.files))
        lines.append(f"{name:10} {state:14} {size:>8}  {source.about}")
    lines.append(
        "folder     your own          train/ and test/, each with a folder for each class"
    )
    for line in lines:
        click.echo(wrap_line(line, terminal_width(), indent=11))


@data_group.command("fetch", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@click.option(
    "--data-dir",
    metavar="DIR",
    type=DIRECTORY,
    help="Download into DIR/NAME. [default: the cache]",
)
def fetch_command(name: str, data_dir: str | None) -> None:
    """Download a data set's official files and verify them."""
    from igcnn.datasets.fetch import fetch

    source = known_source(name)
    folder = folder_of(source.name, data_dir)
    for path in fetch(source, folder, Progress()):
        click.echo(path)


@data_group.command("verify", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@IN_CACHE
def verify_command(name: str, data_dir: str | None) -> None:
    """Check a data set's files against the published SHA-256.

    Unpacked files, and files of the same format with other numbers of images, have no published
    checksum; they are read instead. The exit code is 3 if the data set cannot be used as it is.
    """
    from igcnn.datasets.fetch import verify
    from igcnn.errors import DataError

    source = known_source(name)
    folder = folder_of(source.name, data_dir)
    states = verify(source, folder)
    for file, state in states.items():
        click.echo(f"{folder / file}: {state}")
    damaged = [
        file.name
        for file in source.files
        if states[file.name] not in ("ok", "missing")
        and (folder / file.name).stat().st_size == file.size
    ]
    if damaged:
        raise DataError(
            f"{source.name}: {', '.join(damaged)} damaged; delete the damaged files and run "
            f"igcnn data fetch {source.name}"
        )
    if set(states.values()) != {"ok"}:
        _verify_by_reading(source.name, data_dir, states)


@data_group.command("where", cls=GroupedCommand)
@click.argument("name", type=Value(source_names))
@IN_CACHE
def where_command(name: str, data_dir: str | None) -> None:
    """Print the folder that holds a data set's files."""
    click.echo(folder_of(known_source(name).name, data_dir))


@data_group.command("pack", cls=GroupedCommand)
@click.argument("name", type=click.Choice(["imagenet", "cifar10"], case_sensitive=False))
@click.option(
    "--data-dir", metavar="DIR", type=DIRECTORY, help="Directory with the original data set."
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="File or directory to write. [default: next to the data]",
)
@setting_options("workers", "on_bad_image")
def pack_command(
    name: str, data_dir: str | None, output: str | None, workers: int | None, on_bad_image: str
) -> None:
    """Pack a data set into fewer bytes.

    imagenet: all images, resized to a short side of 480 pixels, in one HDF5 file that is read
    sequentially. cifar10: a folder of six files, lossless, 99 MiB instead of 176.
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
            click.echo(f"{split}: {count} unreadable images skipped", err=True)
    click.echo(f"{path}  {amount(path.stat().st_size)}")


def _pack_cifar10(folder: Path, data_dir: str | None) -> None:
    from igcnn.datasets.cifar import pack_cifar10
    from igcnn.errors import ConfigError

    if folder.exists():
        raise ConfigError(f"{folder} exists; move it away or choose another -o")
    dataset = open_dataset("cifar10", data_dir)
    for path in pack_cifar10(dataset, folder, Progress("images")):
        click.echo(f"{path}  {amount(path.stat().st_size)}")


def _verify_by_reading(name: str, data_dir: str | None, states: dict[str, str]) -> None:
    """Say how many images there are in files other than the published ones.

    Raises:
        MissingDataError: files are missing.
        DataError: files are damaged, or not of the format.
    """
    from igcnn.datasets import load_dataset
    from igcnn.errors import MissingDataError

    place = data_dir or str(folder_of(name, None).parent)
    try:
        dataset = load_dataset(name, place)
    except MissingDataError:
        missing = ", ".join(file for file, state in states.items() if state == "missing")
        raise MissingDataError(
            f"{name}: {missing} missing in {folder_of(name, data_dir)}; run igcnn data fetch "
            f"{name}"
        ) from None
    images = f"{len(dataset.train):,} training and {len(dataset.test):,} test images"
    if set(states.values()) == {"missing"}:
        click.echo(
            f"{place}: {images} in unpacked files; only the archive has a published checksum"
        )
    else:
        click.echo(f"{name}: not the official files, but readable: {images}")
