// The unit y = P · W^d · P^T · W^p · x in one kernel a direction; formula and shapes:
// interleaved_group_convolution.py. Both permutations are index arithmetic: with primary output
// p[l·M + m], the secondary group m has the inputs p[l·M + m] for all l, and its output o is
// channel o·M + m. 3×3 kernels, stride 1, M secondary groups; others take the general kernels.
//
// | kernel                 | a block                       | a thread holds in registers          |
// |------------------------|-------------------------------|--------------------------------------|
// | igc_forward_v1         | TH rows of an image           | L outputs × 2 groups × 2 pixels      |
// | igc_backward_input_v1  | TH rows of an image           | L gradients × 2 pixels of one group  |
// | igc_backward_weight_v1 | TH rows at a time, persistent | 3×3 of each W^d, and 9 taps of W^p   |
//
// For 64 images, L = 24, compiled for sm_90. Limits: 4.3 TB/s, and 55 % of 67 TFLOP/s, of an H200;
// what a kernel moves and computes at least, the primary output computed again counted in.
//
// | kernel                 | M | registers | shared KB |  MB | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|---|
// | igc_forward_v1         | 2 |       165 |      25.4 | 25.2 |  0.26 |       5.9 |           7.2 |
// | igc_backward_input_v1  | 2 |       117 |      23.9 | 37.7 |  0.26 |       8.8 |           7.2 |
// | igc_backward_weight_v1 | 2 |       120 |     111.0 | 37.7 |  0.53 |       8.8 |          14.3 |
// | igc_forward_v1         | 4 |       168 |      24.0 | 12.6 |  0.19 |       2.9 |           5.1 |
// | igc_backward_input_v1  | 4 |       134 |      22.5 | 18.9 |  0.19 |       4.4 |           5.1 |
// | igc_backward_weight_v1 | 4 |       148 |     114.0 | 18.9 |  0.38 |       4.4 |          10.2 |
// | igc_forward_v1         | 8 |       165 |      26.0 |  6.3 |  0.15 |       1.5 |           4.1 |
// | igc_backward_input_v1  | 8 |       144 |      24.5 |  9.4 |  0.15 |       2.2 |           4.1 |
// | igc_backward_weight_v1 | 8 |       247 |     120.0 |  9.4 |  0.30 |       2.2 |           8.2 |
//
// What is normalised and rectified is so while it is loaded: `scale·x + shift`, then max with 0.
// G primary groups are in shared memory at once. Sizes are defines: the loops unroll.
//
// real: float
// variant: L=24 M=2 H=32 W=32 TH=8 G=8 WH=4
// variant: L=24 M=4 H=16 W=16 TH=8 G=6 WH=4
// variant: L=24 M=8 H=8 W=8 TH=8 G=4 WH=4
#include "common.cuh"

#define PAIRS (W / 2)
#define FORWARD_THREADS (TH * PAIRS * M / 2)
#define INPUT_THREADS ((TH + 2) * PAIRS * M)
#define WEIGHT_THREADS 256

const int C = L * M;
// on a multiprocessor: bfloat16 takes registers to convert
const int FORWARD_BLOCKS = sizeof(stored) == 2 ? 2 : 3;
const int FORWARD_WARPS = FORWARD_THREADS / WARP;
// channels of a thread, rounded up so that a warp can share them out in halves
const int SHARED_OUT = (2 * L + 15) / 16 * 16;

// The primary weights (channel, input, tap) and secondary weights (l, m, o) of groups from `first`.
struct Weights {
    real primary[G * M][M][9];
    real secondary[G][M][L];
    __device__ __forceinline__ void load(const real *w1, const real *w2, int first, int count,
                                         int threads) {
        for (int k = threadIdx.x; k < count * M * M * 9; k += threads)
            (&primary[0][0][0])[k] = w1[first * M * M * 9 + k];
        for (int k = threadIdx.x; k < count * C; k += threads) {
            int o = k % L, m = k / L % M, l = k / C;
            secondary[l][m][o] = w2[(m * L + o) * L + first + l];
        }
    }
};

