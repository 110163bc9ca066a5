"""Predict the time of every kernel of an update from its compiled code.

    pip install -e ".[test]" && python benchmarks/gpu_listing.py --arch 90

Needs no GPU: NVRTC compiles, nvdisasm (on the PATH or from the package nvidia-cuda-nvdisasm)
disassembles, and the plan of resnet_igc L24M2, depth 20, on `--device emu` tells what an update
launches; nothing is executed. `--write` puts the tables into docs/gpu_predictions.md, which
describes the model.
"""

import argparse
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from math import ceil
from pathlib import Path
from unittest.mock import patch

from cubins import compiled
from gpu import CASES, Ours
from gpu_kernels import noted
from harness import require_device

from igcnn.kernels.interleaved_group_convolution import Unit

PAGE = Path(__file__).parent.parent / "docs/gpu_predictions.md"
CASE = "resnet_igc L24M2"
BATCHES = (64, 1024)
PRECISIONS = ("fp32", "bf16")

# An H100, and what the model assumes about it (explained on the page).
SMS, SCHEDULERS = 132, 4
REGISTERS, SHARED, THREADS, BLOCKS = 65_536, 228 << 10, 2048, 32  # of a multiprocessor
RESERVED = 1 << 10  # bytes of shared memory that a block takes for itself
CLOCK = 1.755e9
COPY = 3.0e12  # bytes a second
LATENCY = 0.8e-6  # seconds from a load to its number, with many under way
READY = 0.4  # how likely a warp can issue its next instruction in a cycle
BRANCHES, TAKEN = 20, 0.5  # of a loop with more branches, so much is issued
START, GAP = 1.3e-6, 0.7e-6  # seconds that an empty kernel takes, and until the next one begins

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)(.*?);")
INTEGER = re.compile(
    r"U?(IADD|IMAD|LOP|SHF|LEA|ISETP|IABS|IMNMX|VIADD|VIMNMX|PRMT|SEL|MOV|PLOP|P2R|R2P|BFE)"
)


@dataclass
class Loop:
    """A loop of a listing.

    Attributes:
        own: its instructions by name, without those of loops inside it.
        outer: whether no other loop contains it.
        inner: the loops inside it.
    """

    own: Counter
    outer: bool
    inner: list["Loop"]

    def count(self, *names):
        """Return how many instructions begin with one of `names`."""
        return sum(n for name, n in self.own.items() if name.startswith(names))

    @property
    def products(self):
        """Multiplications in float32 of one pass."""
        return self.count("FFMA", "FMUL")

    @property
    def loaded(self):
        """Bytes that one pass loads from global memory."""
        return sum(n * width(name) for name, n in self.own.items() if name.startswith("LDG"))


@dataclass
class Listing:
    """The compiled code of a kernel.

    Attributes:
        registers: registers per thread.
        spilled: spilled bytes.
        shared: bytes of static shared memory.
        wide: instructions that load or store 16 bytes of global memory.
        moves: all instructions that load or store global memory.
        straight: instructions outside of loops.
        loops: in the order of the listing.
    """

    registers: int
    spilled: int
    shared: int
    wide: int
    moves: int
    straight: int
    loops: list[Loop]

    @property
    def hot(self):
        """The loop with the most multiplications, or the most instructions."""
        nothing = Loop(Counter(), True, [])
        return max([nothing, *self.loops], key=lambda loop: (loop.products, loop.own.total()))


@dataclass(frozen=True)
class Work:
    """A launch: its kernel, size, bytes and operations."""

    stem: str
    kernel: str
    defines: tuple[str, ...]
    blocks: int
    threads: int
    shared: int
    bytes: int
    flops: int

    @property
    def source(self):
        """The source and defines to compile."""
        return self.stem, self.defines


def width(name):
    """Return how many bytes an instruction moves."""
    found = re.search(r"\.(128|64|[US]?16|[US]8)\b", name)
    return int(found[1].strip("US")) // 8 if found else 4


