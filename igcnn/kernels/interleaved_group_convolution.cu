// The unit y = P · W^d · P^T · W^p · x in one kernel a direction; formula and shapes:
// interleaved_group_convolution.py. Both permutations are index arithmetic: with primary output
// p[l·M + m], the secondary group m has the inputs p[l·M + m] for all l, and its output o is
// channel o·M + m. 3×3 kernels, stride 1, M secondary groups; others take the general kernels.
//
// | kernel                 | a block                       | a thread                             |
// |------------------------|-------------------------------|--------------------------------------|
// | igc_forward_v1         | 256 numbers of z              | one: Σ w2·p with p = Σ w1·x          |
// | igc_forward_v2         | TH rows of an image           | OT outputs × QT·4 pixels             |
// | igc_backward_input_v1  | 256 numbers of gx             | one: Σ w1·gp with gp = Σ w2·gz       |
// | igc_backward_input_v2  | TH rows of an image           | G gradients × 8 pixels               |
// | igc_backward_weight_v1 | 256 weights, some images      | one: Σ over pixels of gp·x or gz·p   |
// | igc_backward_weight_v2 | WH rows at a time, persistent | 6×6 of W^d, 9 taps of 2×2 of W^p     |
// Shipped: v2; v1 is the readable reference.
//
// v1 is slow because each thread computes the numbers of p, or of its gradient gp, that it needs
// anew: an output takes L of p, and each of p is an input of L outputs. That is 9·M·L products for
// 9·M + L, two loads from global memory each, and what is loaded is normalised each time. The
// statistics of z take another launch. What all threads read, in MB for 4 images of 32×32 with
// M = 2, as the emulator counts it (launch.following):
//
// |                         |  v1: global |  v2: global | v2: shared |
// |-------------------------|-------------|-------------|------------|
// | igc_forward             |        1336 |         1.5 |        7.3 |
// | igc_backward_input      |        2960 |         4.8 |        9.2 |
// | igc_backward_weight     |        4566 |         9.8 |       12.9 |
//
// v2 for 64 images, L = 24, compiled for sm_90. Limits: 4.3 TB/s, and 55 % of 67 TFLOP/s, of an
// H200; what a kernel moves and computes at least, the primary output computed again counted in.
//
// | kernel                 | M | registers | shared KB |  MB | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|---|
// | igc_forward_v2         | 2 |       167 |      38.6 | 25.2 |  0.26 |       5.9 |           7.2 |
// | igc_backward_input_v2  | 2 |       128 |      82.6 | 37.7 |  0.26 |       8.8 |           7.2 |
// | igc_backward_weight_v2 | 2 |       219 |     111.0 | 37.7 |  0.53 |       8.8 |          14.3 |
// | igc_forward_v2         | 4 |       167 |      43.5 | 12.6 |  0.19 |       2.9 |           5.1 |
// | igc_backward_input_v2  | 4 |       128 |      87.5 | 18.9 |  0.19 |       4.4 |           5.1 |
// | igc_backward_weight_v2 | 4 |       221 |     114.0 | 18.9 |  0.38 |       4.4 |          10.2 |
// | igc_forward_v2         | 8 |       128 |      44.0 |  6.3 |  0.15 |       1.5 |           4.1 |
// | igc_backward_input_v2  | 8 |       128 |      72.0 |  9.4 |  0.15 |       2.2 |           4.1 |
// | igc_backward_weight_v2 | 8 |       255 |     120.0 |  9.4 |  0.30 |       2.2 |           8.2 |
//
// What is normalised and rectified is so while it is loaded: `scale·x + shift`, then max with 0.
// A block's memory gives a multiprocessor, which multiplies 128 numbers a cycle, 32 of them: one
// that is loaded should serve four products. In v2
//   convolve: a thread computes 2 rows × 4 pixels × 2 channels of a 3×3 convolution; neighbours in
//             a row come by shuffle: 4.2 products a number;
//   multiply: 8 pixels × OT or G channels, tiles of a matrix product: 4.8 and 4;
// and the primary output goes from the one to the other through the block's memory. A *quad* is
// four pixels side by side, loaded at once, FILL of them under way. G primary groups are
// in memory at once. Sizes are defines: the loops unroll. Measured: docs/gpu_measured.md.
//
// real: float
// variant: L=24 M=2 H=32 W=32 TH=8 G=8 WH=4 OT=12 QT=2
// variant: L=24 M=4 H=16 W=16 TH=8 G=8 WH=4 OT=12 QT=2
// variant: L=24 M=8 H=8 W=8 TH=4 G=8 WH=4 OT=12 QT=1
#include "interleaved_group_convolution.cuh"

