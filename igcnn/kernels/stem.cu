// The beginning of a network in training; formulas and shapes: stem.py.
//
// | kernel  | a thread computes                 | all threads read of 4 images, C = 48, in MB   |
// |---------|-----------------------------------|-----------------------------------------------|
// | stem_v1 | one number of z                   | 71 from global memory: each pixel is cropped  |
// |         |                                   | and normalised anew for each product          |
// | stem_v2 | 8 channels of four pixels at a    | 0.3, and 7 of what the block  shares: 8 rows  |
// |         | time, and their statistics        | of an image with their border, the weights    |
// Shipped: v2; v1 is the readable reference. It leaves the statistics of z to
// another launch, which reads all of it. Bytes as the emulator counts them (launch.following).
//
// v2 compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of
// 67 TFLOP/s. For 64 images of 32×32, C = 48.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | stem_v2                |        87 |      10.2 | 13.6 |  0.17 |       3.2 |           4.6 |
#include "common.cuh"
#include "augmentation.cuh"

const int TAPS = 27;  // 3×3 pixels of 3 colours

// The batch x and its labels, and z = w ∗ x; w: (C, 3, 3, 3).
extern "C" __global__ void __launch_bounds__(256, 1)
stem_v1(const unsigned char *__restrict__ images,  // [count][3][H][W]
        const int *__restrict__ all_labels,        // [count]
        const int *__restrict__ order,             // [count]
        const unsigned *__restrict__ state,        // [5]
        const float *__restrict__ mean,            // [3]
        const float *__restrict__ std,             // [3]
        const real *__restrict__ w,                // [C][3][3][3]
        stored *__restrict__ x,                    // [N][3][H][W]
        int *__restrict__ labels,                  // [N]
        stored *__restrict__ z,                    // [N][C][H][W]
        int N, int count, int H, int W, int C, int pad, int mirror, int stream) {
    for (int k = first_index(); k < N * C * H * W; k += index_step()) {
        const int n = k / (C * H * W), o = k / (H * W) % C, i = k / W % H, j = k % W;
        const Crop crop(order, state, n, count, pad, mirror, stream);
        real sum = 0;
        for (int tap = 0; tap < TAPS; tap++) {
            const int c = tap / 9, row = i + tap / 3 % 3 - 1, column = j + tap % 3 - 1;
            if (row < 0 || row >= H || column < 0 || column >= W) continue;
            sum += w[o * TAPS + tap] *
                   as_stored(crop.at(images, mean, std, c, row, column, H, W));
        }
        put(z + k, sum);
        if (o == 0)
            for (int c = 0; c < 3; c++)
                put(x + ((n * 3 + c) * H + i) * W + j,
                    crop.at(images, mean, std, c, i, j, H, W));
        if (o == 0 && i == 0 && j == 0) labels[n] = all_labels[crop.sample];
    }
}

const int TH = 8;        // rows of a block
const int CHANNELS = 8;  // of a warp at a time