__device__ __forceinline__ real activated(const stored *p, const real *scale, const real *shift,
                                          int c, int activate) {
    real value = get(p);
    return activate ? rectified(scale[c] * value + shift[c]) : value;
}

// Sums values over the lanes of a warp; afterwards value i of a lane is the sum of what was value
// first + i, for i < N / 16, the same in lanes 2k and 2k + 1. Returns `first`.
template <int N> __device__ __forceinline__ int share_out(real *values) {
    const int lane = threadIdx.x % WARP;
    int first = 0;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const int half = N >> (step + 1), distance = 16 >> step;
        const bool upper = lane & distance;
#pragma unroll
        for (int i = 0; i < half; i++) {
            real mine = upper ? values[i + half] : values[i];
            real other = upper ? values[i] : values[i + half];
            values[i] = mine + __shfl_xor_sync(ALL_LANES, other, distance);
        }
        first += upper ? half : 0;
    }
#pragma unroll
    for (int i = 0; i < N / 16; i++) values[i] += __shfl_xor_sync(ALL_LANES, values[i], 1);
    return first;
}

// z, and partial[c, block] = Σ (z − pivot), Σ (z − pivot)². grid: images × H/TH.
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, FORWARD_BLOCKS)
igc_forward_v1(const stored *__restrict__ x, const real *__restrict__ scale,
               const real *__restrict__ shift, const real *__restrict__ w1,
               const real *__restrict__ w2, const real *__restrict__ pivot,
               stored *__restrict__ z, real *__restrict__ partial, int activate) {
    __shared__ real tile[G * M][TH + 2][W + 2];
    __shared__ Weights weights;
    __shared__ real scratch[2][FORWARD_WARPS][SHARED_OUT];
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    const int slot = threadIdx.x / (TH * PAIRS);
    const int row = threadIdx.x / PAIRS % TH, column = threadIdx.x % PAIRS * 2;
    real sums[2][2][L] = {};  // (m, pixel, o)
    for (int first = 0; first < L; first += G) {
        const int count = min(G, L - first);
        __syncthreads();
        for (int k = threadIdx.x; k < count * M * (TH + 2) * (W + 2); k += FORWARD_THREADS) {
            int j = k % (W + 2) - 1, i = k / (W + 2) % (TH + 2) + top - 1;
            int c = first * M + k / ((W + 2) * (TH + 2));
            bool inside = i >= 0 && i < H && j >= 0 && j < W;
            (&tile[0][0][0])[k] = inside ? activated(x + ((n * C + c) * H + i) * W + j, scale,
                                                     shift, c, activate)
                                         : real(0);
        }
        weights.load(w1, w2, first, count, FORWARD_THREADS);
        __syncthreads();
        for (int g = 0; g < count; g++) {
            real p[2][2] = {};  // (m, pixel)
            for (int c = 0; c < M; c++)
#pragma unroll
                for (int a = 0; a < 3; a++) {
                    const real *values = &tile[g * M + c][row + a][column];
#pragma unroll
                    for (int m = 0; m < 2; m++)
#pragma unroll
                        for (int b = 0; b < 3; b++) {
                            real w = weights.primary[g * M + 2 * slot + m][c][a * 3 + b];
                            p[m][0] += w * values[b];
                            p[m][1] += w * values[b + 1];
                        }
                }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int o = 0; o < L; o++) {
                    real w = weights.secondary[g][2 * slot + m][o];
                    sums[m][0][o] += w * p[m][0];
                    sums[m][1][o] += w * p[m][1];
                }
        }
    }
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int o = 0; o < L; o++) {
            int c = o * M + 2 * slot + m;
            stored *target = z + ((n * C + c) * H + top + row) * W + column;
#pragma unroll
            for (int pixel = 0; pixel < 2; pixel++) {
                put(target + pixel, sums[m][pixel][o]);
                sums[m][pixel][o] = as_stored(sums[m][pixel][o]) - pivot[c];
            }
        }
    // first the sums, then the squares: together they would not fit into the registers