#define LANES (TH * W / 4 / QT)
#define FORWARD_THREADS (LANES * (L / OT) * M)
#define INPUT_THREADS 128
#define WEIGHT_THREADS 256

// x as the unit takes it, one number at a time; 0 outside of the image.
struct Entering {
    const stored *x;
    const real *scale, *shift;
    int activate;
    __device__ __forceinline__ real at(int n, int c, int i, int j) const {
        if (i < 0 || i >= H || j < 0 || j >= W) return 0;
        const real value = get(x + ((n * C + c) * H + i) * W + j);
        return activate ? rectified(scale[c] * value + shift[c]) : value;
    }
};

// p[l·M + m] at pixel (i, j).
__device__ __forceinline__ real primary_output(const Entering &x, const real *w1, int n, int l,
                                               int m, int i, int j) {
    real sum = 0;
    for (int c = 0; c < M; c++)
        for (int tap = 0; tap < 9; tap++)
            sum += w1[((l * M + m) * M + c) * 9 + tap] *
                   x.at(n, l * M + c, i + tap / 3 - 1, j + tap % 3 - 1);
    return sum;
}

// z.
extern "C" __global__ void __launch_bounds__(256, 1)
igc_forward_v1(const stored *__restrict__ x, const real *__restrict__ scale,
               const real *__restrict__ shift, const real *__restrict__ w1,
               const real *__restrict__ w2, stored *__restrict__ z, int N, int activate) {
    const Entering entering = {x, scale, shift, activate};
    for (int k = first_index(); k < N * C * H * W; k += index_step()) {
        const int n = k / (C * H * W), c = k / (H * W) % C, i = k / W % H, j = k % W;
        const int o = c / M, m = c % M;
        real sum = 0;
        for (int l = 0; l < L; l++)
            sum += w2[(m * L + o) * L + l] * primary_output(entering, w1, n, l, m, i, j);
        put(z + k, sum);
    }
}

// on a multiprocessor: bfloat16 takes registers to convert
const int FORWARD_BLOCKS = sizeof(stored) == 2 ? 2 : 3;
const int FILL = 3;  // quads that a thread has under way at once

// The primary weights of groups from `first` on, as (group, channel in, tap, channel out); where
// `flipped`, those of the transpose.
__device__ __forceinline__ void take_primary(real *target, const real *w1, int first, bool flipped,
                                             int threads) {
    for (int k = threadIdx.x; k < G * M * M * 9; k += threads) {
        const int tap = k % 9, c = k / 9 % M, m = k / 9 / M % M, g = k / 9 / M / M;
        const int in = flipped ? m : c, out = flipped ? c : m;
        target[((g * M + in) * 9 + (flipped ? 8 - tap : tap)) * M + out] =
            w1[first * M * M * 9 + k];
    }
}

