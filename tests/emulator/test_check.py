"""Check mode on small kernels with one fault each, and on the same kernels without it."""

import shutil

import numpy as np
import pytest

from igcnn.emulator import Library
from igcnn.errors import KernelError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

THREADS = 64

HEAD = 'extern "C" __global__ void k(float *x, float *y, unsigned *ticket, int n) {\n'
HEAD += "int i = threadIdx.x;\n"
TAIL = '}\nextern "C" __attribute__((no_sanitize("thread", "undefined"))) void emulate_k(void **a)'
TAIL += "{ k(*(float **)a[0], *(float **)a[1], *(unsigned **)a[2], *(int *)a[3]); }\n"

REDUCE = """
    __shared__ float s[64];
    s[i] = x[i];
    for (int d = 32; d > 0; d /= 2) {
        BARRIER
        if (i < d) s[i] += s[i + d];
    }
    AFTER
    if (i == 0) y[blockIdx.x] = s[0];
"""
LAST_BLOCK = """
    __shared__ bool last;
    y[blockIdx.x * 64 + i] = x[i];
    FENCE
    __syncthreads();
    if (i == 0) last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    if (last) { float sum = 0; for (int b = 0; b < gridDim.x; b++) sum += y[b * 64 + i];
                x[i] = sum; }
"""

# name: (body, what is right in its place, blocks, what the message says)
FAULTS = {
    "a barrier is missing": (
        REDUCE.replace("BARRIER", "").replace("AFTER", "__syncthreads();"),
        REDUCE.replace("BARRIER", "__syncthreads();").replace("AFTER", "__syncthreads();"),
        1,
        "race|read before it is written: shared memory",
    ),
    "two threads write one cell": (
        "__shared__ float s; s = x[0]; __syncthreads(); y[i] = s;",
        "__shared__ float s; if (i == 0) s = x[0]; __syncthreads(); y[i] = s;",
        1,
        "race: two threads write: shared memory",
    ),
    "a lost update, though the numbers are right": (
        "if (i < 2) y[0] = y[0] + 1.0f;",
        "if (i < 1) y[0] = y[0] + 2.0f;",
        1,
        "race: .* array 1, element 0, with thread 0",
    ),
    "a warp is not synchronised": (
        "__shared__ float s[64]; s[i] = x[i]; y[i] = s[i ^ 1];",
        "__shared__ float s[64]; s[i] = x[i]; __syncwarp(); y[i] = s[i ^ 1];",
        1,
        "race|read before it is written",
    ),
    "a warp barrier where the block's is needed": (
        "__shared__ float s[64]; s[i] = x[i]; __syncwarp(); y[i] = s[i ^ 32];",
        "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); y[i] = s[i ^ 32];",
        1,
        "race|read before it is written",
    ),
    "shared memory is written while others read": (
        "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); float v = s[63 - i]; s[i] = v;"
        "__syncthreads(); y[i] = s[i];",
        "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); float v = s[63 - i];"
        "__syncthreads(); s[i] = v; __syncthreads(); y[i] = s[i];",
        1,
        "race",
    ),
    "two blocks write one element": (
        "y[i] = x[i];",
        "y[blockIdx.x * 64 + i] = x[i];",
        2,
        "two blocks write one element: array 1",
    ),
    "a block reads what another writes": (
        "y[blockIdx.x * 64 + i] = x[i]; if (blockIdx.x == 1) x[i] = y[i];",
        "y[blockIdx.x * 64 + i] = x[i];",
        2,
        "without fence and atomic",
    ),
    "the last block reduces without a fence": (
        LAST_BLOCK.replace("FENCE", ""),
        LAST_BLOCK.replace("FENCE", "__threadfence();"),
        3,
        "without fence and atomic",
    ),
    "an index runs over": (
        "y[i] = x[i + n];",
        "y[i] = x[(i + n) % 64];",
        1,
        "access out of bounds",
    ),
    "an index runs under": (
        "y[i] = x[i - 1];",
        "y[i] = x[max(i - 1, 0)];",
        1,
        "access out of bounds",
    ),
    "an index beyond a shared array": (
        "__shared__ float s[32], t[32]; s[i] = x[i]; t[i % 32] = 0; __syncwarp(); y[i] = s[i];",
        "__shared__ float s[64]; s[i] = x[i]; y[i] = s[i];",
        1,
        "index beyond the bounds",
    ),
    "a vector access is misaligned": (
        "float2 v = *(float2 *)(x + 2 * (i / 4) + 1); y[i] = v.x;",
        "float2 v = *(float2 *)(x + 2 * (i / 4)); y[i] = v.x;",
        1,
        "misaligned",
    ),
    "shared memory is read before it is written": (
        "__shared__ float s[64]; if (i) s[i] = x[i]; __syncthreads(); y[i] = s[i];",
        "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); y[i] = s[i];",
        1,
        "read before it is written: shared memory",
    ),
    "an output is read before it is written": (
        "y[i] += x[i];",
        "y[i] = x[i];",
        1,
        "read before it is written: array 1",
    ),
    "not all threads reach a barrier": (
        "if (i < 32) __syncthreads(); y[i] = x[i];",
        "__syncthreads(); y[i] = x[i];",
        1,
        "a barrier that some threads of the block do not reach",
    ),
    "threads meet at different barriers": (
        "if (i < 32)\n __syncthreads();\nelse\n __syncthreads();\n y[i] = x[i];",
        "__syncthreads(); y[i] = x[i];",
        1,
        "different barriers",
    ),
    "a shuffle in a branch": (
        "float v = x[i]; if (i % 32 < 16) v = __shfl_xor_sync(0xffffffffu, v, 1); y[i] = v;",
        "float v = x[i]; v = __shfl_xor_sync(0xffffffffu, v, 1); y[i] = v;",
        1,
        "a lane that has ended is named in a mask",
    ),
    "an index of 32 bits overflows": (
        "int k = 2147483647; k += n; y[i] = x[0] + (k < 0);",
        "unsigned k = 2147483647; k += n; y[i] = x[0] + (k < 1);",
        1,
        "overflow of a signed addition",
    ),
}