#pragma unroll
    for (int which = 0; which < 2; which++) {
        real values[SHARED_OUT] = {};
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int o = 0; o < L; o++) {
                real d0 = sums[m][0][o], d1 = sums[m][1][o];
                values[m * L + o] = which ? d0 * d0 + d1 * d1 : d0 + d1;
            }
        const int first = share_out<SHARED_OUT>(values);
#pragma unroll
        for (int i = 0; i < SHARED_OUT / 16; i++)
            if (lane % 2 == 0) scratch[which][warp][first + i] = values[i];
    }
    __syncthreads();
    const int warps = FORWARD_WARPS / (M / 2);  // of one slot
    for (int k = threadIdx.x; k < 2 * C; k += FORWARD_THREADS) {
        int which = k % 2, o = k / 2 / M, m = k / 2 % M;
        real sum = 0;
        for (int w = 0; w < warps; w++) sum += scratch[which][m / 2 * warps + w][m % 2 * L + o];
        partial[((o * M + m) * gridDim.x + blockIdx.x) * 2 + which] = sum;
    }
}

// The gradient of z: that of a normalised term (combine.cu), computed where it is loaded.
// mask 0: no ReLU, 1: where y > 0, 2: where scale·z + shift > 0.
struct Incoming {
    const stored *gy, *y, *z;
    const real *mean, *coefficients, *scale, *shift;
    int mask;
    __device__ __forceinline__ real at(int c, int place) const {
        real g = get(gy + place), value = get(z + place);
        if (mask == 1 && !(get(y + place) > real(0))) g = 0;
        if (mask == 2 && !(scale[c] * value + shift[c] > real(0))) g = 0;
        return coefficients[3 * c] * g + coefficients[3 * c + 1] * (value - mean[c]) +
               coefficients[3 * c + 2];
    }
};

// gx. grid: images × H/TH. accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 1)
igc_backward_input_v1(const stored *__restrict__ gy, const stored *__restrict__ y,
                      const stored *__restrict__ z, const real *__restrict__ mean,
                      const real *__restrict__ coefficients, const real *__restrict__ scale,
                      const real *__restrict__ shift, const real *__restrict__ w1,
                      const real *__restrict__ w2, stored *__restrict__ gx, int mask,
                      int accumulate) {
    __shared__ real tile[G * M][TH + 2][W + 2];  // the gradient of the primary output
    __shared__ Weights weights;
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    const int m = threadIdx.x / ((TH + 2) * PAIRS);
    const int row = threadIdx.x / PAIRS % (TH + 2), column = threadIdx.x % PAIRS * 2;
    const bool inside = top + row - 1 >= 0 && top + row - 1 < H;
    real gz[L][2];
#pragma unroll
    for (int o = 0; o < L; o++) {
        int c = o * M + m, place = ((n * C + c) * H + top + row - 1) * W + column;
        gz[o][0] = inside ? incoming.at(c, place) : real(0);
        gz[o][1] = inside ? incoming.at(c, place + 1) : real(0);
    }
    for (int first = 0; first < L; first += G) {
        const int count = min(G, L - first);
        __syncthreads();
        weights.load(w1, w2, first, count, INPUT_THREADS);
        for (int k = threadIdx.x; k < count * M * (TH + 2) * 2; k += INPUT_THREADS)
            tile[k / 2 / (TH + 2)][k / 2 % (TH + 2)][k % 2 * (W + 1)] = 0;
        __syncthreads();
        for (int g = 0; g < count; g++) {
            real dp0 = 0, dp1 = 0;
#pragma unroll
            for (int o = 0; o < L; o++) {
                dp0 += weights.secondary[g][m][o] * gz[o][0];
                dp1 += weights.secondary[g][m][o] * gz[o][1];
            }
            tile[g * M + m][row][column + 1] = dp0;
            tile[g * M + m][row][column + 2] = dp1;
        }
        __syncthreads();
        for (int k = threadIdx.x; k < count * TH * PAIRS; k += INPUT_THREADS) {
            int j = k % PAIRS * 2, i = k / PAIRS % TH, g = k / PAIRS / TH;
            real sums[M][2] = {};
            for (int q = 0; q < M; q++)
#pragma unroll
                for (int a = 0; a < 3; a++) {
                    const real *values = &tile[g * M + q][i + 2 - a][j];
#pragma unroll
                    for (int c = 0; c < M; c++)
#pragma unroll
                        for (int b = 0; b < 3; b++) {
                            real w = weights.primary[g * M + q][c][a * 3 + b];
                            sums[c][0] += w * values[2 - b];
                            sums[c][1] += w * values[3 - b];
                        }
                }
#pragma unroll
            for (int c = 0; c < M; c++) {
                stored *target = gx + ((n * C + (first + g) * M + c) * H + top + i) * W + j;
                put(target, accumulate ? get(target) + sums[c][0] : sums[c][0]);
                put(target + 1, accumulate ? get(target + 1) + sums[c][1] : sums[c][1]);
            }
        }
    }
}

