// Sum of tensors, each as it is or batch normalized, then perhaps ReLU: what ends a unit.
//
//     y = max(0, Σ_k t_k)      t_k = x_k  or  scale_k·x_k + shift_k
//
// All tensors are [blocks][H][C][W]. One pass over memory, however many terms; a job is a slice
// of the rows of a block. Backward ends the gradient of y (Ending in common.hpp): the mask of the
// ReLU and the sums for the batch norms of the terms come in the same pass, and what it stores is
// the gradient of every term that is added as it is.
#include "common.hpp"

struct CombineForward {
    Input term[4];  // of kind 0 or 2
    int terms;
    V *y;
    int relu;  // 0: none, 1: ReLU, 2: ReLU6
    int C, H, W;
    Batch batch;
};

// One row of a channel. A term that is added as it is has scale 1 and shift 0: those cost
// nothing, and memory is what limits this kernel.
template <int TERMS>
static inline void combine_row(const CombineForward &a, int c, Size at) {
    const V *x[TERMS];
    real scale[TERMS], shift[TERMS];
    for (int k = 0; k < TERMS; k++) {
        const Input &term = a.term[k];
        x[k] = term.x + at;
        scale[k] = term.kind ? term.scale[c] : 1;
        shift[k] = term.kind ? term.shift[c] : 0;
    }
    V *y = a.y + at;
    for (int j = 0; j < a.W; j++) {
        V sum = x[0][j] * scale[0] + shift[0];
        for (int k = 1; k < TERMS; k++) sum += x[k][j] * scale[k] + shift[k];
        y[j] = activated(sum, a.relu);
    }
}

template <int TERMS>
static void combine(const CombineForward &a, int job) {
    const Rows rows = rows_of(a.batch, job, a.H);
    Size at = ((Size)block_of(a.batch, job) * a.H + rows.first) * a.C * a.W;
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < a.C; c++, at += a.W) combine_row<TERMS>(a, c, at);
}

KERNEL(combine_forward, CombineForward) {
    switch (a.terms) {
        case 1: combine<1>(a, job); break;
        case 2: combine<2>(a, job); break;
        case 3: combine<3>(a, job); break;
        case 4: combine<4>(a, job); break;
    }
}

struct CombineBackward {
    V *g;
    Gradient from;  // of y; its g may be the array that is written
    Ending end;
    int C, H, W;
    Batch batch;
};

SCRATCH(combine_backward, CombineBackward) { return a.W + 3 * (Size)a.C; }

KERNEL(combine_backward, CombineBackward) {
    const int block = block_of(a.batch, job), images = images_of(a.batch, block);
    const Rows rows = rows_of(a.batch, job, a.H);
    V *row = scratch, *sums = scratch + a.W;
    begin_sums(sums, a.C);
    Size at = ((Size)block * a.H + rows.first) * a.C * a.W;
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < a.C; c++, at += a.W) {
            const V *from = a.from.g + at;
            if (a.from.kind) load(a.from, c, at, a.W, row, images), from = row;
            finish(a.end, c, a.C, at, a.W, from, a.g, sums);
        }
    leave_sums(a.end, job, a.C, sums, 0, a.C);
}
