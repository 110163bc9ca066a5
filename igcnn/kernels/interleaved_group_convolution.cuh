// What the fused kernels of an interleaved group convolution share, at any version; formula and
// shapes: interleaved_group_convolution.py. A *quad* is four pixels side by side, loaded at once.
#include "common.cuh"

const int C = L * M;
const int QUADS = W / 4;  // of a row

__device__ __forceinline__ Quad zero_quad() { return Quad{0, 0, 0, 0}; }
__device__ __forceinline__ Quad activated(Quad v, real scale, real shift) {
    return Quad{rectified(scale * v.x + shift), rectified(scale * v.y + shift),
                rectified(scale * v.z + shift), rectified(scale * v.w + shift)};
}

// COUNT numbers side by side, four at once where they begin at a multiple of four.
template <int COUNT> __device__ __forceinline__ void load_vector(const real *p, real (&values)[COUNT]) {
    if (COUNT % 4 == 0 && L % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT / 4 * 4; i += 4) {
            const Quad v = quad_at(p + i);
            values[i] = v.x;
            values[i + 1] = v.y;
            values[i + 2] = v.z;
            values[i + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) values[i] = p[i];
    }
}

// Copies `rows` rows from `top` on of `count` channels from `first` on of an image to memory of
// the block, a channel every `step` numbers, normalised and rectified where `scale` is given. Rows
// beyond the image are zeros. FILL: quads that a thread has under way at once.
template <int FILL>
__device__ __forceinline__ void load_tile(real *tile, int step, const stored *image, int first,
                                     int count, int top, int rows, const real *scale,
                                     const real *shift, int threads) {
    const int total = count * rows * QUADS;
    for (int begin = threadIdx.x; begin < total; begin += FILL * threads) {
        Quad v[FILL];
#pragma unroll
        for (int j = 0; j < FILL; j++) {
            const int k = begin + j * threads, q = k % QUADS, i = k / QUADS % rows;
            const int c = first + k / QUADS / rows, row = top + i;
            v[j] = zero_quad();
            const bool inside = k < total && row >= 0 && row < H;
            if (inside) v[j] = quad_at(image + (c * H + row) * W + 4 * q);
        }
#pragma unroll
        for (int j = 0; j < FILL; j++) {
            const int k = begin + j * threads, q = k % QUADS, i = k / QUADS % rows;
            const int c = k / QUADS / rows, row = top + i;
            if (k >= total) continue;
            if (scale && row >= 0 && row < H)
                v[j] = activated(v[j], scale[first + c], shift[first + c]);
            put_quad(tile + c * step + i * W + 4 * q, v[j]);
        }
    }
}

// The k-th piece of a convolution of `rows` rows: a quad of two rows, of two channels of a group.
struct Piece {
    int quad, row, channel, group;
    __device__ __forceinline__ Piece(int k, int rows)
        : quad(k % QUADS), row(k / QUADS % (rows / 2) * 2),
          channel(k / QUADS / (rows / 2) % (M / 2) * 2), group(k / QUADS / (rows / 2) / (M / 2)) {}
};

__device__ __forceinline__ void put_piece(real *target, int step, const real (&sums)[2][2][4]) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const real *v = sums[e / 2][e % 2];
        put_quad(target + e / 2 * step + e % 2 * W, Quad{v[0], v[1], v[2], v[3]});
    }
}

// The 3×3 convolution over M channels of a tile, rows of W numbers, channels of STEP: two rows of
// a quad, of two channels. `place`: the quad in the row above, in the first channel; `channel`,
// `tap`, `output`: from one weight to the next. Whole warps call it, of which neighbours have
// neighbouring quads of a row.
template <int STEP>
__device__ __forceinline__ void convolve(const real *place, int quad, const real *weights,
                                         int channel, int tap, int output,
                                         real (&sums)[2][2][4]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int k = 0; k < 4; k++) sums[m][i][k] = 0;