const int PIXELS = WH * W;
const int CHANNEL = PIXELS + 1;  // numbers from channel to channel: not a multiple of the banks
const int X_CHANNEL = (WH + 2) * (W + 2) + 1;
const int UNITS1 = L * M * M, UNITS2 = M * (L / 3) * (L / 3);  // of 9 weights each
const int PARTS1 = UNITS1 < WEIGHT_THREADS ? WEIGHT_THREADS / UNITS1 : 1;
const int PARTS2 = UNITS2 < WEIGHT_THREADS ? WEIGHT_THREADS / UNITS2 : 1;
const int EACH1 = (UNITS1 + WEIGHT_THREADS - 1) / WEIGHT_THREADS;
const int EACH2 = (UNITS2 + WEIGHT_THREADS - 1) / WEIGHT_THREADS;

// partial1[block·PARTS1 + part] = gw1 and partial2[block·PARTS2 + part] = gw2 over the block's
// tiles of WH rows. The primary output and its gradient are computed again, tile by tile.
extern "C" __global__ void __launch_bounds__(WEIGHT_THREADS, 1)
igc_backward_weight_v1(const stored *__restrict__ gy, const stored *__restrict__ y,
                       const stored *__restrict__ z, const real *__restrict__ mean,
                       const real *__restrict__ coefficients, const real *__restrict__ scale,
                       const real *__restrict__ shift, const stored *__restrict__ x,
                       const real *__restrict__ x_scale, const real *__restrict__ x_shift,
                       const real *__restrict__ w1, const real *__restrict__ w2,
                       real *__restrict__ partial1, real *__restrict__ partial2, int N, int mask,
                       int activate) {
    DYNAMIC_SHARED(real, memory);
    real *xs = memory, *gz = xs + C * X_CHANNEL, *p = gz + C * CHANNEL, *dp = p + C * CHANNEL;
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int t = threadIdx.x;
    real sums1[EACH1][9] = {}, sums2[EACH2][3][3] = {};
    for (int number = blockIdx.x; number < N * (H / WH); number += gridDim.x) {
        const int n = number / (H / WH), top = number % (H / WH) * WH;
        __syncthreads();
        for (int k = t; k < C * (WH + 2) * (W + 2); k += WEIGHT_THREADS) {
            int c = k / ((WH + 2) * (W + 2)), place = k % ((WH + 2) * (W + 2));
            int i = place / (W + 2) + top - 1, j = place % (W + 2) - 1;
            bool inside = i >= 0 && i < H && j >= 0 && j < W;
            xs[c * X_CHANNEL + place] = inside ? activated(x + ((n * C + c) * H + i) * W + j,
                                                           x_scale, x_shift, c, activate)
                                               : real(0);
        }
        for (int k = t; k < C * PIXELS; k += WEIGHT_THREADS) {
            int c = k / PIXELS, pixel = k % PIXELS;
            gz[c * CHANNEL + pixel] = incoming.at(c, ((n * C + c) * H + top) * W + pixel);
        }
        __syncthreads();
        for (int k = t; k < C * PIXELS; k += WEIGHT_THREADS) {
            int channel = k / PIXELS, pixel = k % PIXELS, l = channel / M, m = channel % M;
            int i = pixel / W, j = pixel % W;
            real sum = 0, gradient = 0;
            for (int c = 0; c < M; c++)
#pragma unroll
                for (int tap = 0; tap < 9; tap++)
                    sum += w1[(channel * M + c) * 9 + tap] *
                           xs[(l * M + c) * X_CHANNEL + (i + tap / 3) * (W + 2) + j + tap % 3];
            for (int o = 0; o < L; o++)
                gradient += w2[(m * L + o) * L + l] * gz[(o * M + m) * CHANNEL + pixel];
            p[channel * CHANNEL + pixel] = sum;
            dp[channel * CHANNEL + pixel] = gradient;
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < EACH1; e++) {
            const int unit = t % UNITS1 + e * WEIGHT_THREADS;
            const int part = t / UNITS1;
            if (unit >= UNITS1 || part >= PARTS1) continue;
            const int channel = unit / M, c = channel / M * M + unit % M;  // of p, and of x
            for (int i = WH * part / PARTS1; i < WH * (part + 1) / PARTS1; i++) {
                const real *line = xs + c * X_CHANNEL + i * (W + 2);
                for (int j = 0; j < W; j++) {
                    real g = dp[channel * CHANNEL + i * W + j];
#pragma unroll
                    for (int tap = 0; tap < 9; tap++)
                        sums1[e][tap] += g * line[tap / 3 * (W + 2) + j + tap % 3];
                }
            }
        }
#pragma unroll
        for (int e = 0; e < EACH2; e++) {
            const int unit = t % UNITS2 + e * WEIGHT_THREADS, part = t / UNITS2;
            if (unit >= UNITS2 || part >= PARTS2) continue;
            const int m = unit % M, o = unit / M / (L / 3) * 3, l = unit / M % (L / 3) * 3;
            const real *left = gz + (o * M + m) * CHANNEL, *right = p + (l * M + m) * CHANNEL;
            for (int k = PIXELS * part / PARTS2; k < PIXELS * (part + 1) / PARTS2; k++)
#pragma unroll
                for (int i = 0; i < 3; i++)
#pragma unroll
                    for (int j = 0; j < 3; j++)
                        sums2[e][i][j] += left[i * M * CHANNEL + k] * right[j * M * CHANNEL + k];
        }
    }
#pragma unroll
    for (int e = 0; e < EACH1; e++) {
        const int unit = t % UNITS1 + e * WEIGHT_THREADS, part = t / UNITS1;
        if (unit >= UNITS1 || part >= PARTS1) continue;
        for (int tap = 0; tap < 9; tap++)
            partial1[((blockIdx.x * PARTS1 + part) * UNITS1 + unit) * 9 + tap] = sums1[e][tap];
    }
#pragma unroll
    for (int e = 0; e < EACH2; e++) {
        const int unit = t % UNITS2 + e * WEIGHT_THREADS, part = t / UNITS2;
        if (unit >= UNITS2 || part >= PARTS2) continue;
        const int m = unit % M, o = unit / M / (L / 3) * 3, l = unit / M % (L / 3) * 3;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                partial2[((blockIdx.x * PARTS2 + part) * C + m * L + o + i) * L + l + j] =
                    sums2[e][i][j];
    }
}
