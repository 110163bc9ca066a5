"""The faults that are planted, from the tables in planted/."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

TABLES = sorted(Path(__file__).with_name("planted").glob("*.toml"))


@dataclass(frozen=True)
class Fault:
    """One fault, and the tests that have to find it.

    Attributes:
        name: what goes wrong.
        file: where, from the root of the tree.
        before: a piece of its text that occurs once.
        after: what is written in its place.
        tests: the fast tests of the file's folder that fail, as on the command line of pytest.
    """

    name: str
    file: str
    before: str
    after: str
    tests: str

    def apply(self, source: str) -> str | None:
        """Return the source with the fault; None where `before` is not in exactly one place."""
        if source.count(self.before) != 1 or self.before == self.after:
            return None
        return source.replace(self.before, self.after)


def planted() -> list[Fault]:
    """Return all of them."""
    tables = [tomllib.loads(table.read_text(encoding="utf-8")) for table in TABLES]
    return [Fault(**values) for table in tables for values in table["fault"]]