#pragma unroll 2
    for (int c = 0; c < M; c++) {
        const real *own = weights + c * channel;
        // Two rows of results need four rows of the tile. Row r meets tap row r of result row 0
        // and tap row r − 1 of result row 1: it is loaded once for both. A row of weights is loaded
        // when it is first needed and kept for the next r.
        real w[3][2][3];  // (row of taps, channel, column)
#pragma unroll
        for (int r = 0; r < 4; r++) {
#pragma unroll
            for (int k = 0; k < 6 && r < 3; k++)
                w[r][k / 3][k % 3] = own[(3 * r + k % 3) * tap + k / 3 * output];
            // A thread loads four numbers of the row; the fifth and the sixth, to the left and to
            // the right, are in the registers of its neighbours. At the ends of a row they are 0.
            const Quad v = quad_at(place + c * STEP + r * W);
            const real before = __shfl_up_sync(ALL_LANES, v.w, 1);
            const real behind = __shfl_down_sync(ALL_LANES, v.x, 1);
            const real values[6] = {quad ? before : real(0),           v.x, v.y, v.z, v.w,
                                    quad < QUADS - 1 ? behind : real(0)};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (r < i || r > i + 2) continue;  // no tap of result row i lies in row r
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int b = 0; b < 3; b++)  // each of 6 numbers serves up to 3 taps
#pragma unroll
                        for (int k = 0; k < 4; k++)
                            sums[m][i][k] += w[r - i][m][b] * values[k + b];
            }
        }
    }
}

// sums[q][k][j] += Σ_t values[t·step + q·between + k] · weights[t·weight_step + j]
// A tile of a matrix product: for each term t a thread loads COUNT weights and NUMBER quads, and
// makes COUNT · 4·NUMBER products of them. The sums stay in registers, unrolled.
template <int COUNT, int NUMBER>
__device__ __forceinline__ void multiply(const real *values, int step, int between,
                                         const real *weights, int weight_step, int terms,
                                         real (&sums)[NUMBER][4][COUNT]) {
#pragma unroll 2
    for (int t = 0; t < terms; t++) {
        real w[COUNT];
        load_vector<COUNT>(weights + t * weight_step, w);
#pragma unroll
        for (int q = 0; q < NUMBER; q++) {
            const Quad v = quad_at(values + t * step + q * between);
#pragma unroll
            for (int j = 0; j < COUNT; j++) {
                sums[q][0][j] += v.x * w[j];
                sums[q][1][j] += v.y * w[j];
                sums[q][2][j] += v.z * w[j];
                sums[q][3][j] += v.w * w[j];
            }
        }
    }
}

// Merges LEFT moments, a power of two, each of `count` numbers, over each group of 2·DISTANCE lanes
// of a warp; afterwards moment i of a lane is that of what was first + i. Returns `first`. Every
// size is a constant: the moments stay in registers.
template <int LEFT, int DISTANCE, int N>
__device__ __forceinline__ int reduce_scatter(real (&means)[N], real (&squares)[N], real count) {
    if constexpr (DISTANCE == 0) {
        return 0;
    } else {
        const int half = LEFT > 1 ? LEFT / 2 : 1, apart = LEFT / 2;
        const bool upper = LEFT > 1 && threadIdx.x & DISTANCE;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const real mean = upper ? means[i + apart] : means[i];
            const real square = upper ? squares[i + apart] : squares[i];
            const real sent_mean = upper ? means[i] : means[i + apart];
            const real sent_square = upper ? squares[i] : squares[i + apart];
            const real mean2 = __shfl_xor_sync(ALL_LANES, sent_mean, DISTANCE);
            const real square2 = __shfl_xor_sync(ALL_LANES, sent_square, DISTANCE);
            const real d = mean2 - mean;
            means[i] = (mean + mean2) / 2;
            squares[i] = square + square2 + d * d * count / 2;
        }
        const int rest = reduce_scatter<half, DISTANCE / 2>(means, squares, 2 * count);
        return (upper ? half : 0) + rest;
    }
}

