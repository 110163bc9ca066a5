// Rung 2, shared memory: what the threads of a block need is loaded and computed once for all of
// them. Still one thread, one number at a time. Formula: naive.cu; the tile: tile.cuh.
//
// A block works in steps. All its threads load, wait for each other at __syncthreads(), and then
// compute from what all of them have loaded. Shared memory belongs to one block, holds up to
// 227 KB on an H200, and lies beside the arithmetic, where the fastest cache is.
//
// Loads as in naive.cu; the formula is for a tile of 4×8 pixels (with halo 6×10) that lies inside
// the image.
//
// | kernel              | global loads by the formula      | counted: global |  shared |
// |---------------------|----------------------------------|-----------------|---------|
// | igc_forward         | (60 + 9·M + L) / 32 = 3.19       |             2.9 |    84.0 |
// | igc_backward_input  | (60 + 9·M + L) / 32 = 3.19       |             2.9 |   126.0 |
// | igc_backward_weight | C·(92 + 9·M + L) = 6,432 a tile  |            23.5 |  1024.0 |
//
// The global loads of forward fall from 888 to 3.19, for two reasons. p is computed once and
// serves the L outputs that need it, which leaves 9·M + L = 42 of 456 multiplications. And x is
// loaded once per tile instead of once per tap: only the halo is loaded by more than one block, 60
// pixels for 32. Now shared memory is the limit: 84 loads for 42 multiplications, two for each, as
// many as global memory had before. A multiprocessor multiplies 128 numbers a cycle, but its
// shared memory delivers 32. The next rung uses each number that it loads for several products.
//
// variant: L=24 M=2 ROWS=4 COLUMNS=8 THREADS=128
#include "tile.cuh"

// One number of a 3×3 convolution over the M channels of group l, at pixel (i, j) of the tile,
// which is at (i + 1, j + 1) of `in`, the tile with its halo. Output channel c of p or, FLIPPED,
// of gx: the same sums, with input and output channel exchanged and the taps mirrored.
template <bool FLIPPED>
__device__ real convolve(const real (&in)[C][HEIGHT][WIDTH], const real (&w1)[C][M][9], int l,
                         int c, int i, int j) {
    real sum = 0;
    for (int d = 0; d < M; d++)
        for (int tap = 0; tap < 9; tap++)
            sum += (FLIPPED ? w1[l * M + d][c][8 - tap] : w1[l * M + c][d][tap]) *
                   in[l * M + d][i + tap / 3][j + tap % 3];
    return sum;
}

// p of the tile. The threads take turns at its numbers: k, k + THREADS, k + 2·THREADS, …
__device__ void primary_output(const real (&x)[C][HEIGHT][WIDTH], const real (&w1)[C][M][9],
                               real (&p)[C][PLANE]) {
    for (int k = threadIdx.x; k < C * PIXELS; k += THREADS) {
        const int channel = k / PIXELS, pixel = k % PIXELS;
        p[channel][pixel] = convolve<false>(x, w1, channel / M, channel % M, pixel / COLUMNS,
                                            pixel % COLUMNS);
    }
}

// gp of `count` places of a channel, which lie in gz and gp at the same offsets: a secondary
// convolution is 1×1, so a halo is treated as everything else.
__device__ void primary_gradient(const real *gz, const real (&w2)[M][L][L], real *gp, int plane,
                                 int count) {
    for (int k = threadIdx.x; k < C * count; k += THREADS) {
        const int channel = k / count, place = k % count, l = channel / M, m = channel % M;
        real sum = 0;
        for (int o = 0; o < L; o++) sum += w2[m][o][l] * gz[(o * M + m) * plane + place];
        gp[channel * plane + place] = sum;
    }
}

