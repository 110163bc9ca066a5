// The unit y = P · W^d · P^T · W^p · x in one kernel a direction; formula and shapes:
// interleaved_group_convolution.py. Both permutations are index arithmetic: with primary output
// p[l·M + m], the secondary group m has the inputs p[l·M + m] for all l, and its output o is
// channel o·M + m. 3×3 kernels, stride 1, M secondary groups; others take the general kernels.
//
// | kernel                 | a block                       | a thread                             |
// |------------------------|-------------------------------|--------------------------------------|
// | igc_forward_v2         | TH rows of an image           | OT outputs × QT·4 pixels             |
// | igc_backward_input_v2  | TH rows of an image           | G gradients × 8 pixels               |
// | igc_backward_weight_v2 | WH rows at a time, persistent | 6×6 of W^d, 9 taps of 2×2 of W^p     |
// v1, the formula one thread a number, is in interleaved_group_convolution_v1.cu. The ideas here,
// one by one, are in ladder/: read that first.
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

#define LANES (TH * W / 4 / QT)                 // threads that share the pixels of a block
#define FORWARD_THREADS (LANES * (L / OT) * M)  // times the micro-tiles of output channels
#define INPUT_THREADS 128
#define WEIGHT_THREADS 256

// on a multiprocessor: bfloat16 takes registers to convert
const int FORWARD_BLOCKS = sizeof(stored) == 2 ? 2 : 3;
const int FILL = 3;  // quads that a thread has under way at once

// The primary weights of groups from `first` on, as (group, channel in, tap, channel out); where
// `flipped`, those of the transpose. Output channels come last: convolve takes two side by side.
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
igc_forward_v2(const stored *__restrict__ x,    // [N][L*M][H][W]
               const real *__restrict__ scale,  // or null: [L*M]
               const real *__restrict__ shift,  // or null: [L*M]
               const real *__restrict__ w1,     // [L*M][M][3][3]
               const real *__restrict__ w2,     // [L*M][L]
               stored *__restrict__ z,          // [N][L*M][H][W]
               real *__restrict__ partial,      // [L*M][gridDim.x][3]
               int activate) {
    // Shared memory, as quads so that it is aligned for them: G groups of x with a row above and
    // one below, their p, and their part of both weights. A row is as wide as the image, so it
    // needs no halo at its ends: convolve takes zeros there.
    DYNAMIC_SHARED(Quad, memory);
    const int CHANNEL = (TH + 2) * W, PIXELS = TH * W, PIECES = G * TH / 2 * QUADS * M / 2;
    real *tile = (real *)memory, *p = tile + G * M * CHANNEL, *primary = p + G * M * PIXELS;
    real *secondary = primary + G * M * M * 9;  // (group, m, output)
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    // The micro-tile of this thread: QT quads, LANES apart, of OT outputs of secondary group
    // `group`. Its sums stay in registers while the primary groups pass through shared memory.
    const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
    const int outputs = slot % (L / OT) * OT, group = slot / (L / OT);
    real sums[QT][4][OT] = {};
    for (int first = 0; first < L; first += G) {
        __syncthreads();  // the G groups before have been used by all
        // 1. load, normalise and rectify
        load_tile<FILL>(tile, CHANNEL, x + n * C * H * W, first * M, G * M, top - 1, TH + 2,
                        activate ? scale : nullptr, shift, FORWARD_THREADS);
        take_primary(primary, w1, first, false, FORWARD_THREADS);
        for (int k = threadIdx.x; k < G * C; k += FORWARD_THREADS) {
            const int g = k % G, o = k / G % L, m = k / G / L;
            // transposed: the outputs that multiply wants side by side lie side by side
            secondary[(g * M + m) * L + o] = w2[(m * L + o) * L + first + g];
        }
        __syncthreads();
        // 2. p of these groups, 2 rows × 4 pixels × 2 channels at a time. The lanes of a warp pass
        // numbers to each other, so all go around as long as one has a piece; the others compute
        // the last one again and do not store it.
        for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += FORWARD_THREADS) {
            const Piece of(min(k, PIECES - 1), TH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M;
            real found[2][2][4];
            convolve<CHANNEL>(tile + c * CHANNEL + place, of.quad,
                              primary + 9 * c * M + of.channel, 9 * M, M, 1, found);
            if (k < PIECES) put_piece(p + (c + of.channel) * PIXELS + place, PIXELS, found);
        }
        __syncthreads();
        // 3. z += W^d·p: a matrix product, in which channels of all primary groups meet
        multiply<OT, QT>(p + group * PIXELS + 4 * lane, M * PIXELS, 4 * LANES,
                         secondary + group * L + outputs, M * L, G, sums);
    }
    // Output o of group m is channel o·M + m: the outputs of a thread lie M channels apart. The
    // next batch norm needs mean and variance of z, which cost least while z is in registers.
    store_with_moments<LANES, TH * W>(z + n * C * H * W, outputs * M + group, top * W + 4 * lane,
                                      4 * LANES, sums, partial, blockIdx.x, gridDim.x);
}

