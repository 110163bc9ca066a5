"""How many cases there are, by peer and operation, and what must become of them."""

from collections import Counter

from . import chainer, hips, mygrad, pytorch
from .cases import OPERATIONS

PEERS = chainer, mygrad, hips, pytorch
CASES = [case for peer in PEERS for grid in peer.GRIDS for case in grid()]


def groups():
    """Return {(peer, operation): its cases}."""
    found = {}
    for case in CASES:
        found.setdefault((case.peer, case.op), []).append(case)
    return found


def lines():
    """Return the table, then how many cases each rule refuses and each argument would take."""
    rules = Counter(case.rules[0] for case in CASES if case.rules and not case.missing)
    missing = Counter(
        case.missing if case.op in OPERATIONS else "the function itself"
        for case in CASES
        if case.missing
    )
    table = [
        _row("peer", "operation", "cases", "agree", "refused", "not offered"),
        "|---|---|--:|--:|--:|--:|",
        *(_row(*name, *_counts(cases)) for name, cases in groups().items()),
        _row("all", "", *_counts(CASES)),
    ]
    for title, counter in (("refused by the rule", rules), ("not offered", missing)):
        table += ["", _row(title, "cases"), "|---|--:|"]
        table += [_row(*pair) for pair in counter.most_common()]
    return table


def _counts(cases):
    offered = [case for case in cases if not case.missing]
    refused = sum(bool(case.rules) for case in offered)
    return len(cases), len(offered) - refused, refused, len(cases) - len(offered)


def _row(*cells):
    return f"| {' | '.join(map(str, cells))} |"