// z, and partial[c, block], the moments of z there. grid: images × H/TH.
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, FORWARD_BLOCKS)
igc_forward_v2(const stored *__restrict__ x, const real *__restrict__ scale,
               const real *__restrict__ shift, const real *__restrict__ w1,
               const real *__restrict__ w2, stored *__restrict__ z, real *__restrict__ partial,
               int activate) {
    DYNAMIC_SHARED(Quad, memory);
    const int CHANNEL = (TH + 2) * W, PIXELS = TH * W, PIECES = G * TH / 2 * QUADS * M / 2;
    real *tile = (real *)memory, *p = tile + G * M * CHANNEL, *primary = p + G * M * PIXELS;
    real *secondary = primary + G * M * M * 9;  // (group, m, output)
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
    const int outputs = slot % (L / OT) * OT, group = slot / (L / OT);
    real sums[QT][4][OT] = {};
    for (int first = 0; first < L; first += G) {
        __syncthreads();
        load_tile<FILL>(tile, CHANNEL, x + n * C * H * W, first * M, G * M, top - 1, TH + 2,
                        activate ? scale : nullptr, shift, FORWARD_THREADS);
        take_primary(primary, w1, first, false, FORWARD_THREADS);
        for (int k = threadIdx.x; k < G * C; k += FORWARD_THREADS) {
            const int g = k % G, o = k / G % L, m = k / G / L;
            secondary[(g * M + m) * L + o] = w2[(m * L + o) * L + first + g];
        }
        __syncthreads();
        for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += FORWARD_THREADS) {
            const Piece of(min(k, PIECES - 1), TH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M;
            real found[2][2][4];
            convolve<CHANNEL>(tile + c * CHANNEL + place, of.quad,
                              primary + 9 * c * M + of.channel, 9 * M, M, 1, found);
            if (k < PIECES) put_piece(p + (c + of.channel) * PIXELS + place, PIXELS, found);
        }
        __syncthreads();
        multiply<OT, QT>(p + group * PIXELS + 4 * lane, M * PIXELS, 4 * LANES,
                         secondary + group * L + outputs, M * L, G, sums);
    }
    store_with_moments<LANES, TH * W>(z + n * C * H * W, outputs * M + group, top * W + 4 * lane,
                                      4 * LANES, sums, partial, blockIdx.x, gridDim.x);
}

// The gradient of p[l·M + m] at pixel (i, j).
__device__ __forceinline__ real primary_gradient(const Incoming &gz, const real *w2, int n, int l,
                                                 int m, int i, int j) {
    real sum = 0;
    for (int o = 0; o < L; o++) sum += w2[(m * L + o) * L + l] * gz.at(n, o * M + m, i, j);
    return sum;
}

// gx. accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(256, 1)
igc_backward_input_v1(const stored *__restrict__ gy, const stored *__restrict__ y,
                      const stored *__restrict__ z, const real *__restrict__ mean,
                      const real *__restrict__ coefficients, const real *__restrict__ scale,
                      const real *__restrict__ shift, const real *__restrict__ w1,
                      const real *__restrict__ w2, stored *__restrict__ gx, int N, int mask,
                      int accumulate) {
    const Incoming gz = {gy, y, z, mean, coefficients, scale, shift, mask};
    for (int k = first_index(); k < N * C * H * W; k += index_step()) {
        const int n = k / (C * H * W), c = k / (H * W) % C, i = k / W % H, j = k % W, l = c / M;
        real sum = accumulate ? get(gx + k) : real(0);
        for (int m = 0; m < M; m++)
            for (int tap = 0; tap < 9; tap++)
                sum += w1[((l * M + m) * M + c % M) * 9 + tap] *
                       primary_gradient(gz, w2, n, l, m, i + 1 - tap / 3, j + 1 - tap % 3);
        put(gx + k, sum);
    }
}

// partial1[s] = gw1 and partial2[s] = gw2 over slice s of the images. grid: ⌈weights/256⌉ × slices.
extern "C" __global__ void __launch_bounds__(256, 1)
igc_backward_weight_v1(const stored *__restrict__ gy, const stored *__restrict__ y,
                       const stored *__restrict__ z, const real *__restrict__ mean,
                       const real *__restrict__ coefficients, const real *__restrict__ scale,
                       const real *__restrict__ shift, const stored *__restrict__ x,
                       const real *__restrict__ x_scale, const real *__restrict__ x_shift,
                       const real *__restrict__ w1, const real *__restrict__ w2,
                       real *__restrict__ partial1, real *__restrict__ partial2, int N, int mask,
                       int activate) {
    const Incoming gz = {gy, y, z, mean, coefficients, scale, shift, mask};
    const Entering entering = {x, x_scale, x_shift, activate};
    const int SIZE1 = C * M * 9, SIZE2 = C * L, s = blockIdx.y;
    const int k1 = blockIdx.x * blockDim.x + threadIdx.x, k2 = k1 - SIZE1;
    int first, end;
    slice_of(s, gridDim.y, N, first, end);
    real sum = 0;
    if (k2 < 0) {
        const int tap = k1 % 9, c = k1 / 9 % M, m = k1 / 9 / M % M, l = k1 / 9 / M / M;
        for (int k = first * H * W; k < end * H * W; k++) {
            const int n = k / (H * W), i = k / W % H, j = k % W;
            sum += primary_gradient(gz, w2, n, l, m, i, j) *
                   entering.at(n, l * M + c, i + tap / 3 - 1, j + tap % 3 - 1);
        }
        partial1[s * SIZE1 + k1] = sum;
    } else if (k2 < SIZE2) {
        const int l = k2 % L, o = k2 / L % L, m = k2 / L / L;
        for (int k = first * H * W; k < end * H * W; k++) {
            const int n = k / (H * W), i = k / W % H, j = k % W;
            sum += gz.at(n, o * M + m, i, j) * primary_output(entering, w1, n, l, m, i, j);
        }
        partial2[s * SIZE2 + k2] = sum;
    }
}

