"""Run every case and print the table: python -m tests.peers."""

import sys

from .cases import run
from .table import CASES, lines

failed = 0
for case in CASES:
    try:
        run(case)
    except Exception as error:
        failed += 1
        print(f"{type(error).__name__}: {error}\n    {case}")
print(*lines(), sep="\n")
sys.exit(f"{failed} cases have another outcome" if failed else 0)