// z: a block for each tile.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_forward(const stored *__restrict__ x,  // [N][C][H][W]
            const real *__restrict__ w1,   // [C][M][3][3]
            const real *__restrict__ w2,   // [C][L]
            stored *__restrict__ z,        // [N][C][H][W]
            int N, int H, int W) {
    // Shared memory whose size the launch sets: more than 48 KB must be asked for that way.
    DYNAMIC_SHARED(ForwardTile, forward_tile);
    ForwardTile &tile = *forward_tile;
    const Place at = place_of(blockIdx.x, H, W);

    load_weights(tile.weights, w1, w2);
    load_tile<1>(tile.x[0][0], HEIGHT * WIDTH, x, at, H, W);
    __syncthreads();  // the numbers that a thread needs were loaded by others
    primary_output(tile.x, tile.weights.w1, tile.p);
    __syncthreads();  // and so it is with p: each thread takes L channels of it

    for (int k = threadIdx.x; k < C * PIXELS; k += THREADS) {
        const int channel = k / PIXELS, pixel = k % PIXELS, o = channel / M, m = channel % M;
        const int row = at.top + pixel / COLUMNS, column = at.left + pixel % COLUMNS;
        real sum = 0;
        for (int l = 0; l < L; l++) sum += tile.weights.w2[m][o][l] * tile.p[l * M + m][pixel];
        if (row < H && column < W)  // a tile may hang over the right and the lower edge
            put(z + ((at.n * C + channel) * H + row) * W + column, sum);
    }
}

// gx: the way back, in the same three steps. gp is computed on the halo as well, 60 pixels for 32:
// blocks cannot wait for each other, so neighbours compute what they have in common twice.
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
    // outside of the image gz is 0, and gp therefore, too
    primary_gradient(tile.gz[0][0], tile.weights.w2, tile.gp[0][0], HEIGHT * WIDTH,
                     HEIGHT * WIDTH);
    __syncthreads();

    for (int k = threadIdx.x; k < C * PIXELS; k += THREADS) {
        const int channel = k / PIXELS, i = k % PIXELS / COLUMNS, j = k % COLUMNS;
        const int row = at.top + i, column = at.left + j;
        if (row < H && column < W)
            put(gx + ((at.n * C + channel) * H + row) * W + column,
                convolve<true>(tile.gp, tile.weights.w1, channel / M, channel % M, i, j));
    }
}

// partial1 and partial2: the part of gw1 and gw2 that the pixels of one tile give. A block cannot
// add to what other blocks write without atomics, whose order, and with it the last bits of the
// result, would change from run to run. So each block writes its part, and a second kernel
// (sum_partials.cu) adds them up in order.
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
    const Place at = place_of(blockIdx.x, H, W);

    load_weights(tile.weights, w1, w2);
    load_tile<1>(tile.x[0][0], HEIGHT * WIDTH, x, at, H, W);
    load_tile<0>(tile.gz[0], PLANE, gz, at, H, W);
    __syncthreads();
    // Neither p nor gp was kept by the kernels before: computing them again takes no global
    // memory, keeping them would take one write and one read of each number.
    primary_output(tile.x, tile.weights.w1, tile.p);
    primary_gradient(tile.gz[0], tile.weights.w2, tile.gp[0], PLANE, PIXELS);
    __syncthreads();

    // W^p: Σ gp·x. The pixels of the tile that lie outside of the image have gp = 0.
    for (int k = threadIdx.x; k < C * M * 9; k += THREADS) {
        const int tap = k % 9, c = k / 9 % M, channel = k / 9 / M, l = channel / M;
        real sum = 0;
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++)
                sum += tile.gp[channel][i * COLUMNS + j] *
                       tile.x[l * M + c][i + tap / 3][j + tap % 3];
        partial1[blockIdx.x * C * M * 9 + k] = sum;
    }
    // W^d: Σ gz·p. Here neighbouring threads have neighbouring l: see PLANE.
    for (int k = threadIdx.x; k < C * L; k += THREADS) {
        const int l = k % L, o = k / L % L, m = k / L / L;
        real sum = 0;
        for (int pixel = 0; pixel < PIXELS; pixel++)
            sum += tile.gz[o * M + m][pixel] * tile.p[l * M + m][pixel];
        partial2[blockIdx.x * C * L + k] = sum;
    }
}