// gx. grid: images × H/TH. accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 2)
igc_backward_input_v2(const stored *__restrict__ gy, const stored *__restrict__ y,
                      const stored *__restrict__ z, const real *__restrict__ mean,
                      const real *__restrict__ coefficients, const real *__restrict__ scale,
                      const real *__restrict__ shift, const real *__restrict__ w1,
                      const real *__restrict__ w2, stored *__restrict__ gx, int mask,
                      int accumulate) {
    DYNAMIC_SHARED(Quad, memory);
    const int CHANNEL = (TH + 2) * W, HALF = (TH + 2) * QUADS / 2;
    const int PIECES = G * TH / 2 * QUADS * M / 2;
    real *gz = (real *)memory, *dp = gz + C * CHANNEL, *primary = dp + G * M * CHANNEL;
    real *secondary = primary + G * M * M * 9;  // (output, m, group)
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    incoming.load_tile<FILL>(gz, CHANNEL, n, top - 1, TH + 2, INPUT_THREADS);
    for (int first = 0; first < L; first += G) {
        __syncthreads();
        take_primary(primary, w1, first, true, INPUT_THREADS);
        for (int k = threadIdx.x; k < G * C; k += INPUT_THREADS) {
            const int g = k % G, o = k / G % L, m = k / G / L;
            secondary[(o * M + m) * G + g] = w2[(m * L + o) * L + first + g];
        }
        __syncthreads();
        for (int k = threadIdx.x; k < HALF * M; k += INPUT_THREADS) {
            const int q = k % HALF, m = k / HALF;
            real sums[2][4][G] = {};
            multiply<G, 2>(gz + m * CHANNEL + 4 * q, M * CHANNEL, 4 * HALF, secondary + m * G,
                           M * G, L, sums);
#pragma unroll
            for (int e = 0; e < 2 * G; e++) {
                const real(&v)[4][G] = sums[e / G];
                put_quad(dp + (e % G * M + m) * CHANNEL + 4 * (q + e / G * HALF),
                         Quad{v[0][e % G], v[1][e % G], v[2][e % G], v[3][e % G]});
            }
        }
        __syncthreads();
        for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += INPUT_THREADS) {
            const Piece of(min(k, PIECES - 1), TH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M;
            real found[2][2][4];
            convolve<CHANNEL>(dp + c * CHANNEL + place, of.quad, primary + 9 * c * M + of.channel,
                              9 * M, M, 1, found);
#pragma unroll
            for (int e = 0; e < 4 && k < PIECES; e++) {
                const int channel = n * C + first * M + c + of.channel + e / 2;
                stored *target = gx + (channel * H + top + e % 2) * W + place;
                const real *v = found[e / 2][e % 2];
                const Quad old = accumulate ? quad_at(target) : zero_quad();
                put_quad(target, Quad{old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]});
            }
        }
    }
}

const int X_CHANNEL = (WH + 2) * W + 4;  // numbers from channel to channel: threads that look at
const int CHANNEL = WH * W + 4;          // several find them in different banks
const int SIDE = L % 6 ? 3 : 6;          // a thread has SIDE × SIDE weights of W^d
const int UNITS1 = L * M / 2 * M / 2, UNITS2 = M * (L / SIDE) * (L / SIDE);

