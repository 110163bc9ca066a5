"""Tape: the records that lead to a tensor, to be listed, replayed and walked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..errors import AutogradError
from ..notebook import html_table
from .function import Record, Tensor, records_of

HEADS = "#", "operation", "inputs", "output"
SHOWN = 4  # operations that the repr counts


class Tape:
    """The records that lead to one tensor; see Tape.of.

    Args:
        output: the tensor, of any shape.
        records: they, oldest first.
    """

    def __init__(self, output: Tensor, records: list[Record]) -> None:
        self.output = output
        self.records = records

    @classmethod
    def of(cls, output: Tensor) -> Tape:
        """Return the tape that leads to `output`.

        Raises:
            AutogradError: part of the graph was freed by an earlier backward.
        """
        return cls(output, records_of(output))

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        return "\n".join(f"{i:4d}  {_line(record)}" for i, record in enumerate(self.records))

    def __repr__(self) -> str:
        kinds = Counter(record.function.name for record in self.records)
        counts = ", ".join(f"{count} {name}" for name, count in kinds.most_common(SHOWN))
        more = ", …" if len(kinds) > SHOWN else ""
        return f"Tape({len(self)} records to shape {self.output.shape}: {counts}{more})"

    def _repr_html_(self) -> str:
        rows = [
            (i, record.function.name, _inputs(record), _output(record))
            for i, record in enumerate(self.records)
        ]
        return html_table("Tape, oldest record first", HEADS, rows)

    def replay(self) -> Tensor:
        """Execute the records again, on what their leaves hold now, and return the output.

        Raises:
            AutogradError: backward freed the records, or nobody holds an output any more.
        """
        for record in records_of(self.output):
            output = record.output
            if output is None:
                raise AutogradError(f"replay: nobody holds the output of {_line(record)}")
            output.data = record.function.forward(*(x.data for x in record.inputs))
        return self.output


def _line(record: Record) -> str:
    return f"{record.function.name}({_inputs(record)}) -> {_output(record)}"


def _inputs(record: Record) -> str:
    return ", ".join(x.name or str(x.shape) for x in record.inputs)


def _output(record: Record) -> str:
    return "freed" if record.output is None else str(record.output.shape)
