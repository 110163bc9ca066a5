// The fused unit cut anew: v3, to be measured beside v2 by benchmarks/gpu_cuts.py. Formula and
// shapes: interleaved_group_convolution.py; v2: interleaved_group_convolution.cu.
//
// | kernel                 | a block                             | a thread                       |
// |------------------------|-------------------------------------|--------------------------------|
// | igc_forward_v3         | FM secondary groups, FH rows        | FO outputs × FQ·4 pixels       |
// | igc_backward_input_v3  | IL primary groups, IH rows          | G gradients × IQ·4 pixels      |
// | igc_backward_weight_v3 | WH rows at a time, persistent       | 6×6 of W^d or 9 taps of 2×2    |
//
// On an H200 v2 takes three to eight times as long as its arithmetic: a block waits for memory in
// turns (three chunks of the input in forward, of four loads each; weights number by number, 36 a
// thread and chunk with M = 8), with one or two warps on a scheduler to do something else. So in v3
//   all that a block reads is under way at once: weights straight into the block's memory
//   (`copy_async`), pixels FF, IF or WF quads a thread; there are no chunks of the input;
//   a block has part of the groups where an image is small (FM, IL), and its weights alone;
//   the weights' gradients have 16 warps of 128 registers instead of 8 of 255: half of them sum
//   W^p's, half W^d's.
//
// real: float
// variant: L=24 M=2 H=32 W=32 G=8 FM=2 FH=4 FO=12 FQ=1 FF=8 IL=24 IH=8 IQ=1 IF=6 IT=160 WH=4 WQ=1 WF=5
// variant: L=24 M=4 H=16 W=16 G=8 FM=2 FH=8 FO=12 FQ=1 FF=8 IL=24 IH=8 IQ=1 IF=6 IT=160 WH=4 WQ=1 WF=5
// variant: L=24 M=8 H=8 W=8 G=8 FM=2 FH=8 FO=8 FQ=1 FF=8 IL=8 IH=8 IQ=1 IF=6 IT=256 WH=4 WQ=1 WF=5
#include "interleaved_group_convolution.cuh"

#define LANES (FH * W / 4 / FQ)
#define FORWARD_THREADS (LANES * (L / FO) * FM)
#define WEIGHT_THREADS 512

// Copies BYTES, 4 or 16, to memory of the block: there after wait_for_copies(), and from sm_80 on the thread
// goes on until then.
template <int BYTES> __device__ __forceinline__ void copy_async(real *target, const real *source) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                     unsigned(__cvta_generic_to_shared(target))),
                 "l"(source), "n"(BYTES)
                 : "memory");
#else
    for (int i = 0; i < BYTES / 4; i++) target[i] = source[i];
