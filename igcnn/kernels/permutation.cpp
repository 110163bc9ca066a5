// Channel permutation Reorder(b); formula: permutation.py.
//
//     y[c] = x[(c mod b)·(C/b) + c div b]
//
// Rows of a channel are contiguous in [blocks][H][C][W], so whole rows are copied, batch norm and
// ReLU applied on the way. The gradient is the inverse permutation, Reorder(C/b), then ended.
// Inside an interleaved unit nothing is permuted at all: there the permutation is a stride.
#include "common.hpp"

struct PermutationForward {
    Input x;
    V *y;
    int branches;
    int C, H, W;
    Batch batch;
};

KERNEL(permutation_forward, PermutationForward) {
    const Rows rows = rows_of(a.batch, job, a.H);
    const Size first = (Size)block_of(a.batch, job) * a.H;
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < a.C; c++) {
            const int from = reorder(c, a.C, a.branches);
            load(a.x, from, ((first + r) * a.C + from) * a.W, a.W,
                 a.y + ((first + r) * a.C + c) * a.W);
        }
}

struct PermutationBackward {
    const V *gy;
    V *gx;
    int branches;
    Ending end;
    int C, H, W;
    Batch batch;
};

SCRATCH(permutation_backward, PermutationBackward) { return 3 * (Size)a.C; }

KERNEL(permutation_backward, PermutationBackward) {
    const Rows rows = rows_of(a.batch, job, a.H);
    const Size first = (Size)block_of(a.batch, job) * a.H;
    V *sums = scratch;
    begin_sums(sums, a.C);
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < a.C; c++) {
            const int from = reorder(c, a.C, a.C / a.branches);
            finish(a.end, c, a.C, ((first + r) * a.C + c) * a.W, a.W,
                   a.gy + ((first + r) * a.C + from) * a.W, a.gx, sums);
        }
    leave_sums(a.end, job, a.C, sums, 0, a.C);
}
