// Rung 3, micro-tiles: each thread computes a small tile of results in registers, so that a number
// that it loads from shared memory serves several products. Formula: naive.cu; the tile of the
// block: tile.cuh; steps of a kernel: shared_memory.cu, the same here.
//
// From a numbers of one factor and b numbers of the other, a thread that keeps a·b sums makes a·b
// products for a + b loads. One result at a time is 1 × 1: two loads for one product. Here:
//
//   multiply: 1×1 convolution, 4 pixels × 4 channels      8 loads for 16 products
//   convolve: 3×3 convolution, 4 pixels × 2 channels     12 loads for 24 products, a row of taps
//   gw1:      3×3 taps × 2 × 2 channels, 4 pixels        44 loads for 144 products
//   gw2:      4 × 4 channels, one pixel                   8 loads for 16 products
//
// Registers are the fastest memory and belong to one thread, at most 255 of them. They have no
// addresses: an array lies in registers only if the compiler knows every index. That is why the
// loops over such arrays have constant bounds and are unrolled.
//
// Loads as in naive.cu; the formula is for a tile of 8×8 pixels (with halo 10×10):
//
// | kernel              | global loads by the formula      | counted: global |  shared |
// |---------------------|----------------------------------|-----------------|---------|
// | igc_forward         | (100 + 9·M + L) / 64 = 2.22      |             1.9 |    21.0 |
// | igc_backward_input  | (100 + 9·M + L) / 64 = 2.22      |             1.9 |    27.8 |
// | igc_backward_weight | C·(164 + 9·M + L) = 9,888 a tile |            17.8 |   234.7 |
//
// Shared loads fall to a quarter or less. Global loads fall, too, because the tiles are larger:
// with eight or sixteen results for each thread, a block needs more pixels to keep its threads
// busy. The halo costs 100 pixels for 64, not 60 for 32, and half as many blocks load the weights.
//
// A micro-tile that hangs over the last channel (M odd, or L not a multiple of 4) computes that
// channel again and does not store it. The indices stay valid, and the threads of a warp, which
// execute one instruction at a time together, need no branch.
//
// variant: L=24 M=2 ROWS=8 COLUMNS=8 THREADS=128
#include "tile.cuh"

const int QUADS = PIXELS / 4;
const int PAIRS = (M + 1) / 2, FOURS = (L + 3) / 4;  // micro-tiles of the channels of a group

// 4 pixels side by side, from (i, j) of the tile on, of output channels c and c + 1: a part of the
// 3×3 convolution as in rung 2. Six numbers of a row of `in` serve 3 taps × 4 pixels × 2 channels.
template <bool FLIPPED>
__device__ void convolve(const real (&in)[C][HEIGHT][WIDTH], const real (&w1)[C][M][9], int l,
                         int c, int i, int j, real (&sums)[2][4]) {
    for (int d = 0; d < M; d++)
#pragma unroll
        for (int a = 0; a < 3; a++) {
            real values[6];
#pragma unroll
            for (int e = 0; e < 6; e++) values[e] = in[l * M + d][i + a][j + e];
#pragma unroll
            for (int b = 0; b < 3; b++)
#pragma unroll
                for (int u = 0; u < 2; u++) {
                    const int own = min(c + u, M - 1);
                    // one weight for four products: it does not depend on the pixel
                    const real w = FLIPPED ? w1[l * M + d][own][8 - 3 * a - b]
                                           : w1[l * M + own][d][3 * a + b];
#pragma unroll
                    for (int e = 0; e < 4; e++) sums[u][e] += w * values[b + e];
                }
        }
}

// 4 places × 4 channels of a 1×1 convolution: sums[u][e] += Σ_t weight[u][t] · value[t][e].
// `in` is the first place of term 0; `step` leads to the next place, `term` to the next term.
// weight[u][t] is w[u · result_step + t · term_step], for u < results.
__device__ void multiply(const real *in, int step, int term, const real *w, int result_step,
                         int term_step, int results, real (&sums)[4][4]) {
    for (int t = 0; t < L; t++) {
        real values[4];
#pragma unroll
        for (int e = 0; e < 4; e++) values[e] = in[t * term + e * step];
#pragma unroll
        for (int u = 0; u < 4; u++) {
            const real weight = w[min(u, results - 1) * result_step + t * term_step];
#pragma unroll
            for (int e = 0; e < 4; e++) sums[u][e] += weight * values[e];
        }
    }
}