// The batch x and its labels, z = w ∗ x, and partial[c, block], the moments of z there.
// A thread has four neighbours in a row and CHANNELS channels, a warp 32 such, one after another.
// grid: images × ⌈H/TH⌉; w: (C, 3, 3, 3).
extern "C" __global__ void __launch_bounds__(256, 2)
stem_v2(const unsigned char *__restrict__ images,  // [count][3][H][W]
        const int *__restrict__ all_labels,        // [count]
        const int *__restrict__ order,             // [count]
        const unsigned *__restrict__ state,        // [5]
        const float *__restrict__ mean,            // [3]
        const float *__restrict__ std,             // [3]
        const real *__restrict__ w,                // [C][3][3][3]
        stored *__restrict__ x,                    // [N][3][H][W]
        int *__restrict__ labels,                  // [N]
        stored *__restrict__ z,                    // [N][C][H][W]
        real *__restrict__ partial,                // [C][gridDim.x][3]
        int count, int H, int W, int C, int pad, int mirror, int stream) {
    DYNAMIC_SHARED(real, memory);
    const int quads = (W + 3) / 4, width = 4 * quads + 2, chunks = (C + CHANNELS - 1) / CHANNELS;
    const int rounded = chunks * CHANNELS, batches = (TH * quads + WARP - 1) / WARP;
    real *weights = memory;                       // (TAPS, C rounded up)
    real *tile = weights + TAPS * rounded;        // (3, TH + 2, columns and their border)
    real *scratch = tile + 3 * (TH + 2) * width;  // (C rounded up, batches, 3)
    const int tiles = (H + TH - 1) / TH, n = blockIdx.x / tiles, top = blockIdx.x % tiles * TH;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const int rows = min(TH, H - top);
    const Crop crop(order, state, n, count, pad, mirror, stream);
    if (threadIdx.x == 0 && top == 0) labels[n] = all_labels[crop.sample];
    for (int line = warp; line < 3 * (TH + 2); line += warps) {
        const int c = line / (TH + 2), row = line % (TH + 2) - 1, i = top + row;
        for (int k = lane; k < width; k += WARP) {
            const int j = k - 1;
            real value = 0;
            if (i >= 0 && i < H && j >= 0 && j < W) {
                value = as_stored(crop.at(images, mean, std, c, i, j, H, W));
                if (row >= 0 && row < rows) put(x + ((n * 3 + c) * H + i) * W + j, value);
            }
            tile[line * width + k] = value;
        }
    }
    for (int k = threadIdx.x; k < TAPS * rounded; k += blockDim.x) {
        const int o = k / TAPS, tap = k % TAPS;
        weights[tap * rounded + o] = o < C ? w[k] : real(0);
    }
    __syncthreads();
    for (int item = warp; item < chunks * batches; item += warps) {
        const int first = item / batches * CHANNELS, batch = item % batches;
        const int quad = batch * WARP + lane, row = quad / quads, column = quad % quads * 4;
        const int pixels = row < rows ? min(4, W - column) : 0;
        real sums[CHANNELS][4] = {};
#pragma unroll 1  // else all weights are taken into registers, which are too few
        for (int k = 0; k < TAPS / 3 && pixels; k++) {  // rows of all three colours
            const real *values = tile + (k / 3 * (TH + 2) + row + k % 3) * width + column;
            real own[6];
#pragma unroll
            for (int b = 0; b < 6; b++) own[b] = values[b];
#pragma unroll
            for (int b = 0; b < 3; b++)
#pragma unroll
                for (int o = 0; o < CHANNELS; o += 4) {
                    const Quad four = quad_at(weights + (3 * k + b) * rounded + first + o);
#pragma unroll
                    for (int p = 0; p < 4; p++) {
                        sums[o][p] += own[b + p] * four.x;
                        sums[o + 1][p] += own[b + p] * four.y;
                        sums[o + 2][p] += own[b + p] * four.z;
                        sums[o + 3][p] += own[b + p] * four.w;
                    }
                }
        }
        const real seen = warp_sum(real(pixels)), share = 1 / seen;
#pragma unroll
        for (int o = 0; o < CHANNELS; o++) {
            stored *place = z + ((n * C + first + o) * H + top + row) * W + column;
            if (pixels && first + o < C) {
                if (W % 4 == 0)
                    put_quad(place, Quad{sums[o][0], sums[o][1], sums[o][2], sums[o][3]});
                else
                    for (int p = 0; p < pixels; p++) put(place + p, sums[o][p]);
            }
            real sum = 0, squares = 0;
#pragma unroll
            for (int p = 0; p < 4; p++) {
                sums[o][p] = as_stored(sums[o][p]);
                sum += p < pixels ? sums[o][p] : real(0);
            }
            const real average = warp_sum(sum) * share;
#pragma unroll
            for (int p = 0; p < 4; p++) {
                const real d = p < pixels ? sums[o][p] - average : real(0);
                squares += d * d;
            }
            squares = warp_sum(squares);
            real *moments = scratch + ((first + o) * batches + batch) * 3;
            if (lane == 0) put_moments(moments, {seen, average, squares});
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        Moments<real> all = {0, 0, 0};
        for (int i = 0; i < batches; i++)
            all.merge(moments_at<real>(scratch + (c * batches + i) * 3));
        put_moments(partial + (c * gridDim.x + blockIdx.x) * 3, all);
    }
}
