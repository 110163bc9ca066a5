// Pooling over windows of KH × KW pixels, the largest or the mean, and the global mean; formulas:
// pooling.py. x is [blocks][H][C][W], y is [blocks][OH][C][OW].
//
// x is loaded row by row, batch norm and ReLU applied on the way, so it need not be stored as
// such, and the gradient of x is ended (Ending in common.hpp) while its row is in the cache.
//
// Max pooling is cut by channels: a job walks down one channel after the other and keeps the rows
// of one window in a ring, so that each row is loaded once however windows overlap. Average
// pooling is cut by rows, and is separable: it adds up the rows of a window first, then columns.
#include "common.hpp"

// Rows (or columns) of window i that lie in the image.
static inline Rows window(int i, int K, int stride, int padding, int size) {
    const int top = i * stride - padding;
    return {larger(top, 0), smaller(top + K, size)};
}

// Index of a row of channel c in [blocks][H][C][W].
static inline Size row_at(Size block, int H, int row, int C, int c, int W) {
    return ((block * H + row) * C + c) * W;
}

// -- largest of a window -----------------------------------------------------------------------

// m = the larger of m and x, n pixels of each; a NaN counts as larger than any number, and stays.
static inline void maximum(V *m, const V *x, int n) {
    each_register(n, [&](int i, auto p) {
        p = load(m, i, p);
        const auto q = load(x, i, p);
        store(m, i, (p >= q) | (p != p) ? p : q);
    });
}

// Forward and backward load through one function, not inlined: the gradient finds the maximum
// again by comparing, so both must see the same bits.
__attribute__((noinline)) static void load_pixels(const Input &x, int c, Size at, int n, V *to) {
    load(x, c, at, n, to);
}

struct MaxPoolForward {
    Input x;
    V *y;
    int C, H, W, OH, OW;
    int KH, KW, SH, SW, PH, PW;  // kernel, stride, padding
    Batch batch;
};

SCRATCH(max_pool_forward, MaxPoolForward) {
    return (Size)a.KH * a.W + 2 * ((Size)a.W + 2 * a.PW);
}

KERNEL(max_pool_forward, MaxPoolForward) {
    const int block = block_of(a.batch, job);
    const Rows channels = rows_of(a.batch, job, a.C);
    const V lowest = fill((real)-__builtin_inf());  // padding never wins over a pixel
    const int width = a.W + 2 * a.PW;
    V *ring = scratch, *columns = ring + (Size)a.KH * a.W, *windows = columns + width;
    for (int c = channels.first; c < channels.last; c++) {
        int loaded = 0;
        for (int i = 0; i < a.OH; i++) {
            const Rows rows = window(i, a.KH, a.SH, a.PH, a.H);
            for (loaded = larger(loaded, rows.first); loaded < rows.last; loaded++)
                load_pixels(a.x, c, row_at(block, a.H, loaded, a.C, c, a.W), a.W,
                            ring + (Size)(loaded % a.KH) * a.W);
            for (int j = 0; j < width; j++) columns[j] = lowest;
            for (int r = rows.first; r < rows.last; r++)
                maximum(columns + a.PW, ring + (Size)(r % a.KH) * a.W, a.W);
            // of every window, also of those that a stride leaves out
            copy(windows, columns, width - a.KW + 1);
            for (int k = 1; k < a.KW; k++) maximum(windows, columns + k, width - a.KW + 1);
            V *y = a.y + row_at(block, a.OH, i, a.C, c, a.OW);
            for (int j = 0; j < a.OW; j++) y[j] = windows[j * a.SW];
        }
    }
}

struct MaxPoolBackward {
    const V *gy;
    Input x;
    const V *y;  // as max_pool_forward has left it
    V *gx;
    Ending end;
    int C, H, W, OH, OW;
    int KH, KW, SH, SW, PH, PW;  // kernel, stride, padding
    Batch batch;
};

SCRATCH(max_pool_backward, MaxPoolBackward) { return (2 * (Size)a.KH + 1) * a.W + 3 * (Size)a.C; }