// Writes what a thread has of z, OUTPUTS channels M apart from `first_channel` on, NUMBER quads that
// begin `between` numbers apart at `place`, and its block's moments of them to
// partial[c, slot of slots]. LANES neighbouring threads share the pixels of a channel, PIXELS in all.
template <int LANES, int PIXELS, int NUMBER, int OUTPUTS>
__device__ __forceinline__ void store_with_moments(stored *z, int first_channel, int place, int between,
                                      const real (&sums)[NUMBER][4][OUTPUTS], real *partial,
                                      int slot, int slots) {
    // the next power of two
    const int EVEN = OUTPUTS > 8 ? 16 : OUTPUTS > 4 ? 8 : OUTPUTS > 2 ? 4 : OUTPUTS;
    const int COUNT = 4 * NUMBER;  // numbers of a thread and channel: a power of two
    real means[EVEN] = {}, squares[EVEN] = {};
#pragma unroll
    for (int j = 0; j < OUTPUTS; j++) {
        const int c = first_channel + j * M;
        const real begin = as_stored(sums[0][0][j]);
#pragma unroll
        for (int q = 0; q < NUMBER; q++) {
            const Quad v = {sums[q][0][j], sums[q][1][j], sums[q][2][j], sums[q][3][j]};
            put_quad(z + c * H * W + place + q * between, v);
#pragma unroll
            for (int k = 0; k < 4; k++) means[j] += as_stored(sums[q][k][j]) - begin;
        }
        means[j] = begin + means[j] / COUNT;
#pragma unroll
        for (int q = 0; q < NUMBER; q++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const real d = as_stored(sums[q][k][j]) - means[j];
                squares[j] += d * d;
            }
    }
    const int lane = threadIdx.x % LANES;
    const int first = reduce_scatter<EVEN, LANES / 2>(means, squares, COUNT);
    if (EVEN < LANES && lane % (LANES / EVEN)) return;
#pragma unroll
    for (int j = 0; j < EVEN / LANES + (EVEN < LANES); j++) {
        const int c = first_channel + (first + j) * M;
        if (first + j < OUTPUTS)
            put_moments(partial + (c * slots + slot) * 3, {real(PIXELS), means[j], squares[j]});
    }
}

// The gradient of z: that of a normalised term (combine.cu), computed where it is loaded.
// mask 0: no ReLU, 1: where y > 0, 2: where scale·z + shift > 0.
struct Incoming {
    const stored *gy, *y, *z;
    const real *mean, *coefficients, *scale, *shift;
    int mask;
    __device__ __forceinline__ real at(int c, real g, real y, real z) const {
        if (mask == 1 && !(y > real(0))) g = 0;
        if (mask == 2 && !(scale[c] * z + shift[c] > real(0))) g = 0;
        return coefficients[3 * c] * g + coefficients[3 * c + 1] * (z - mean[c]) +
               coefficients[3 * c + 2];
    }
    // At one pixel; 0 outside of the image.
    __device__ __forceinline__ real at(int n, int c, int i, int j) const {
        if (i < 0 || i >= H || j < 0 || j >= W) return 0;
        const int k = ((n * C + c) * H + i) * W + j;
        return at(c, get(gy + k), mask == 1 ? get(y + k) : real(0), get(z + k));
    }
    // As load_tile, of all channels of image n.
    template <int FILL>
    __device__ __forceinline__ void load_tile(real *tile, int step, int n, int top, int rows,
                                         int threads) const {
        const int total = C * rows * QUADS;
        for (int begin = threadIdx.x; begin < total; begin += FILL * threads) {
            Quad gs[FILL], ys[FILL], zs[FILL];
#pragma unroll
            for (int j = 0; j < FILL; j++) {
                const int k = begin + j * threads, q = k % QUADS, row = top + k / QUADS % rows;
                const int place = ((n * C + k / QUADS / rows) * H + row) * W + 4 * q;
                gs[j] = ys[j] = zs[j] = zero_quad();
                if (k >= total || row < 0 || row >= H) continue;
                gs[j] = quad_at(gy + place);
                zs[j] = quad_at(z + place);
                if (mask == 1) ys[j] = quad_at(y + place);
            }
#pragma unroll
            for (int j = 0; j < FILL; j++) {
                const int k = begin + j * threads, q = k % QUADS, i = k / QUADS % rows;
                const int c = k / QUADS / rows, row = top + i;
                if (k >= total) continue;
                Quad v = zero_quad();
                if (row >= 0 && row < H)
                    v = Quad{at(c, gs[j].x, ys[j].x, zs[j].x), at(c, gs[j].y, ys[j].y, zs[j].y),
                             at(c, gs[j].z, ys[j].z, zs[j].z), at(c, gs[j].w, ys[j].w, zs[j].w)};
                put_quad(tile + c * step + i * W + 4 * q, v);
            }
        }
    }
};