#endif
}
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// z, and partial[c, slot], the moments of z there. grid: slots (images × H/FH) × M/FM.
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, 2)
igc_forward_v3(const stored *__restrict__ x,    // [N][L*M][H][W]
               const real *__restrict__ scale,  // or null: [L*M]
               const real *__restrict__ shift,  // or null: [L*M]
               const real *__restrict__ w1,     // [L*M][M][3][3]
               const real *__restrict__ w2,     // [L*M][L]
               stored *__restrict__ z,          // [N][L*M][H][W]
               real *__restrict__ partial,      // [L*M][slots][3]
               int activate) {
    DYNAMIC_SHARED(Quad, memory);
    const int CHANNEL = (FH + 2) * W, PIXELS = FH * W, PIECES = L * FH / 2 * QUADS * FM / 2;
    const int PITCH = FM * L + 4;
    real *tile = (real *)memory, *p = tile + C * CHANNEL, *primary = p + L * FM * PIXELS;
    real *secondary = primary + L * FM * M * 9;  // (l, m, output)
    const int slot = blockIdx.x / (M / FM), begin = blockIdx.x % (M / FM) * FM;
    const int n = slot / (H / FH), top = slot % (H / FH) * FH;
    for (int k = threadIdx.x; k < L * FM * M * 9 / 4; k += FORWARD_THREADS) {
        const int l = k / (FM * M * 9 / 4), rest = k % (FM * M * 9 / 4) * 4;
        copy_async<16>(primary + 4 * k, w1 + (l * M + begin) * M * 9 + rest);
    }
    for (int k = threadIdx.x; k < FM * L * L; k += FORWARD_THREADS)
        copy_async<4>(secondary + k % L * PITCH + k / L, w2 + begin * L * L + k);
    load_tile<FF>(tile, CHANNEL, x + n * C * H * W, 0, C, top - 1, FH + 2,
                  activate ? scale : nullptr, shift, FORWARD_THREADS);
    wait_for_copies();
    __syncthreads();
    for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += FORWARD_THREADS) {
        const int piece = min(k, PIECES - 1), quad = piece % QUADS;
        const int row = piece / QUADS % (FH / 2) * 2;
        const int m = piece / QUADS / (FH / 2) % (FM / 2) * 2;
        const int l = piece / QUADS / (FH / 2) / (FM / 2), place = row * W + 4 * quad;
        real found[2][2][4];
        convolve<CHANNEL>(tile + l * M * CHANNEL + place, quad, primary + (l * FM + m) * M * 9, 9,
                          1, M * 9, found);
        if (k < PIECES) put_piece(p + (l * FM + m) * PIXELS + place, PIXELS, found);
    }
    __syncthreads();
    const int lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    const int outputs = part % (L / FO) * FO, group = begin + part / (L / FO);
    real sums[FQ][4][FO] = {};
    multiply<FO, FQ>(p + (group - begin) * PIXELS + 4 * lane, FM * PIXELS, 4 * LANES,
                     secondary + (group - begin) * L + outputs, PITCH, L, sums);
    store_with_moments<LANES, PIXELS>(z + n * C * H * W, outputs * M + group, top * W + 4 * lane,
                                      4 * LANES, sums, partial, slot, gridDim.x / (M / FM));
}