// Give `left`, the gradient of the maximum m, to the pixel x if it equals m (or is NaN, for then
// m is); nothing is left in those lanes then, so the first pixel in the order of rows gets it.
static inline void give(const V &x, const V &m, V &left, V &g) {
    const Part none{};
    EACH_PART {
        const Part p = x.part[i_], amount = left.part[i_];
        const auto wins = (p == m.part[i_]) | (p != p);
        g.part[i_] += wins ? amount : none;
        left.part[i_] = wins ? none : amount;
    }
}

KERNEL(max_pool_backward, MaxPoolBackward) {
    const int block = block_of(a.batch, job);
    const Rows channels = rows_of(a.batch, job, a.C);
    const Size rings = (Size)a.KH * a.W;
    V *pixels = scratch, *gradients = pixels + rings, *zeros = gradients + rings;
    V *sums = zeros + a.W;
    clear(zeros, a.W);
    begin_sums(sums, a.C);
    for (int c = channels.first; c < channels.last; c++) {
        int loaded = 0, ended = 0;  // rows before these are in the ring, or have left it
        const auto end_rows = [&](int last) {
            for (; ended < last; ended++)  // rows between windows were never loaded
                finish(a.end, c, a.C, row_at(block, a.H, ended, a.C, c, a.W), a.W,
                       ended < loaded ? gradients + (Size)(ended % a.KH) * a.W : zeros, a.gx,
                       sums);
        };
        for (int i = 0; i < a.OH; i++) {
            const Rows rows = window(i, a.KH, a.SH, a.PH, a.H);
            end_rows(smaller(rows.first, a.H));
            for (loaded = larger(loaded, rows.first); loaded < rows.last; loaded++) {
                const Size slot = (Size)(loaded % a.KH) * a.W;
                load_pixels(a.x, c, row_at(block, a.H, loaded, a.C, c, a.W), a.W, pixels + slot);
                clear(gradients + slot, a.W);
            }
            const Size from = row_at(block, a.OH, i, a.C, c, a.OW);
            for (int j = 0; j < a.OW; j++) {
                const Rows taps = window(j, a.KW, a.SW, a.PW, a.W);
                const V m = a.y[from + j];
                V left = a.gy[from + j];
                for (int r = rows.first; r < rows.last; r++) {
                    const Size slot = (Size)(r % a.KH) * a.W;
                    for (int k = taps.first; k < taps.last; k++)
                        give(pixels[slot + k], m, left, gradients[slot + k]);
                }
            }
        }
        end_rows(a.H);
    }
    // zeros for the channels of other slices
    leave_sums(a.end, job, a.C, sums, 0, a.C);
}

// -- mean of a window --------------------------------------------------------------------------

// What each term of a window counts: padding counts as zeros, or not at all.
static inline real share_of(const Rows &rows, const Rows &taps, int KH, int KW, int counted) {
    const int pixels = (rows.last - rows.first) * (taps.last - taps.first);
    return (real)1 / (counted ? KH * KW : pixels);
}

struct AveragePoolForward {
    Input x;
    V *y;
    int C, H, W, OH, OW;
    int KH, KW, SH, SW, PH, PW;  // kernel, stride, padding
    int count_include_pad;
    Batch batch;
};

SCRATCH(average_pool_forward, AveragePoolForward) { return 2 * (Size)a.W; }

KERNEL(average_pool_forward, AveragePoolForward) {
    const int block = block_of(a.batch, job);
    const Rows own = rows_of(a.batch, job, a.OH);
    V *x = scratch, *columns = x + a.W;
    for (int i = own.first; i < own.last; i++) {
        const Rows rows = window(i, a.KH, a.SH, a.PH, a.H);
        for (int c = 0; c < a.C; c++) {
            clear(columns, a.W);
            for (int r = rows.first; r < rows.last; r++) {
                load(a.x, c, row_at(block, a.H, r, a.C, c, a.W), a.W, x);
                for (int j = 0; j < a.W; j++) columns[j] += x[j];
            }
            V *y = a.y + row_at(block, a.OH, i, a.C, c, a.OW);
            for (int j = 0; j < a.OW; j++) {
                const Rows taps = window(j, a.KW, a.SW, a.PW, a.W);
                V sum{};
                for (int k = taps.first; k < taps.last; k++) sum += columns[k];
                y[j] = sum * share_of(rows, taps, a.KH, a.KW, a.count_include_pad);
            }
        }
    }
}