// p of the tile: micro-tiles of 4 pixels × 2 channels, dealt to the threads.
__device__ void primary_output(const real (&x)[C][HEIGHT][WIDTH], const real (&w1)[C][M][9],
                               real (&p)[C][PLANE]) {
    for (int k = threadIdx.x; k < L * PAIRS * QUADS; k += THREADS) {
        const int pixel = k % QUADS * 4, m = k / QUADS % PAIRS * 2, l = k / QUADS / PAIRS;
        real sums[2][4] = {};
        convolve<false>(x, w1, l, m, pixel / COLUMNS, pixel % COLUMNS, sums);
#pragma unroll
        for (int u = 0; u < 2; u++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (m + u < M) p[l * M + m + u][pixel + e] = sums[u][e];
    }
}

// gp of COUNT places of a channel: micro-tiles of 4 places × 4 primary groups. The four places are
// not side by side but a quarter of COUNT apart: so the threads of a warp, at each e, read 32
// numbers that are side by side, from 32 banks. A 1×1 convolution has no neighbours to care for.
template <int COUNT>
__device__ void primary_gradient(const real *gz, const real (&w2)[M][L][L], real *gp, int plane) {
    const int QUARTER = COUNT / 4;
    for (int k = threadIdx.x; k < M * FOURS * QUARTER; k += THREADS) {
        const int place = k % QUARTER, m = k / QUARTER % M, l = k / QUARTER / M * 4;
        real sums[4][4] = {};
        // gp[l + u] = Σ_o w2[m][o][l + u] · gz[o]: a step of 1 from result to result
        multiply(gz + m * plane + place, QUARTER, M * plane, &w2[m][0][l], 1, L, L - l, sums);
#pragma unroll
        for (int u = 0; u < 4; u++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (l + u < L) gp[((l + u) * M + m) * plane + place + e * QUARTER] = sums[u][e];
    }
}

// z: a block for each tile.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_forward(const stored *__restrict__ x,  // [N][C][H][W]
            const real *__restrict__ w1,   // [C][M][3][3]
            const real *__restrict__ w2,   // [C][L]
            stored *__restrict__ z,        // [N][C][H][W]
            int N, int H, int W) {
    DYNAMIC_SHARED(ForwardTile, forward_tile);
    ForwardTile &tile = *forward_tile;
    const Place at = place_of(blockIdx.x, H, W);

    load_weights(tile.weights, w1, w2);
    load_tile<1>(tile.x[0][0], HEIGHT * WIDTH, x, at, H, W);
    __syncthreads();
    primary_output(tile.x, tile.weights.w1, tile.p);
    __syncthreads();

    // z: 4 pixels × 4 outputs of a secondary group
    for (int k = threadIdx.x; k < M * FOURS * QUADS; k += THREADS) {
        const int pixel = k % QUADS, m = k / QUADS % M, o = k / QUADS / M * 4;
        real sums[4][4] = {};
        // z[o + u] = Σ_l w2[m][o + u][l] · p[l]: a step of L from result to result
        multiply(&tile.p[m][pixel], QUADS, M * PLANE, tile.weights.w2[m][o], L, 1, L - o, sums);
#pragma unroll
        for (int u = 0; u < 4; u++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int row = at.top + (pixel + e * QUADS) / COLUMNS;
                const int column = at.left + (pixel + e * QUADS) % COLUMNS;
                const int channel = (o + u) * M + m;
                if (o + u < L && row < H && column < W)
                    put(z + ((at.n * C + channel) * H + row) * W + column, sums[u][e]);
            }
    }
}

// gx: a block for each tile.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_backward_input(const stored *__restrict__ gz,  // [N][C][H][W]
                   const real *__restrict__ w1,    // [C][M][3][3]
                   const real *__restrict__ w2,    // [C][L]
                   stored *__restrict__ gx,        // [N][C][H][W]
                   int N, int H, int W) {
    DYNAMIC_SHARED(InputTile, input_tile);
    InputTile &tile = *input_tile;
    const Place at = place_of(blockIdx.x, H, W);

    load_weights(tile.weights, w1, w2);
    load_tile<1>(tile.gz[0][0], HEIGHT * WIDTH, gz, at, H, W);
    __syncthreads();
    primary_gradient<HEIGHT * WIDTH>(tile.gz[0][0], tile.weights.w2, tile.gp[0][0],
                                     HEIGHT * WIDTH);
    __syncthreads();

    // gx: 4 pixels × 2 channels
    for (int k = threadIdx.x; k < L * PAIRS * QUADS; k += THREADS) {
        const int pixel = k % QUADS * 4, c = k / QUADS % PAIRS * 2, l = k / QUADS / PAIRS;
        const int i = pixel / COLUMNS, j = pixel % COLUMNS, row = at.top + i;
        real sums[2][4] = {};
        convolve<true>(tile.gp, tile.weights.w1, l, c, i, j, sums);
#pragma unroll
        for (int u = 0; u < 2; u++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int column = at.left + j + e;
                if (c + u < M && row < H && column < W)
                    put(gx + ((at.n * C + l * M + c + u) * H + row) * W + column, sums[u][e]);
            }
    }
}