// gx. grid: images × H/IH × L/IL. accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(IT, 2)
igc_backward_input_v3(const stored *__restrict__ gy,          // [N][L*M][H][W]
                      const stored *__restrict__ y,           // [N][L*M][H][W]
                      const stored *__restrict__ z,           // [N][L*M][H][W]
                      const real *__restrict__ mean,          // [L*M]
                      const real *__restrict__ coefficients,  // [L*M][3]
                      const real *__restrict__ scale,         // [L*M]
                      const real *__restrict__ shift,         // [L*M]
                      const real *__restrict__ w1,            // [L*M][M][3][3]
                      const real *__restrict__ w2,            // [L*M][L]
                      stored *__restrict__ gx,                // [N][L*M][H][W]
                      int mask, int accumulate) {
    DYNAMIC_SHARED(Quad, memory);
    const int CHANNEL = (IH + 2) * W, PLACES = (IH + 2) * QUADS / IQ;
    const int PIECES = G * IH / 2 * QUADS * M / 2;
    real *gz = (real *)memory, *dp = gz + C * CHANNEL, *primary = dp + G * M * CHANNEL;
    real *secondary = primary + IL * M * M * 9;  // (m, output, group)
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int slot = blockIdx.x / (L / IL), begin = blockIdx.x % (L / IL) * IL;
    const int n = slot / (H / IH), top = slot % (H / IH) * IH;
    for (int k = threadIdx.x; k < IL * M * M * 9 / 4; k += IT)
        copy_async<16>(primary + 4 * k, w1 + begin * M * M * 9 + 4 * k);
    const int SIDE_BY_SIDE = IL % 4 || L % 4 ? 1 : 4, ROW = IL / SIDE_BY_SIDE;
    for (int k = threadIdx.x; k < M * L * ROW; k += IT)
        copy_async<4 * SIDE_BY_SIDE>(secondary + SIDE_BY_SIDE * k,
                                w2 + k / ROW * L + begin + k % ROW * SIDE_BY_SIDE);
    incoming.load_tile<IF>(gz, CHANNEL, n, top - 1, IH + 2, IT);
    wait_for_copies();
    for (int first = 0; first < IL; first += G) {
        __syncthreads();
        for (int k = threadIdx.x; k < PLACES * M; k += IT) {
            const int q = k % PLACES, m = k / PLACES;
            real sums[IQ][4][G] = {};
            multiply<G, IQ>(gz + m * CHANNEL + 4 * q, M * CHANNEL, 4 * PLACES,
                            secondary + m * L * IL + first, IL, L, sums);
#pragma unroll
            for (int e = 0; e < IQ * G; e++) {
                const real(&v)[4][G] = sums[e / G];
                put_quad(dp + (e % G * M + m) * CHANNEL + 4 * (q + e / G * PLACES),
                         Quad{v[0][e % G], v[1][e % G], v[2][e % G], v[3][e % G]});
            }
        }
        __syncthreads();
        for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += IT) {
            const Piece of(min(k, PIECES - 1), IH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M;
            real found[2][2][4];
            convolve<CHANNEL>(dp + c * CHANNEL + place, of.quad,
                              primary + ((first * M + c) * M + of.channel) * 9 + 8, M * 9, -1, 9,
                              found);
#pragma unroll
            for (int e = 0; e < 4 && k < PIECES; e++) {
                const int channel = n * C + (begin + first) * M + c + of.channel + e / 2;
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

// Threads that sum W^p's gradients; the others sum those of W^d.
const int THREADS1 = UNITS1 <= WEIGHT_THREADS / 2 ? WEIGHT_THREADS / 2 : WEIGHT_THREADS / 4 * 3;
const int THREADS2 = WEIGHT_THREADS - THREADS1;
// Over how many threads, a power of two up to `most`, the pixels of a tile are dealt for each of
// `units`, and how many units a thread has.
__device__ constexpr int parts(int units, int threads, int most) {
    return most < 2 || 2 * units > threads ? 1 : 2 * parts(2 * units, threads, most / 2);
}
__device__ constexpr int each(int units, int threads) { return (units + threads - 1) / threads; }
const int PARTS1 = parts(UNITS1, THREADS1, QUADS & -QUADS), EACH1 = each(UNITS1, THREADS1);
const int PARTS2 = parts(UNITS2, THREADS2, WARP), EACH2 = each(UNITS2, THREADS2);
const int EACH = EACH1 > EACH2 ? EACH1 : EACH2;

// partial1[block] = gw1 and partial2[block] = gw2 over the block's tiles of WH rows. The primary
// output and its gradient are computed again, tile by tile.
extern "C" __global__ void __launch_bounds__(WEIGHT_THREADS, 1)
igc_backward_weight_v3(const stored *__restrict__ gy,          // [N][L*M][H][W]
                       const stored *__restrict__ y,           // [N][L*M][H][W]
                       const stored *__restrict__ z,           // [N][L*M][H][W]
                       const real *__restrict__ mean,          // [L*M]
                       const real *__restrict__ coefficients,  // [L*M][3]
                       const real *__restrict__ scale,         // [L*M]
                       const real *__restrict__ shift,         // [L*M]
                       const stored *__restrict__ x,           // [N][L*M][H][W]
                       const real *__restrict__ x_scale,       // or null: [L*M]
                       const real *__restrict__ x_shift,       // or null: [L*M]
                       const real *__restrict__ w1,            // [L*M][M][3][3]
                       const real *__restrict__ w2,            // [L*M][L]
                       real *__restrict__ partial1,            // [gridDim.x][L*M][M][3][3]
                       real *__restrict__ partial2,            // [gridDim.x][L*M][L]
                       int N, int mask, int activate) {
    DYNAMIC_SHARED(Quad, memory);
    real *xs = (real *)memory, *gz = xs + C * X_CHANNEL, *p = gz + C * CHANNEL;
    real *dp = p + C * CHANNEL;
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int t = threadIdx.x, PLACES = WH * QUADS / WQ;
    // of dp, in whole warps, and then of p
    const int TILES = PLACES * M * (L / G), BEGIN = (TILES + WARP - 1) / WARP * WARP;
    const int PIECES = L * WH / 2 * QUADS * M / 2;
    real sums[EACH][36] = {};
    const bool first = t < THREADS1;  // whole warps
    const int u = first ? t : t - THREADS1;
    for (int number = blockIdx.x; number < N * (H / WH); number += gridDim.x) {
        const int n = number / (H / WH), top = number % (H / WH) * WH;
        __syncthreads();
        load_tile<WF>(xs, X_CHANNEL, x + n * C * H * W, 0, C, top - 1, WH + 2,
                      activate ? x_scale : nullptr, x_shift, WEIGHT_THREADS);
        incoming.load_tile<WF>(gz, CHANNEL, n, top, WH, WEIGHT_THREADS);
        __syncthreads();
        for (int k = t; k - t % WARP < BEGIN + PIECES; k += WEIGHT_THREADS) {
            if (k < BEGIN) {
                if (k >= TILES) continue;
                const int q = k % PLACES, m = k / PLACES % M, l = k / PLACES / M * G;
                real sums[WQ][4][G] = {};
                multiply<G, WQ>(gz + m * CHANNEL + 4 * q, M * CHANNEL, 4 * PLACES,
                                w2 + m * L * L + l, L, L, sums);
#pragma unroll
                for (int e = 0; e < WQ * G; e++) {
                    const real(&v)[4][G] = sums[e / G];
                    put_quad(dp + ((l + e % G) * M + m) * CHANNEL + 4 * (q + e / G * PLACES),
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
        for (int e = 0; e < EACH1 && first; e++) {
            // neighbouring threads have neighbouring quads; all take part in the shuffles
            const int unit = min(u / PARTS1 + e * (THREADS1 / PARTS1), UNITS1 - 1);
            const int c = unit % (M / 2) * 2, m = unit / (M / 2) % (M / 2) * 2;
            const int l = unit / (M / 2) / (M / 2), part = u % PARTS1;
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
                            real &sum = sums[e][(b / 3 * 2 + d) * 9 + (r - i) * 3 + b % 3];
                            sum += own.x * values[b % 3];
                            sum += own.y * values[b % 3 + 1];
                            sum += own.z * values[b % 3 + 2];
                            sum += own.w * values[b % 3 + 3];
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int e = 0; e < EACH2 && !first; e++) {
            const int unit = u / PARTS2 + e * (THREADS2 / PARTS2), m = unit % M;
            const int o = unit / M % (L / SIDE), l = unit / M / (L / SIDE);
            if (unit >= UNITS2) continue;
            const real *left = gz + (o * SIDE * M + m) * CHANNEL;
            const real *right = p + (l * SIDE * M + m) * CHANNEL;
            for (int q = u % PARTS2; q < WH * QUADS; q += PARTS2) {
                Quad values[SIDE];
#pragma unroll
                for (int j = 0; j < SIDE; j++)
                    values[j] = quad_at(right + j * M * CHANNEL + 4 * q);
#pragma unroll
                for (int i = 0; i < SIDE; i++) {
                    const Quad g = quad_at(left + i * M * CHANNEL + 4 * q);
#pragma unroll
                    for (int j = 0; j < SIDE; j++) {
                        real &sum = sums[e][i * SIDE + j];
                        sum += g.x * values[j].x;
                        sum += g.y * values[j].y;
                        sum += g.z * values[j].z;
                        sum += g.w * values[j].w;
                    }
                }
            }
        }
    }
#pragma unroll
    for (int e = 0; e < EACH1 && first; e++) {
        const int unit = u / PARTS1 + e * (THREADS1 / PARTS1);
        const int c = unit % (M / 2) * 2, m = unit / (M / 2) % (M / 2) * 2;
        const int l = unit / (M / 2) / (M / 2);
#pragma unroll
        for (int k = 0; k < 36; k++) {
            real sum = sums[e][k];
            for (int distance = PARTS1 / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            const int channel = l * M + m + k / 18, input = c + k / 9 % 2;
            if (u % PARTS1 == 0 && unit < UNITS1)
                partial1[((blockIdx.x * C + channel) * M + input) * 9 + k % 9] = sum;
        }
    }
#pragma unroll
    for (int e = 0; e < EACH2 && !first; e++) {
        const int unit = u / PARTS2 + e * (THREADS2 / PARTS2), m = unit % M;
        const int o = unit / M % (L / SIDE) * SIDE, l = unit / M / (L / SIDE) * SIDE;
#pragma unroll
        for (int k = 0; k < SIDE * SIDE; k++) {
            real sum = sums[e][k];
            for (int distance = PARTS2 / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            const int output = m * L + o + k / SIDE;
            if (u % PARTS2 == 0 && unit < UNITS2)
                partial2[(blockIdx.x * C + output) * L + l + k % SIDE] = sum;
        }
    }
}