// Over how many threads, a power of two up to `most`, the pixels of a tile are dealt for each of
// `units`, and how many units a thread has.
__device__ constexpr int parts(int units, int most) {
    return most < 2 || 2 * units > WEIGHT_THREADS ? 1 : 2 * parts(2 * units, most / 2);
}
__device__ constexpr int each(int units) { return (units + WEIGHT_THREADS - 1) / WEIGHT_THREADS; }
const int PARTS1 = parts(UNITS1, QUADS & -QUADS), EACH1 = each(UNITS1);
const int PARTS2 = parts(UNITS2, WARP), EACH2 = each(UNITS2);

// partial1[block] = gw1 and partial2[block] = gw2 over the block's tiles of WH rows. The primary
// output and its gradient are computed again, tile by tile.
extern "C" __global__ void __launch_bounds__(WEIGHT_THREADS, 1)
igc_backward_weight_v2(const stored *__restrict__ gy, const stored *__restrict__ y,
                       const stored *__restrict__ z, const real *__restrict__ mean,
                       const real *__restrict__ coefficients, const real *__restrict__ scale,
                       const real *__restrict__ shift, const stored *__restrict__ x,
                       const real *__restrict__ x_scale, const real *__restrict__ x_shift,
                       const real *__restrict__ w1, const real *__restrict__ w2,
                       real *__restrict__ partial1, real *__restrict__ partial2, int N, int mask,
                       int activate) {
    DYNAMIC_SHARED(Quad, memory);
    real *xs = (real *)memory, *gz = xs + C * X_CHANNEL, *p = gz + C * CHANNEL;
    real *dp = p + C * CHANNEL;
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int t = threadIdx.x, HALF = WH * QUADS / 2;
    // of dp, in whole warps, and then of p
    const int TILES = HALF * M * (L / G), BEGIN = (TILES + WARP - 1) / WARP * WARP;
    const int PIECES = L * WH / 2 * QUADS * M / 2;
    real sums1[EACH1][2][2][9] = {}, sums2[EACH2][SIDE][SIDE] = {};
    for (int number = blockIdx.x; number < N * (H / WH); number += gridDim.x) {
        const int n = number / (H / WH), top = number % (H / WH) * WH;
        __syncthreads();
        load_tile<FILL>(xs, X_CHANNEL, x + n * C * H * W, 0, C, top - 1, WH + 2,
                        activate ? x_scale : nullptr, x_shift, WEIGHT_THREADS);
        incoming.load_tile<FILL>(gz, CHANNEL, n, top, WH, WEIGHT_THREADS);
        __syncthreads();
        for (int k = t; k - t % WARP < BEGIN + PIECES; k += WEIGHT_THREADS) {
            if (k < BEGIN) {
                if (k >= TILES) continue;
                const int q = k % HALF, m = k / HALF % M, l = k / HALF / M * G;
                real sums[2][4][G] = {};
                multiply<G, 2>(gz + m * CHANNEL + 4 * q, M * CHANNEL, 4 * HALF,
                               w2 + m * L * L + l, L, L, sums);
#pragma unroll
                for (int e = 0; e < 2 * G; e++) {
                    const real(&v)[4][G] = sums[e / G];
                    put_quad(dp + ((l + e % G) * M + m) * CHANNEL + 4 * (q + e / G * HALF),
                             Quad{v[0][e % G], v[1][e % G], v[2][e % G], v[3][e % G]});
                }
                continue;
            }
            const Piece of(min(k - BEGIN, PIECES - 1), WH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M, m = c + of.channel;
            real found[2][2][4];
            convolve<X_CHANNEL>(xs + c * X_CHANNEL + place, of.quad, w1 + m * M * 9, 9, 1, M * 9,
                                found);
            if (k - BEGIN < PIECES) put_piece(p + m * CHANNEL + place, CHANNEL, found);
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < EACH1; e++) {
            // neighbouring threads have neighbouring quads; all take part in the shuffles
            const int unit = min(t / PARTS1 + e * (WEIGHT_THREADS / PARTS1), UNITS1 - 1);
            const int c = unit % (M / 2) * 2, m = unit / (M / 2) % (M / 2) * 2;
            const int l = unit / (M / 2) / (M / 2), part = t % PARTS1;
            for (int q = part; q < QUADS; q += PARTS1) {
                Quad g[2][WH];
#pragma unroll
                for (int k = 0; k < 2 * WH; k++)
                    g[k / WH][k % WH] =
                        quad_at(dp + (l * M + m + k / WH) * CHANNEL + k % WH * W + 4 * q);
#pragma unroll
                for (int k = 0; k < 2 * (WH + 2); k++) {
                    const int r = k % (WH + 2), d = k / (WH + 2);
                    const real *place = xs + (l * M + c + d) * X_CHANNEL + r * W + 4 * q;
                    const Quad v = quad_at(place);
                    real before = __shfl_up_sync(ALL_LANES, v.w, 1);
                    real behind = __shfl_down_sync(ALL_LANES, v.x, 1);
                    if (part == 0) before = q ? place[-1] : real(0);
                    if (part == PARTS1 - 1) behind = q < QUADS - 1 ? place[4] : real(0);
                    const real values[6] = {before, v.x, v.y, v.z, v.w, behind};
#pragma unroll
                    for (int i = 0; i < WH; i++) {
                        if (r < i || r > i + 2) continue;
#pragma unroll
                        for (int b = 0; b < 6; b++) {
                            const Quad &own = g[b / 3][i];
                            sums1[e][b / 3][d][(r - i) * 3 + b % 3] +=
                                own.x * values[b % 3] + own.y * values[b % 3 + 1] +
                                own.z * values[b % 3 + 2] + own.w * values[b % 3 + 3];
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int e = 0; e < EACH2; e++) {
            const int unit = t / PARTS2 + e * (WEIGHT_THREADS / PARTS2), m = unit % M;
            const int o = unit / M % (L / SIDE), l = unit / M / (L / SIDE);
            if (unit >= UNITS2) continue;
            const real *left = gz + (o * SIDE * M + m) * CHANNEL;
            const real *right = p + (l * SIDE * M + m) * CHANNEL;
            for (int q = t % PARTS2; q < WH * QUADS; q += PARTS2) {
                Quad values[SIDE];
#pragma unroll
                for (int j = 0; j < SIDE; j++)
                    values[j] = quad_at(right + j * M * CHANNEL + 4 * q);
#pragma unroll
                for (int i = 0; i < SIDE; i++) {
                    const Quad g = quad_at(left + i * M * CHANNEL + 4 * q);
#pragma unroll
                    for (int j = 0; j < SIDE; j++)
                        sums2[e][i][j] += g.x * values[j].x + g.y * values[j].y +
                                          g.z * values[j].z + g.w * values[j].w;
                }
            }
        }
    }
#pragma unroll
    for (int e = 0; e < EACH1; e++) {
        const int unit = t / PARTS1 + e * (WEIGHT_THREADS / PARTS1);
        const int c = unit % (M / 2) * 2, m = unit / (M / 2) % (M / 2) * 2;
        const int l = unit / (M / 2) / (M / 2);
#pragma unroll
        for (int k = 0; k < 36; k++) {
            real sum = sums1[e][k / 18][k / 9 % 2][k % 9];
            for (int distance = PARTS1 / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            const int channel = l * M + m + k / 18, input = c + k / 9 % 2;
            if (t % PARTS1 == 0 && unit < UNITS1)
                partial1[((blockIdx.x * C + channel) * M + input) * 9 + k % 9] = sum;
        }
    }
#pragma unroll
    for (int e = 0; e < EACH2; e++) {
        const int unit = t / PARTS2 + e * (WEIGHT_THREADS / PARTS2), m = unit % M;
        const int o = unit / M % (L / SIDE) * SIDE, l = unit / M / (L / SIDE) * SIDE;
#pragma unroll
        for (int k = 0; k < SIDE * SIDE; k++) {
            real sum = sums2[e][k / SIDE][k % SIDE];
            for (int distance = PARTS2 / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            const int output = m * L + o + k / SIDE;
            if (t % PARTS2 == 0 && unit < UNITS2)
                partial2[(blockIdx.x * C + output) * L + l + k % SIDE] = sum;
        }
    }
}
