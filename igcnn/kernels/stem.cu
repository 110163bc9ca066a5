// The beginning of a network in training; formulas and shapes: stem.py.
//
// | kernel  | a thread computes                 | all threads read of 4 images, C = 48, in MB   |
// |---------|-----------------------------------|-----------------------------------------------|
// | stem_v1 | one number of z                   | 71 from global memory: each pixel is cropped  |
// |         |                                   | and normalised anew for each product          |
// | stem_v2 | 8 channels of a pixel at a time,  | 0.3, and 43 of what the block shares: 8 rows  |
// |         | and their statistics              | of an image with their border, the weights    |
// Shipped: v2; v1 is kept as the formula that can be read. It leaves the statistics of z to
// another launch, which reads all of it. Bytes as the emulator counts them (launch.following).
//
// v2 compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of
// 67 TFLOP/s. For 64 images of 32×32, C = 48.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | stem_v2                |        72 |       9.8 | 13.6 |  0.17 |       3.2 |           4.6 |
#include "common.cuh"
#include "augmentation.cuh"

const int TAPS = 27;  // 3×3 pixels of 3 colours

// The batch x and its labels, and z = w ∗ x; w: (C, 3, 3, 3).
extern "C" __global__ void __launch_bounds__(256, 1)
stem_v1(const unsigned char *__restrict__ images, const int *__restrict__ all_labels,
        const int *__restrict__ order, const unsigned *__restrict__ state,
        const float *__restrict__ mean, const float *__restrict__ std,
        const real *__restrict__ w, stored *__restrict__ x, int *__restrict__ labels,
        stored *__restrict__ z, int N, int count, int H, int W, int C, int pad, int mirror,
        int stream) {
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
const int CHANNELS = 8;  // of a thread at a time

// The batch x and its labels, z = w ∗ x, and partial[c, block], the moments of z there.
// grid: images × ⌈H/TH⌉; w: (C, 3, 3, 3).
extern "C" __global__ void __launch_bounds__(256, 2)
stem_v2(const unsigned char *__restrict__ images, const int *__restrict__ all_labels,
        const int *__restrict__ order, const unsigned *__restrict__ state,
        const float *__restrict__ mean, const float *__restrict__ std,
        const real *__restrict__ w, stored *__restrict__ x, int *__restrict__ labels,
        stored *__restrict__ z, real *__restrict__ partial, int count, int H, int W, int C,
        int pad, int mirror, int stream) {
    DYNAMIC_SHARED(real, memory);
    const int width = W + 2, rounded = (C + CHANNELS - 1) / CHANNELS * CHANNELS;
    real *tile = memory;                            // (3, TH + 2, W + 2)
    real *weights = tile + 3 * (TH + 2) * width;    // (TAPS, C rounded up)
    real *scratch = weights + TAPS * rounded;       // (warps, CHANNELS, 3)
    const int tiles = (H + TH - 1) / TH, n = blockIdx.x / tiles, top = blockIdx.x % tiles * TH;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const Crop crop(order, state, n, count, pad, mirror, stream);
    if (threadIdx.x == 0 && top == 0) labels[n] = all_labels[crop.sample];
    for (int k = threadIdx.x; k < 3 * (TH + 2) * width; k += blockDim.x) {
        const int c = k / width / (TH + 2), i = k / width % (TH + 2) + top - 1, j = k % width - 1;
        real value = 0;
        if (i >= 0 && i < H && j >= 0 && j < W) {
            value = as_stored(crop.at(images, mean, std, c, i, j, H, W));
            if (i >= top && i < top + TH) put(x + ((n * 3 + c) * H + i) * W + j, value);
        }
        tile[k] = value;
    }
    for (int k = threadIdx.x; k < TAPS * rounded; k += blockDim.x)
        weights[k] = k % rounded < C ? w[k % rounded * TAPS + k / rounded] : real(0);
    __syncthreads();
    const int pixels = min(TH, H - top) * W;
    for (int first = 0; first < C; first += CHANNELS) {
        real seen = 0, means[CHANNELS] = {}, squares[CHANNELS] = {};  // Moments of one count
        for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
            const int row = p / W, column = p % W;
            real totals[CHANNELS] = {};
#pragma unroll 1  // else all weights are taken into registers, which are too few
            for (int k = 0; k < TAPS / 3; k++) {  // rows of all three colours
                const real *values = tile + (k / 3 * (TH + 2) + row + k % 3) * width + column;
                const real *factors = weights + 3 * k * rounded + first;
#pragma unroll
                for (int b = 0; b < 3; b++)
#pragma unroll
                    for (int o = 0; o < CHANNELS; o++)
                        totals[o] += values[b] * factors[b * rounded + o];
            }
            seen += 1;
            const real share = 1 / seen;
#pragma unroll
            for (int o = 0; o < CHANNELS; o++) {
                if (first + o >= C) continue;
                put(z + ((n * C + first + o) * H + top + row) * W + column, totals[o]);
                const real value = as_stored(totals[o]), d = value - means[o];
                means[o] += d * share;
                squares[o] += d * (value - means[o]);
            }
        }
#pragma unroll
        for (int o = 0; o < CHANNELS; o++) {
            Moments<real> own = {seen, means[o], squares[o]};
            own.merge_warp();
            if (lane == 0) put_moments(scratch + (warp * CHANNELS + o) * 3, own);
        }
        __syncthreads();
        const int o = threadIdx.x, c = first + o;
        if (o < CHANNELS && c < C) {
            Moments<real> all = {0, 0, 0};
            for (int i = 0; i < int(blockDim.x) / WARP; i++)
                all.merge(moments_at<real>(scratch + (i * CHANNELS + o) * 3));
            put_moments(partial + (c * gridDim.x + blockIdx.x) * 3, all);
        }
        __syncthreads();
    }
}