// gx, the way back: gz, gp = W^d^T·gz, gx = W^p^T·gp. grid: images × H/TH. accumulate: add to what
// is in gx. Each gp needs all L outputs of its secondary group, so gz of all channels is in shared
// memory, and groups pass by on the side of gp and gx. That takes twice the memory of forward.
extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 2)
igc_backward_input_v2(const stored *__restrict__ gy,          // [N][L*M][H][W]
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
    // gx needs gp of a row above and below, so gz and gp have TH + 2 rows. A thread multiplies two
    // of their quads at once, HALF of all quads apart.
    const int CHANNEL = (TH + 2) * W, HALF = (TH + 2) * QUADS / 2;
    const int PIECES = G * TH / 2 * QUADS * M / 2;
    real *gz = (real *)memory, *dp = gz + C * CHANNEL, *primary = dp + G * M * CHANNEL;
    real *secondary = primary + G * M * M * 9;  // (output, m, group)
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int n = blockIdx.x / (H / TH), top = blockIdx.x % (H / TH) * TH;
    // gz is not in memory: it is computed while loading, from what the batch norm behind it left
    incoming.load_tile<FILL>(gz, CHANNEL, n, top - 1, TH + 2, INPUT_THREADS);
    for (int first = 0; first < L; first += G) {
        __syncthreads();
        // 1. the weights of G primary groups, in the order of their use
        take_primary(primary, w1, first, true, INPUT_THREADS);
        for (int k = threadIdx.x; k < G * C; k += INPUT_THREADS) {
            const int g = k % G, o = k / G % L, m = k / G / L;
            secondary[(o * M + m) * G + g] = w2[(m * L + o) * L + first + g];
        }
        __syncthreads();
        // 2. gp of these groups: a thread has 2 quads of channel m in all G of them. Rows of gz
        // outside of the image are zeros, and so are those of gp.
        for (int k = threadIdx.x; k < HALF * M; k += INPUT_THREADS) {
            const int q = k % HALF, m = k / HALF;
            real sums[2][4][G] = {};
            multiply<G, 2>(gz + m * CHANNEL + 4 * q, M * CHANNEL, 4 * HALF, secondary + m * G,
                           M * G, L, sums);
#pragma unroll
            for (int e = 0; e < 2 * G; e++) {  // quad e / G of group e % G
                const real(&v)[4][G] = sums[e / G];
                put_quad(dp + (e % G * M + m) * CHANNEL + 4 * (q + e / G * HALF),
                         Quad{v[0][e % G], v[1][e % G], v[2][e % G], v[3][e % G]});
            }
        }
        __syncthreads();
        // 3. gx: the convolution of forward, with the transposed weights of take_primary
        for (int k = threadIdx.x; k - threadIdx.x % WARP < PIECES; k += INPUT_THREADS) {
            const Piece of(min(k, PIECES - 1), TH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M;
            real found[2][2][4];
            convolve<CHANNEL>(dp + c * CHANNEL + place, of.quad, primary + 9 * c * M + of.channel,
                              9 * M, M, 1, found);
#pragma unroll
            for (int e = 0; e < 4 && k < PIECES; e++) {  // two channels of two rows
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

// A *unit* is a micro-tile of weights whose sums a thread has in registers: 2 × 2 channels × 9
// taps of W^p, or SIDE × SIDE channels of W^d; there are UNITS1 and UNITS2. If there are fewer
// units than threads, several threads share one, each for some of the pixels; if there are more,
// a thread has several. `parts`: over how many threads, a power of two up to `most`, the pixels of
// a tile are dealt for each of `units`; `each`: how many units a thread has.
const int UNITS1 = L * M / 2 * M / 2, UNITS2 = M * (L / SIDE) * (L / SIDE);
__device__ constexpr int parts(int units, int most) {
    return most < 2 || 2 * units > WEIGHT_THREADS ? 1 : 2 * parts(2 * units, most / 2);
}
__device__ constexpr int each(int units) { return (units + WEIGHT_THREADS - 1) / WEIGHT_THREADS; }
// W^p: threads of a unit share the quads of a row, so no more than divide them
const int PARTS1 = parts(UNITS1, QUADS & -QUADS), EACH1 = each(UNITS1);
// W^d: those of a unit lie in one warp, which adds up what they have by shuffles
const int PARTS2 = parts(UNITS2, WARP), EACH2 = each(UNITS2);

// partial1[block] = gw1 and partial2[block] = gw2 over the block's tiles of WH rows:
//   gw1[l·M + m, c, tap] = Σ over pixels of gp[l·M + m] · x[l·M + c], moved by the tap
//   gw2[m·L + o, l]      = Σ over pixels of gz[o·M + m] · p[l·M + m]
// The primary output and its gradient are computed again, tile by tile: from shared memory that is
// cheaper than to store and load them. Few blocks take many tiles each, so the sums are kept in
// registers over all of them and written once. sum_partials.cu adds up the blocks.
extern "C" __global__ void __launch_bounds__(WEIGHT_THREADS, 1)
igc_backward_weight_v2(const stored *__restrict__ gy,          // [N][L*M][H][W]
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
    // all channels of a tile: x with a row above and below, gz, p and gp (here dp) without
    real *xs = (real *)memory, *gz = xs + C * X_CHANNEL, *p = gz + C * CHANNEL;
    real *dp = p + C * CHANNEL;
    const Incoming incoming = {gy, y, z, mean, coefficients, scale, shift, mask};
    const int t = threadIdx.x, HALF = WH * QUADS / 2;
    // The work of step 2: TILES of dp, rounded up to whole warps, and PIECES of p behind them. One
    // loop for both, so that threads without one kind have the other.
    const int TILES = HALF * M * (L / G), BEGIN = (TILES + WARP - 1) / WARP * WARP;
    const int PIECES = L * WH / 2 * QUADS * M / 2;
    real sums1[EACH1][2][2][9] = {}, sums2[EACH2][SIDE][SIDE] = {};
    for (int number = blockIdx.x; number < N * (H / WH); number += gridDim.x) {
        const int n = number / (H / WH), top = number % (H / WH) * WH;
        __syncthreads();  // the tile before has been used by all
        // 1. load x, and compute gz while loading
        load_tile<FILL>(xs, X_CHANNEL, x + n * C * H * W, 0, C, top - 1, WH + 2,
                        activate ? x_scale : nullptr, x_shift, WEIGHT_THREADS);
        incoming.load_tile<FILL>(gz, CHANNEL, n, top, WH, WEIGHT_THREADS);
        __syncthreads();
        // 2. gp and p of the tile. The weights are not copied to shared memory: neighbouring
        // threads read the same ones, and the cache keeps them from tile to tile.
        for (int k = t; k - t % WARP < BEGIN + PIECES; k += WEIGHT_THREADS) {
            if (k < BEGIN) {  // whole warps: nobody in them waits for a shuffle below
                if (k >= TILES) continue;
                // gp of 2 quads, in G groups from l on
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
            // p, as in forward; its weights have the order of memory here: 9 taps side by side
            const Piece of(min(k - BEGIN, PIECES - 1), WH);
            const int place = of.row * W + 4 * of.quad, c = of.group * M, m = c + of.channel;
            real found[2][2][4];
            convolve<X_CHANNEL>(xs + c * X_CHANNEL + place, of.quad, w1 + m * M * 9, 9, 1, M * 9,
                                found);
            if (k - BEGIN < PIECES) put_piece(p + m * CHANNEL + place, CHANNEL, found);
        }
        __syncthreads();
        // 3. W^p: for each of its quads a thread loads gp, 2 channels × WH rows, and then the
        // WH + 2 rows of 2 channels of x. A row of x meets up to 3 rows of gp, each with another
        // row of taps; for each, six of its numbers serve 3 taps × 4 pixels × 2 channels.
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
                    const int r = k % (WH + 2), d = k / (WH + 2);  // row of x, of channel c + d
                    const real *place = xs + (l * M + c + d) * X_CHANNEL + r * W + 4 * q;
                    const Quad v = quad_at(place);
                    // The numbers to the left and right are in the neighbours' registers. At the
                    // ends of the unit's threads they are not: there they are loaded, or are 0.
                    real before = __shfl_up_sync(ALL_LANES, v.w, 1);
                    real behind = __shfl_down_sync(ALL_LANES, v.x, 1);
                    if (part == 0) before = q ? place[-1] : real(0);
                    if (part == PARTS1 - 1) behind = q < QUADS - 1 ? place[4] : real(0);
                    const real values[6] = {before, v.x, v.y, v.z, v.w, behind};
#pragma unroll
                    for (int i = 0; i < WH; i++) {
                        if (r < i || r > i + 2) continue;  // r − i: the row of taps
#pragma unroll
                        for (int b = 0; b < 6; b++) {  // tap column b % 3, for channel m + b / 3
                            const Quad &own = g[b / 3][i];
                            sums1[e][b / 3][d][(r - i) * 3 + b % 3] +=
                                own.x * values[b % 3] + own.y * values[b % 3 + 1] +
                                own.z * values[b % 3 + 2] + own.w * values[b % 3 + 3];
                        }
                    }
                }
            }
        }
        // 4. W^d: for each pixel the products of SIDE numbers of gz with SIDE of p, four pixels at
        // once. With SIDE = 6 that is 144 products for 12 quads: three for each number.
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
    // 5. The threads of a unit have sums over different pixels. A butterfly of shuffles adds them,
    // in an order that is always the same, and one thread writes the result.
#pragma unroll
    for (int e = 0; e < EACH1; e++) {
        const int unit = t / PARTS1 + e * (WEIGHT_THREADS / PARTS1);
        const int c = unit % (M / 2) * 2, m = unit / (M / 2) % (M / 2) * 2;
        const int l = unit / (M / 2) / (M / 2);
#pragma unroll
        for (int k = 0; k < 36; k++) {  // channel m + k / 18 from channel c + k / 9 % 2, tap k % 9
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
