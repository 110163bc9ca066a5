"""Random networks by the tape, a plan, the emulator and PyTorch; the long form takes 2,000."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from random_networks.compare import compare
from random_networks.generator import descriptions
from random_networks.network import Description, RandomNetwork, shapes_of
from vectors import without_compiler

from igcnn.plan import cpu_program

pytestmark = without_compiler
TESTS = Path(__file__).parents[1]
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
WINDOW = {"D": 4, "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)}
CONV = WINDOW | {"groups": 1}
SMALL = Description(
    3,
    (3, 5, 4),
    (
        ("conv", (0,), CONV),
        ("batch_norm", (1,), {}),
        ("relu", (2,), {}),
        ("add", (3, 1), {}),
        ("igc", (4,), WINDOW | {"D": 8, "L": 2, "S": 2}),
        ("batch_norm", (5,), {}),
        ("permute", (6,), {"branches": 2}),
    ),
    (7,),
)


@quick
@given(descriptions())
def test_ways_to_compute_a_network_agree(description):
    compare(description)


def test_on_the_emulator_too():
    assert compare(SMALL, ("cpu", "emu")) == {"cpu": "plan", "emu": "plan"}


@pytest.mark.long
def test_two_thousand():
    command = sys.executable, "-m", "random_networks", "2000"
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("cpu: plan")[0].split()[-1]) > 1200


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (("times", (1, 1), {}), "is not supported"),
        (("conv_bias", (0,), CONV), "a convolution with bias"),
    ],
)
def test_what_has_no_plan_is_computed_by_the_tape(step, words):
    description = Description(2, (3, 4, 4), (SMALL.steps[0], step), (2,))
    (how,) = compare(description).values()
    assert how.startswith("tape (no plan: ")
    assert words in how


def test_what_has_a_plan_on_one_device_alone():
    steps = *SMALL.steps[:3], ("three", (3, 3, 1), {})
    how = compare(Description(3, (3, 5, 4), steps, (4,)), ("cpu", "emu"))
    assert how["cpu"] == "plan"
    assert how["emu"].startswith("tape on emu (no plan: GPU plans do not support a sum")


def test_two_heads_have_no_plan():
    (how,) = compare(Description(2, (3, 4, 4), SMALL.steps[:3], (3, 1))).values()
    assert how.startswith("tape (no plan: ")


@pytest.fixture
def wrong(monkeypatch):
    """Plans in which the gradient of a permutation goes the wrong way, alone or folded."""
    permute = cpu_program.permutation.compiled_permutation_backward
    convolve = cpu_program.convolution.compiled_convolution_backward

    def alone(lanes, gy, gx, ending, branches):
        permute(lanes, gy, gx, ending, gx.shape[2] // branches)

    def folded(lanes, gz, x, packed, gx, ending, partials, sizes, branches):
        inverse = [
            n // b if b > 1 else 1 for n, b in zip((sizes["C"], sizes["D"]), branches, strict=True)
        ]
        convolve(lanes, gz, x, packed, gx, ending, partials, sizes, inverse)

    monkeypatch.setattr(cpu_program.permutation, "compiled_permutation_backward", alone)
    monkeypatch.setattr(cpu_program.convolution, "compiled_convolution_backward", folded)


def test_a_wrong_plan_is_found(wrong):
    with pytest.raises(AssertionError, match=r"compiled plan.*update 0: \w+ is off by"):
        compare(SMALL)


@pytest.mark.long
def test_a_wrong_plan_is_shrunk_to_a_few_lines(wrong):
    @settings(quick, max_examples=1000, print_blob=False)
    @given(descriptions())
    def check(description):
        compare(description)

    with pytest.raises(AssertionError, match="is off by") as failure:
        check()
    note = "\n".join(failure.value.__notes__)
    description = read(note)
    assert "permute" in {op for op, *_ in description.steps}
    assert len(description.live()) <= 4
    with pytest.raises(AssertionError, match="is off by"):
        compare(description)
    assert read(f"f({description!r})") == description


def read(note):
    """Return the description that is written in a note, as an argument of a call."""
    call = ast.parse(note[note.index("(") - 1 :].strip().replace("\n", " "), mode="eval").body
    (argument, *_) = [*call.args, *(keyword.value for keyword in call.keywords)]
    return Description(**{k.arg: ast.literal_eval(k.value) for k in argument.keywords})


def test_every_operation_is_drawn():
    seen = set()

    @quick
    @given(descriptions())
    def collect(description):
        shapes = shapes_of(description)
        assert all(size > 0 for shape in shapes for size in shape)
        seen.update(description.steps[k][0] for k in description.live())

    collect()
    assert seen >= {"conv", "igc", "batch_norm", "relu", "relu6", "add", "three"}
    assert seen >= {"max_pool", "avg_pool", "permute"}


def test_a_network_depends_on_its_description_alone():
    one, other = (RandomNetwork(SMALL).state_dict() for _ in range(2))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}