struct AveragePoolBackward {
    const V *gy;
    V *gx;
    Ending end;
    int C, H, W, OH, OW;
    int KH, KW, SH, SW, PH, PW;  // kernel, stride, padding
    int count_include_pad;
    Batch batch;
};

SCRATCH(average_pool_backward, AveragePoolBackward) { return a.OW + a.W + 3 * (Size)a.C; }

// Cut by rows of x: each collects from the windows that it is in.
KERNEL(average_pool_backward, AveragePoolBackward) {
    const int block = block_of(a.batch, job);
    const Rows own = rows_of(a.batch, job, a.H);
    V *columns = scratch, *gx = columns + a.OW, *sums = gx + a.W;
    begin_sums(sums, a.C);
    for (int r = own.first; r < own.last; r++) {
        // windows that begin at or above the row, and end below it
        const int first = (larger(r + a.PH - a.KH + 1, 0) + a.SH - 1) / a.SH;
        const int last = smaller((r + a.PH) / a.SH + 1, a.OH);
        for (int c = 0; c < a.C; c++) {
            clear(columns, a.OW);
            for (int i = first; i < last; i++) {
                const Rows rows = window(i, a.KH, a.SH, a.PH, a.H);
                const V *gy = a.gy + row_at(block, a.OH, i, a.C, c, a.OW);
                for (int j = 0; j < a.OW; j++) {
                    const Rows taps = window(j, a.KW, a.SW, a.PW, a.W);
                    const real share = share_of(rows, taps, a.KH, a.KW, a.count_include_pad);
                    columns[j] += gy[j] * share;
                }
            }
            clear(gx, a.W);
            for (int j = 0; j < a.OW; j++) {
                const Rows taps = window(j, a.KW, a.SW, a.PW, a.W);
                for (int k = taps.first; k < taps.last; k++) gx[k] += columns[j];
            }
            finish(a.end, c, a.C, row_at(block, a.H, r, a.C, c, a.W), a.W, gx, a.gx, sums);
        }
    }
    leave_sums(a.end, job, a.C, sums, 0, a.C);
}

// -- mean of all pixels ------------------------------------------------------------------------

struct GlobalAveragePoolForward {
    Input x;
    V *pooled;  // [blocks][C]
    int C, H, W;
    Batch batch;
};

SCRATCH(global_average_pool_forward, GlobalAveragePoolForward) { return a.W; }

// Cut by channels. Rows are added up one by one, so rounding does not grow with the image.
KERNEL(global_average_pool_forward, GlobalAveragePoolForward) {
    const int block = block_of(a.batch, job);
    const Rows channels = rows_of(a.batch, job, a.C);
    const real share = 1 / ((real)a.H * a.W);
    for (int c = channels.first; c < channels.last; c++) {
        V sum{};
        for (int r = 0; r < a.H; r++) {
            load(a.x, c, row_at(block, a.H, r, a.C, c, a.W), a.W, scratch);
            V row{};
            for (int j = 0; j < a.W; j++) row += scratch[j];
            sum += row;
        }
        a.pooled[(Size)block * a.C + c] = sum * share;
    }
}

struct GlobalAveragePoolBackward {
    const V *gpooled;  // [blocks][C]
    V *gx;
    Ending end;
    int C, H, W;
    Batch batch;
};

SCRATCH(global_average_pool_backward, GlobalAveragePoolBackward) { return a.W + 3 * (Size)a.C; }

KERNEL(global_average_pool_backward, GlobalAveragePoolBackward) {
    const int block = block_of(a.batch, job);
    const Rows rows = rows_of(a.batch, job, a.H);
    const real share = 1 / ((real)a.H * a.W);
    V *row = scratch, *sums = scratch + a.W;
    begin_sums(sums, a.C);
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < a.C; c++) {
            const V g = a.gpooled[(Size)block * a.C + c] * share;
            for (int j = 0; j < a.W; j++) row[j] = g;
            finish(a.end, c, a.C, row_at(block, a.H, r, a.C, c, a.W), a.W, row, a.gx, sums);
        }
    leave_sums(a.end, job, a.C, sums, 0, a.C);
}