const int TILES1 = L * PAIRS * PAIRS;                  // micro-tiles of W^p
const int TILES2 = M * FOURS * FOURS;                  // and of W^d
const int FIRST2 = (TILES1 + WARP - 1) / WARP * WARP;  // the first thread that has one of W^d

// partial1 and partial2: the parts of gw1 and gw2 that the tiles of a block give. A gradient is a
// sum over all pixels, so a block can take tile after tile and keep its sums in registers between
// them. Each thread has one micro-tile of weights from beginning to end, and there is a partial
// sum for each block, not for each tile.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_backward_weight(const stored *__restrict__ gz,  // [N][C][H][W]
                    const stored *__restrict__ x,   // [N][C][H][W]
                    const real *__restrict__ w1,    // [C][M][3][3]
                    const real *__restrict__ w2,    // [C][L]
                    real *__restrict__ partial1,    // [gridDim.x][C][M][3][3]
                    real *__restrict__ partial2,    // [gridDim.x][C][L]
                    int N, int H, int W) {
    DYNAMIC_SHARED(WeightTile, weight_tile);
    WeightTile &tile = *weight_tile;
    load_weights(tile.weights, w1, w2);

    // Threads before FIRST2 have weights of W^p, the others of W^d. FIRST2 is a multiple of WARP:
    // the threads of a warp run together, and where they part, one half waits for the other.
    const int t1 = threadIdx.x, t2 = t1 - FIRST2;
    const bool has1 = t1 < TILES1, has2 = t2 >= 0 && t2 < TILES2;
    // W^p: from channels c, c + 1 to m, m + 1 of group l
    const int c = t1 % PAIRS * 2, m1 = t1 / PAIRS % PAIRS * 2, l1 = t1 / PAIRS / PAIRS;
    // W^d: from groups l2 + v·FOURS to outputs o + u·FOURS of secondary group m2. As the places in
    // primary_gradient they are not side by side: neighbouring threads read neighbouring channels.
    const int l2 = t2 % FOURS, o = t2 / FOURS % FOURS, m2 = t2 / FOURS / FOURS;
    real sums[36] = {};  // 2 × 2 × 9 weights of W^p, or 4 × 4 of W^d

    for (int number = blockIdx.x; number < tiles_of(N, H, W); number += gridDim.x) {
        const Place at = place_of(number, H, W);
        __syncthreads();  // a slow thread may still read the tile before
        load_tile<1>(tile.x[0][0], HEIGHT * WIDTH, x, at, H, W);
        load_tile<0>(tile.gz[0], PLANE, gz, at, H, W);
        __syncthreads();
        primary_output(tile.x, tile.weights.w1, tile.p);
        primary_gradient<PIXELS>(tile.gz[0], tile.weights.w2, tile.gp[0], PLANE);
        __syncthreads();

        for (int pixel = 0; has1 && pixel < PIXELS; pixel += 4) {
            const int i = pixel / COLUMNS, j = pixel % COLUMNS;
            real g[2][4];  // gp of two channels at four pixels: 8 loads for 3×3 taps of 2 channels
#pragma unroll
            for (int k = 0; k < 8; k++)
                g[k / 4][k % 4] = tile.gp[l1 * M + min(m1 + k / 4, M - 1)][pixel + k % 4];
#pragma unroll
            for (int k = 0; k < 6; k++) {  // a row of taps of one of the channels of x
                const int a = k % 3, d = k / 3;
                real values[6];
#pragma unroll
                for (int e = 0; e < 6; e++)
                    values[e] = tile.x[l1 * M + min(c + d, M - 1)][i + a][j + e];
#pragma unroll
                for (int b = 0; b < 3; b++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        sums[d * 9 + 3 * a + b] += g[0][e] * values[b + e];
                        sums[18 + d * 9 + 3 * a + b] += g[1][e] * values[b + e];
                    }
            }
        }
        for (int pixel = 0; has2 && pixel < PIXELS; pixel++) {
            real values[4];
#pragma unroll
            for (int v = 0; v < 4; v++)
                values[v] = tile.p[min(l2 + v * FOURS, L - 1) * M + m2][pixel];
#pragma unroll
            for (int u = 0; u < 4; u++) {
                const real g = tile.gz[min(o + u * FOURS, L - 1) * M + m2][pixel];
#pragma unroll
                for (int v = 0; v < 4; v++) sums[4 * u + v] += g * values[v];
            }
        }
    }

#pragma unroll
    for (int k = 0; k < 36; k++) {  // to global memory once, after the last tile
        const int m = m1 + k / 18, d = c + k / 9 % 2;
        if (has1 && m < M && d < M)
            partial1[((blockIdx.x * C + l1 * M + m) * M + d) * 9 + k % 9] = sums[k];
        const int output = o + k / 4 * FOURS, l = l2 + k % 4 * FOURS;
        if (has2 && k < 16 && output < L && l < L)
            partial2[(blockIdx.x * C + m2 * L + output) * L + l] = sums[k];
    }
}