def run(body, blocks, name, backwards=False):
    library = Library(HEAD + body + TAIL, "k.cu", checked=True)
    x = np.arange(64, dtype=np.float32)
    y = np.full(64 * blocks, np.nan, np.float32)
    if name == "a lost update, though the numbers are right":
        y[...] = 0
    ticket = np.zeros(1, np.uint32)
    uninitialised = [1] if np.isnan(y).all() else []
    library.launch(
        "k",
        (blocks, 1, 1),
        (THREADS, 1, 1),
        (x, y, ticket, np.int32(64)),
        uninitialised=uninitialised,
        backwards=backwards,
    )


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_cure_passes(name, backwards):
    wrong, right, blocks, message = FAULTS[name]
    run(right, blocks, name, backwards)
    # in the opposite order of threads a fault may show as another one
    with pytest.raises(KernelError, match=None if backwards else message):
        run(wrong, blocks, name, backwards)


def test_a_message_says_where():
    with pytest.raises(KernelError) as caught:
        run("\n\ny[i] = x[i + n];", 1, "")
    assert "k: access out of bounds" in str(caught.value)
    assert "k.cu:5, block (0, 0, 0), thread (0, 0, 0)" in str(caught.value)


def test_a_constant_array_is_not_written():
    library = Library(HEAD + "y[i] = 0;" + TAIL, "k.cu", checked=True)
    arguments = np.zeros(64, "f4"), np.zeros(64, "f4"), np.zeros(1, "u4"), np.int32(1)
    with pytest.raises(KernelError, match="write to a constant array: array 1"):
        library.launch("k", (1, 1, 1), (64, 1, 1), arguments, constant=[True, True, False, False])
