"""Compare random networks: `python -m random_networks COUNT [SEED]`; one that fails is shrunk."""

import sys
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from .compare import compare
from .generator import descriptions

EMULATED = 40  # of so many one runs on the emulator too, which compiles for each new size
counted: Counter[str] = Counter()


@seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
@settings(
    max_examples=int(sys.argv[1]),
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
@given(descriptions(), st.integers(1, EMULATED))
def check(description, number):
    how = compare(description, ("cpu", "emu") if number == EMULATED else ("cpu",))
    counted["networks"] += 1
    counted.update(f"{device}: {words}" for device, words in how.items())
    counted["steps"] += len(description.live())


try:
    check()
finally:
    for words, count in counted.most_common():
        print(f"{count:6}  {words}")
