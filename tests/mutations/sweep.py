"""Small changes of a Python file, to look for what no test notices."""

import ast
import random
from collections.abc import Iterator
from typing import NamedTuple

SWAPPED = {
    ast.Lt: ast.LtE,
    ast.Gt: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
    ast.Add: ast.Sub,
    ast.Mult: ast.Div,
    ast.FloorDiv: ast.Mod,
    ast.And: ast.Or,
}
SWAPPED |= {other: one for one, other in SWAPPED.items()}


class Change(NamedTuple):
    """A changed source: the line, what it is about, and the whole text."""

    line: int
    words: str
    source: str


def changes(source: str) -> list[Change]:
    """Return every change of a source by one operator, number, `not`, condition or statement."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    data = b"".join(lines)
    found = []
    for node, text in _replacements(ast.parse(source)):
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        changed = data[:first] + text.encode() + data[last:]
        words = f"{' '.join(data[first:last].decode().split())} -> {text}"
        found.append(Change(node.lineno, words, changed.decode()))
    return found


def sample(source: str, count: int, seed: int) -> list[Change]:
    """Return so many of the changes, in the order of their lines."""
    every = changes(source)
    return sorted(random.Random(seed).sample(every, min(count, len(every))))


def _replacements(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield (a node, what to write in its place) for a tree."""
    if isinstance(node, ast.JoinedStr) or _is_for_type_checkers(node):
        return
    yield from ((node, text) for text in _instead_of(node))
    condition = getattr(node, "test", None)  # of if, while and the conditional expression
    if isinstance(condition, ast.Name | ast.Attribute | ast.Call):
        yield condition, f"(not {ast.unparse(condition)})"
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _replacements(child)


def _instead_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            for i, op in enumerate(ops):
                swapped = [*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]]
                yield f"({ast.unparse(ast.Compare(left, swapped, others))})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in SWAPPED:
            yield f"({ast.unparse(ast.BinOp(left, SWAPPED[type(op)](), right))})"
        case ast.BoolOp(op=op, values=values):
            yield f"({ast.unparse(ast.BoolOp(SWAPPED[type(op)](), values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield str(value + 1)
        case ast.Expr(value=ast.Constant() | ast.Yield() | ast.YieldFrom()):
            pass
        case ast.Expr():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.AugAssign() | ast.Raise() | ast.Break() | ast.Continue():
            yield "pass"
        case ast.Return(value=ast.AST() as value) if not isinstance(value, ast.Constant):
            yield "return None"


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