def launches(precision, batch):
    """Return the launches of an update in order, without executing them."""
    found = []

    def note(stem, kernel, defines, parameters, sizes, values, shared):
        blocks, threads = (x * y * z for x, y, z in sizes)
        found.append((stem, kernel, defines, blocks, threads, shared))

    net, settings, side, _ = CASES[CASE]
    with patch("igcnn.kernels.launch._emulate", note):
        ours = Ours((net, settings, side, batch), batch, "emu", False, precision)
        found.clear()
        with noted() as own:
            ours.update()
    return [Work(*one, of.bytes, of.flops) for one, of in zip(found, own, strict=True)]


@cache
def disassembler():
    """Return the path of nvdisasm, or None."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    paths = [Path(folder) / "cu13/bin/nvdisasm" for folder in folders]
    return next((str(path) for path in paths if path.exists()), shutil.which("nvdisasm"))


def listings(stem, defines, architecture):
    """Return the listing of each kernel in a source file, by name."""
    cubin, log = compiled(stem, defines, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [disassembler(), "-c", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, *parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)
    told = {
        re.match(r" '(\w+)'", part)[1]: part
        for part in re.split(r"Compiling entry function", log)[1:]
    }
    return {
        kernel: read(body, told[kernel])
        for kernel, body in zip(parts[::2], parts[1::2], strict=True)
    }


def read(body, told):
    """Return the Listing of a kernel from the output of nvdisasm and ptxas."""
    instructions, labels, backward = [], {}, []
    for line in body.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.search(line):
            condition, name, rest = found.groups()
            target = re.search(r"`\((\.L_x_\d+)\)", rest)
            # unconditional branches return from out-of-line code
            if name == "BRA" and condition and target and target[1] in labels:
                backward.append((labels[target[1]], len(instructions) + 1))
            instructions.append(name)
    end = max(i for i, name in enumerate(instructions) if name == "EXIT")
    spans = {
        (a, b): [s for s in backward if a <= s[0] and s[1] <= b and s != (a, b)]
        for a, b in backward
    }
    covered = {i for a, b in backward for i in range(a, b)}
    loops = {}
    for a, b in sorted(spans, key=lambda span: span[1] - span[0]):
        within = {i for c, d in spans[a, b] for i in range(c, d)}
        own = Counter(instructions[i] for i in range(a, b) if i not in within)
        outer = not any((a, b) in inner for inner in spans.values())
        loops[a, b] = Loop(own, outer, [loops[span] for span in spans[a, b]])
    moves = [name for name in instructions if name.startswith(("LDG", "STG"))]
    shared = re.search(r"(\d+) bytes smem", told)
    return Listing(
        registers=int(re.search(r"Used (\d+) registers", told)[1]),
        spilled=sum(map(int, re.findall(r"(\d+) bytes spill", told))),
        shared=int(shared[1]) if shared else 0,
        wide=sum(width(name) == 16 for name in moves),
        moves=len(moves),
        straight=sum(i not in covered for i in range(end)),
        loops=[loops[span] for span in sorted(loops)],
    )


def kind(loop):
    """Return what a loop of a fused kernel does, judging by its instructions.

    weights1, weights2: gradients of W^d and W^p; convolve, multiply, share_out, fill: as the
    functions of the source; incoming: Incoming::fill; stage: weights into shared memory; outer:
    over groups or tiles; pieces: what surrounds a loop that multiplies.
    """
    if loop.count("FMUL") > 200:
        return "weights1"
    if loop.count("FMUL") and loop.products > 100:
        return "weights2"
    if loop.products > 50:
        return "convolve" if loop.count("SHFL") else "multiply"
    if loop.inner:
        return "outer" if loop.outer else "pieces"
    if loop.count("SHFL"):
        return "share_out"
    if loop.count("LDG.E.128", "LDG.E.64"):
        return "incoming" if loop.count("FADD") else "fill"
    return "stage"


def passes(kernel, unit, loop, listing, rounds):
    """Return how often a warp runs a loop of a fused kernel, on average.

    For loops that multiply, by the products of the formula; for others, by the values they load.

    Args:
        kernel: name of the kernel.
        unit: sizes of the unit.
        loop: one of the loops of the listing.
        listing: listing of the kernel.
        rounds: tiles per block of the weight gradient.
    """
    u, C, quads, S = unit, unit.L * unit.M, unit.W // 4, unit.L // unit.G  # S: steps over groups
    forward, weight = "forward" in kernel, "weight" in kernel
    T = u.threads if forward else 256 if weight else 128
    R, rows = (rounds, u.WH) if weight else (1, u.TH)
    groups = 1 if weight else S
    what = kind(loop)
    if what == "outer" or (loop.outer and loop.inner):
        return R * groups
    if what in ("fill", "incoming"):
        halo = 0 if weight and what == "incoming" else 2
        channels = u.G * u.M if forward else C
        return R * (S if forward else 1) * ceil(channels * (rows + halo) * quads / (3 * T))
    if what == "stage":
        return S * u.G * (u.M * u.M * 9 + C) / 2 / T / 4
    if what == "share_out":
        return 2
    if what == "pieces":
        deep = any(kind(inner) == "multiply" for inner in loop.inner)
        halves = (rows + (0 if weight else 2)) * quads / 2 * u.M
        pieces = u.G * rows / 2 * quads * u.M / 2
        if weight:
            return R * ceil((halves + pieces) * S / T)
        return groups * ceil((halves if deep else pieces) / T)
    of_output = 9 * u.M if what in ("convolve", "weights1") else u.L
    high = rows + 2 if what == "multiply" and not forward and not weight else rows
    same = sum(one.products for one in listing.loops if kind(one) == what)
    return R * of_output * C * high * u.W / (T * same)


def slots(work, listing):
    """Return the number of instructions issued by all warps of a launch; 0 if not modeled."""
    if work.kernel.startswith("igc_"):
        sizes = dict(part.split("=") for part in work.defines)
        unit = Unit(**{field.name: int(sizes[field.name]) for field in fields(Unit)})
        # tiles that a block of the weight gradient processes one after the other
        values = work.flops / 4 / (9 * unit.M + unit.L)
        rounds = ceil(values / (unit.L * unit.M * unit.W * unit.WH) / work.blocks)
        of_warp = listing.straight + sum(
            loop.own.total() * passes(work.kernel, unit, loop, listing, rounds)
            for loop in listing.loops
        )
        return of_warp * work.blocks * work.threads / 32
    if work.flops and listing.hot.products:
        taken = TAKEN if listing.hot.count("BRA") > BRANCHES else 1
        return work.flops / 64 * taken * listing.hot.own.total() / listing.hot.products
    return 0


def occupancy(work, listing):
    """Return how many blocks of a launch a multiprocessor holds at once."""
    warps = ceil(work.threads / 32)
    of_warp = ceil(listing.registers / 8) * 8 * 32
    memory = work.shared + listing.shared + RESERVED
    return min(REGISTERS // of_warp // warps, SHARED // memory, THREADS // work.threads, BLOCKS)


def predicted(work, listing):
    """Return the predicted seconds of a launch: (memory, arithmetic, total)."""
    busy = min(work.blocks, SMS)
    most = ceil(work.blocks / SMS)  # blocks on the busiest multiprocessor
    resident = min(occupancy(work, listing), most)
    in_flight = max([16, *(loop.loaded for loop in listing.loops)])
    rate = min(COPY, busy * resident * work.threads * in_flight / LATENCY)
    memory = work.bytes / rate
    warps = work.threads / 32
    issue = 1 - (1 - READY) ** (resident * warps / SCHEDULERS)
    cycles = slots(work, listing) / work.blocks * most / SCHEDULERS / issue
    arithmetic = cycles / CLOCK
    waves = work.blocks / (SMS * occupancy(work, listing))
    shown = 1 if occupancy(work, listing) == 1 else 1 / max(1, waves)
    body = max(memory, arithmetic) + shown * min(memory, arithmetic)
    return memory, arithmetic, START + body


def label(work):
    """Return the name of a kernel and the defines that distinguish its variants."""
    told = [d for d in work.defines if re.match(r"(M|TILE|KW|VEC|STORED)=(?!float)", d)]
    return " ".join([f"`{work.kernel}`", *told])


def compiler_cells(listing):
    """Return the cells that depend only on the compiler."""
    hot = listing.hot
    total = hot.own.total()
    integers = sum(n for name, n in hot.own.items() if INTEGER.match(name))
    reads = hot.count("LDS")
    return [
        f"{listing.registers}",
        f"{listing.spilled}",
        f"{listing.wide}/{listing.moves}",
        f"{hot.count('FFMA') / reads:.1f}" if reads and hot.products else "–",
        f"{hot.products / total:.0%}" if hot.products else "–",
        f"{integers / total:.0%}" if total else "–",
    ]


HEAD = (
    "| kernel | launches | registers | spilled | of 16 bytes | FFMA / LDS | products | integer "
    "| shared KB | blocks / SM | waves | MB | GFLOP | instructions, M | µs, batch 64 | µs, 1024 |"
)


def table(precision, found, all_launches):
    """Yield the lines of the table of a precision."""
    yield HEAD
    yield "|---" * (HEAD.count("|") - 1) + "|"
    small, large = (all_launches[precision, batch] for batch in BATCHES)
    groups = {}
    for i, work in enumerate(small):
        groups.setdefault((work.source, work.kernel), []).append(i)

    def seconds(works, indices):
        return sum(
            predicted(works[i], found[works[i].source][works[i].kernel])[2] for i in indices
        )

    for (source, kernel), indices in sorted(
        groups.items(), key=lambda item: -seconds(small, item[1])
    ):
        listing = found[source][kernel]
        works = [small[i] for i in indices]
        first = works[0]
        held = occupancy(first, listing)
        issued = sum(slots(work, listing) for work in works)
        cells = [
            label(first),
            f"{len(works)}",
            *compiler_cells(listing),
            f"{(first.shared + listing.shared) / 1024:.1f}",
            f"{held}",
            f"{max(work.blocks for work in works) / (SMS * held):.2f}",
            f"{sum(work.bytes for work in works) / 1e6:.1f}",
            f"{sum(work.flops for work in works) / 1e9:.2f}",
            f"{issued / 1e6:.1f}" if issued else "–",
            f"{seconds(small, indices) * 1e6:.1f}",
            f"{seconds(large, indices) * 1e6:.1f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def page(architecture):
    """Return the tables of both precisions and the total time of an update."""
    all_launches = {(p, b): launches(p, b) for p in PRECISIONS for b in BATCHES}
    sources = sorted({work.source for works in all_launches.values() for work in works})
    with ThreadPoolExecutor(2) as pool:
        found = dict(
            zip(sources, pool.map(lambda s: listings(*s, architecture), sources), strict=True)
        )
    lines = [
        "| update | launches | µs in kernels | µs between | µs memory | µs instructions | µs | "
        "images/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (precision, batch), works in all_launches.items():
        parts = [predicted(work, found[work.source][work.kernel]) for work in works]
        memory, arithmetic, inside = (sum(column) for column in zip(*parts, strict=True))
        between = GAP * len(works)
        step = inside + between
        cells = [f"{one * 1e6:.0f}" for one in (inside, between, memory, arithmetic, step)]
        lines.append(
            f"| {precision}, batch {batch} | {len(works)} | {' | '.join(cells)} | "
            f"{batch / step:,.0f} |"
        )
    for precision in PRECISIONS:
        lines += ["", f"### {precision}", "", *table(precision, found, all_launches)]
    return "\n".join(lines) + "\n"


def main():
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="90", help="90, the default, for sm_90")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    require_device("emu")
    if disassembler() is None:
        parser.exit(4, "no nvdisasm: pip install nvidia-cuda-nvdisasm\n")
    text = page(arguments.arch)
    if not arguments.write:
        print(text, end="")
        return
    before, rest = PAGE.read_text().split("<!-- tables -->\n")
    after = rest.split("<!-- end of tables -->\n")[1]
    PAGE.write_text(f"{before}<!-- tables -->\n{text}<!-- end of tables -->\n{after}")


if __name__ == "__main__":
    main()
