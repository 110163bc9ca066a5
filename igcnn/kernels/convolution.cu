// Convolution, dense or grouped; formula and shapes: convolution.py. A permutation before or
// after it is folded in: channel c of the operation is channel Reorder(x_branches)(c) of the
// array x, and likewise for y (1: no permutation).
//
// variants: TILE=1,2,4,8 KW=1,3,7
// TILE: channels of a group that one thread computes. KW: columns of the kernel.
//
// | kernel                      | a thread computes          | what it reads for one product     |
// |-----------------------------|----------------------------|-----------------------------------|
// | convolution_forward_v1      | one output                 | x and w from global memory        |
// | convolution_forward_v2      | TILE channels of four      | x once for TILE·KW, w from shared |
// |                             | neighbours                 | once for four                     |
// | convolution_backward_input  | the same; for stride 2 all | gy and w, likewise                |
// |                             | that four of gy meet       |                                   |
// | convolution_backward_weight | a row of taps of TILE      | TILE gy and INPUTS·KW x for       |
// |                             | × INPUTS channels, shared  | TILE·INPUTS·KW                    |
// |                             | by the threads of a warp   |                                   |
// Shipped: v2; v1 is the readable reference.
#include "common.cuh"

const int SHARED_WEIGHTS = 3072;  // numbers: 12 KB, or 24 KB as double

// Sizes, and how an index of the operation becomes one of memory.
struct Geometry {
    int N, C, H, W, O, OH, OW, KH, stride_y, stride_x, pad_y, pad_x, groups, x_branches,
        y_branches;
    __device__ __forceinline__ int inputs() const { return C / groups; }
    __device__ __forceinline__ int outputs() const { return O / groups; }
    __device__ __forceinline__ int x_plane(int n, int c) const {
        return (n * C + (x_branches == 1 ? c : reorder(c, C, x_branches))) * H * W;
    }
    __device__ __forceinline__ int y_plane(int n, int o) const {
        return (n * O + (y_branches == 1 ? o : reorder(o, O, y_branches))) * OH * OW;
    }
};

#define GEOMETRY Geometry{N, C, H, W, O, OH, OW, KH, stride_y, stride_x, pad_y, pad_x, \
                          groups, x_branches, y_branches}

extern "C" __global__ void __launch_bounds__(256, 1)
convolution_forward_v1(const stored *__restrict__ x,  // [N][C][H][W]
                       const real *__restrict__ w,    // [O][C/groups][KH][KW]
                       stored *__restrict__ y,        // [N][O][OH][OW]
                       int N, int C, int H, int W, int O, int OH, int OW, int KH, int stride_y,
                       int stride_x, int pad_y, int pad_x, int groups, int x_branches,
                       int y_branches) {
    const Geometry g = GEOMETRY;
    for (int k = first_index(); k < N * O * OH * OW; k += index_step()) {
        int n = k / (O * OH * OW), o = k / (OH * OW) % O, i = k / OW % OH, j = k % OW;
        real sum = 0;
        for (int c = 0; c < g.inputs(); c++) {
            const stored *plane = x + g.x_plane(n, o / g.outputs() * g.inputs() + c);
            for (int a = 0; a < KH; a++)
                for (int b = 0; b < KW; b++) {
                    int row = i * stride_y + a - pad_y, column = j * stride_x + b - pad_x;
                    if (row >= 0 && row < H && column >= 0 && column < W)
                        sum += w[((o * g.inputs() + c) * KH + a) * KW + b] *
                               get(plane + row * W + column);
                }
        }
        put(y + g.y_plane(n, o) + i * OW + j, sum);
    }
}

// S: the stride of a regular convolution, which is 1 or 2 in both directions with KH = KW ≤ 3,
// padding KW div 2, images of S·OH × S·OW pixels, and OW a multiple of 4. Four neighbours in a row
// are then loaded and stored at once, and nothing is divided or left out. 0: any convolution.

const int EDGE = KW / 2;      // padding of a regular convolution
const int MOST_PLANES = 256;  // channels that a block prepares at once

// Where neighbours in a row of one of N images are, by their index: a row has `parts` of them.
struct Place {
    int n, i, j;
    __device__ __forceinline__ Place(int index, int height, int parts, int neighbours)
        : n(index / parts / height), i(index / parts % height), j(index % parts * neighbours) {}
};

template <typename T> __device__ __forceinline__ void load_four(const T *p, real *four) {
    const Quad quad = quad_at(p);
    four[0] = quad.x;
    four[1] = quad.y;
    four[2] = quad.z;
    four[3] = quad.w;
}

// SPAN columns of a row of W, of which the first LOW are before `line`, which is at `column`; all
// but the first and the last lie in the row.
template <int LOW, int SPAN>
__device__ __forceinline__ void load_columns(const stored *line, bool in_image, int column, int W,
                                             real (&values)[SPAN]) {
    constexpr int quads = (SPAN - LOW + 1) / 4;
    real inner[4 * quads] = {};
    if (in_image) {
#pragma unroll
        for (int k = 0; k < 4 * quads; k += 4) load_four(line + k, inner + k);
    }
#pragma unroll
    for (int k = 0; k < SPAN; k++) {
        const int at = k - LOW;
        const bool outer = at < 0 || at >= 4 * quads;
        values[k] = !outer ? inner[outer ? 0 : at]
                    : in_image && unsigned(column + at) < unsigned(W) ? get(line + at)
                                                                      : real(0);
    }
}

// Where a result meets a tap of the kernel, in the image of `size` that is read, if there.
template <bool BACKWARD>
__device__ __forceinline__ bool meets(int result, int tap, int stride, int pad, int size,
                                      int &place) {
    const int n = BACKWARD ? result + pad - tap : result * stride + tap - pad;
    place = BACKWARD ? n / stride : n;
    return n >= 0 && place < size && (!BACKWARD || place * stride == n);
}

// sums += values × weights of TILE channels
__device__ __forceinline__ void add_products(const real (&values)[4], const real *weights,
                                             real (&sums)[4][TILE]) {
    real factors[TILE];
#pragma unroll
    for (int t = 0; t < TILE; t += TILE < 4 ? 1 : 4)
        if (TILE < 4)
            factors[t] = weights[t];
        else
            load_four(weights + t, factors + t);
#pragma unroll
    for (int t = 0; t < TILE; t++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums[k][t] += values[k] * factors[t];
}

// The convolution of `from` into `to`, or the gradient of its input, over whole steps only:
// gx[c, i, j] = Σ_{o, a, b} w[o, c, a, b] · gy[o, (i + p − a)/s, (j + q − b)/s]. A thread has TILE
// channels of four neighbours; in the gradient of stride 2, of the 2 × 8 that four of gy meet.
// block: quads × chunks of channels; grid: quads × groups × chunks.
template <bool BACKWARD, int S>
__device__ __forceinline__ void convolve(const stored *__restrict__ from,
                                         const real *__restrict__ w, stored *__restrict__ to,
                                         const Geometry &g, int accumulate, real *weights,
                                         int *planes) {
    constexpr int IN = BACKWARD || !S ? 1 : S, OUT = BACKWARD && S ? S : 1;
    constexpr int LOW = OUT == 1 ? EDGE : 0, SPAN = 3 * IN + 1 + LOW + EDGE;
    const int height = BACKWARD ? g.OH : g.H, width = BACKWARD ? g.OW : g.W;
    const int wide = BACKWARD ? g.W : g.OW, high = (BACKWARD ? g.H : g.OH) / OUT;
    const int sources = BACKWARD ? g.outputs() : g.inputs();
    const int results = BACKWARD ? g.inputs() : g.outputs(), taps = g.KH * KW;
    const int group = blockIdx.y, together = blockDim.y * TILE;
    const int block_first = blockIdx.z * together, first_result = block_first + threadIdx.y * TILE;
    const int at_once = min(SHARED_WEIGHTS / (taps * together), MOST_PLANES);
    const int rank = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    const int quads = (wide / OUT + 3) / 4;
    const Place at(first_index(), high, quads, 4);
    const bool has_work = at.n < g.N && first_result < results;
    const stored *image = from + at.n * (BACKWARD ? g.O : g.C) * height * width;
    real sums[OUT][OUT][4][TILE] = {};
    for (int first = 0; first < sources; first += at_once) {
        const int count = min(at_once, sources - first);
        __syncthreads();
        for (int k = rank; k < count * taps * together; k += threads) {
            const int s = first + k / together / taps, tap = k / together % taps;
            const int r = block_first + k % together, o = BACKWARD ? s : r, c = BACKWARD ? r : s;
            weights[k] = r < results
                             ? w[((group * g.outputs() + o) * g.inputs() + c) * taps + tap]
                             : real(0);
        }
        for (int k = rank; k < count; k += threads) {
            const int s = group * sources + first + k;
            planes[k] = BACKWARD ? g.y_plane(0, s) : g.x_plane(0, s);
        }
        __syncthreads();
        if (!has_work) continue;
        const real *factors = weights + threadIdx.y * TILE;  // of (channel, a, b)
#pragma unroll(KW == 1 && S ? 4 : 1)
        for (int s = 0; s < count; s++, factors += taps * together) {
            const stored *plane = image + planes[s];
            if constexpr (S == 0) {
                for (int a = 0; a < g.KH; a++) {
                    int row, column;
                    if (!meets<BACKWARD>(at.i, a, g.stride_y, g.pad_y, height, row)) continue;
                    const stored *line = plane + row * width;
#pragma unroll(KW < 4 ? KW : 1)
                    for (int b = 0; b < KW; b++) {
                        real values[4];
#pragma unroll
                        for (int k = 0; k < 4; k++) {
                            const bool inside = meets<BACKWARD>(at.j + k, b, g.stride_x, g.pad_x,
                                                                width, column);
                            values[k] = inside ? get(line + column) : real(0);
                        }
                        add_products(values, factors + (a * KW + b) * together, sums[0][0]);
                    }
                }
            } else {
#pragma unroll
                for (int r = -LOW; r <= EDGE; r++) {
                    const int row = at.i * IN + r, column = at.j * IN;
                    real span[SPAN];
                    load_columns<LOW>(plane + row * width + column,
                                      unsigned(row) < unsigned(height), column, width, span);
#pragma unroll
                    for (int u = 0; u < OUT; u++)
#pragma unroll
                        for (int v = 0; v < OUT; v++)
#pragma unroll
                            for (int e = -LOW; e <= EDGE; e++) {
                                const int a = EDGE + (BACKWARD ? u - S * r : r);
                                const int b = EDGE + (BACKWARD ? v - S * e : e);
                                if (a < 0 || a >= KW || b < 0 || b >= KW) continue;
                                const real values[] = {
                                    span[e + LOW], span[IN + e + LOW], span[2 * IN + e + LOW],
                                    span[3 * IN + e + LOW]};
                                const real *own = factors + (a * KW + b) * together;
                                add_products(values, own, sums[u][v]);
                            }
                }
            }
        }
    }
    if (!has_work) return;
#pragma unroll
    for (int t = 0; t < TILE; t++) {
        if (first_result + t >= results) break;
        const int c = group * results + first_result + t;
        stored *place = to + (BACKWARD ? g.x_plane(at.n, c) : g.y_plane(at.n, c)) +
                        at.i * OUT * wide + at.j * OUT;
#pragma unroll
        for (int k = 0; k < OUT * OUT * 4; k += 4) {
            const int u = k / 4 / OUT, column = k % (4 * OUT);
            real four[4];
#pragma unroll
            for (int l = 0; l < 4; l++)
                four[l] = sums[u][l % OUT][(column + l) / OUT][t];
            stored *p = place + u * wide + column;
            if constexpr (S == 0) {
#pragma unroll
                for (int l = 0; l < 4; l++)
                    if (at.j + l < wide) put(p + l, accumulate ? get(p + l) + four[l] : four[l]);
            } else {
                if (KW == 1 && u && accumulate) break;  // nothing to add
                real old[4] = {};
                if (accumulate) load_four(p, old);
                put_quad(p, Quad{old[0] + four[0], old[1] + four[1], old[2] + four[2],
                                 old[3] + four[3]});
            }
        }
    }
}

template <bool BACKWARD>
__device__ __forceinline__ void convolve(const stored *__restrict__ from,
                                         const real *__restrict__ w, stored *__restrict__ to,
                                         const Geometry &g, int S, int accumulate,
                                         real *weights, int *planes) {
    if constexpr (KW <= 3) {
        if (S == 1) return convolve<BACKWARD, 1>(from, w, to, g, accumulate, weights, planes);
        // of the gradient with 8 channels, a thread would have too many sums
        if constexpr (!BACKWARD || TILE < 8)
            if (S == 2) return convolve<BACKWARD, 2>(from, w, to, g, accumulate, weights, planes);
    }
    convolve<BACKWARD, 0>(from, w, to, g, accumulate, weights, planes);
}

extern "C" __global__ void __launch_bounds__(128, 1)
convolution_forward_v2(const stored *__restrict__ x,  // [N][C][H][W]
                       const real *__restrict__ w,    // [O][C/groups][KH][KW]
                       stored *__restrict__ y,        // [N][O][OH][OW]
                       int N, int C, int H, int W, int O, int OH, int OW, int KH, int stride_y,
                       int stride_x, int pad_y, int pad_x, int groups, int x_branches,
                       int y_branches, int S) {
    alignas(16) __shared__ real weights[SHARED_WEIGHTS];  // (input channel, a, b, output channel)
    __shared__ int planes[MOST_PLANES];
    convolve<false>(x, w, y, GEOMETRY, S, 0, weights, planes);
}

// accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(128, 1)
convolution_backward_input(const stored *__restrict__ gy,  // [N][O][OH][OW]
                           const real *__restrict__ w,     // [O][C/groups][KH][KW]
                           stored *__restrict__ gx,        // [N][C][H][W]
                           int N, int C, int H, int W, int O, int OH, int OW, int KH, int stride_y,
                           int stride_x, int pad_y, int pad_x, int groups, int x_branches,
                           int y_branches, int S, int accumulate) {
    alignas(16) __shared__ real weights[SHARED_WEIGHTS];  // (output channel, a, b, input channel)
    __shared__ int planes[MOST_PLANES];
    convolve<true>(gy, w, gx, GEOMETRY, S, accumulate, weights, planes);
}

// input channels of a thread in the gradient of the weights, as in convolution.py; so many by so
// many threads of a warp divide the channels, and the others share the pixels
const int INPUTS = KW == 1 ? 4 : KW < 4 ? 2 : 1;
const int SPLIT = KW == 1 && TILE == 8 ? 2 : 1, SHARING = WARP / SPLIT / SPLIT;

// The sums over SHARING lanes of 2·HALF numbers; lane k of them gets its OWN at the beginning of
// `values`: a fixed tree.
template <int OWN, int HALF>
__device__ __forceinline__ void sum_lanes(real *values, int lane) {
    const bool upper = lane & HALF / OWN;
#pragma unroll
    for (int k = 0; k < HALF; k++) {
        const real sent = upper ? values[k] : values[k + HALF];
        const real kept = upper ? values[k + HALF] : values[k];
        values[k] = kept + __shfl_xor_sync(ALL_LANES, sent, HALF / OWN);
    }
    if constexpr (HALF > OWN) sum_lanes<OWN, HALF / 2>(values, lane);
}

template <int S>
__device__ __forceinline__ void weight_sums(const stored *__restrict__ gy,
                                            const stored *__restrict__ x,
                                            real *__restrict__ partial, const Geometry &g) {
    constexpr int PIXELS = S ? 4 : 1, SPAN = (PIXELS - 1) * S + KW;
    constexpr int SUMS = TILE * INPUTS * KW, OWN = (SUMS + SHARING - 1) / SHARING;
    const int chunks = (g.outputs() + TILE * SPLIT - 1) / (TILE * SPLIT);
    const int parts = (g.inputs() + INPUTS * SPLIT - 1) / (INPUTS * SPLIT);
    const int unit = first_index() / WARP, lane = threadIdx.x % SHARING;
    if (unit >= g.groups * chunks * parts * g.KH) return;
    const int corner = threadIdx.x % WARP / SHARING, a = unit % g.KH;
    const int input = (unit / g.KH % parts * SPLIT + corner % SPLIT) * INPUTS;
    const int output = (unit / g.KH / parts % chunks * SPLIT + corner / SPLIT) * TILE;
    const int group = unit / g.KH / parts / chunks;
    // where the channels begin in an image; those beyond the last are it again, and not written
    int ys[TILE], xs[INPUTS];
#pragma unroll
    for (int t = 0; t < TILE; t++)
        ys[t] = g.y_plane(0, group * g.outputs() + min(output + t, g.outputs() - 1));
#pragma unroll
    for (int c = 0; c < INPUTS; c++)
        xs[c] = g.x_plane(0, group * g.inputs() + min(input + c, g.inputs() - 1));
    const int places = g.OW / PIXELS;
    int first, end;
    slice_of(blockIdx.y, gridDim.y, g.N * g.OH * places, first, end);
    real sums[TILE][INPUTS][KW] = {};
    for (int index = first + lane; index < end; index += SHARING) {
        const Place at(index, g.OH, places, PIXELS);
        const int row = S ? at.i * S + a - EDGE : at.i * g.stride_y + a - g.pad_y;
        if (row < 0 || row >= g.H) continue;
        const stored *line = x + (at.n * g.C * g.H + row) * g.W;
        const stored *place = gy + (at.n * g.O * g.OH + at.i) * g.OW + at.j;
        real gradients[TILE][PIXELS];
#pragma unroll
        for (int t = 0; t < TILE; t++) {
            if constexpr (S > 0)
                load_four(place + ys[t], gradients[t]);
            else
                gradients[t][0] = get(place + ys[t]);
        }
#pragma unroll
        for (int c = 0; c < INPUTS; c++) {
            real values[SPAN];
            if constexpr (S > 0) {
                load_columns<EDGE>(line + xs[c] + at.j * S, true, at.j * S, g.W, values);
            } else {
#pragma unroll
                for (int b = 0; b < KW; b++) {
                    const int column = at.j * g.stride_x + b - g.pad_x;
                    const bool inside = unsigned(column) < unsigned(g.W);
                    values[b] = inside ? get(line + xs[c] + column) : real(0);
                }
            }
#pragma unroll
            for (int k = 0; k < PIXELS; k++)
#pragma unroll
                for (int b = 0; b < KW; b++)
#pragma unroll
                    for (int t = 0; t < TILE; t++)
                        sums[t][c][b] += gradients[t][k] * values[k * S + b];
        }
    }
    real all[OWN * SHARING];
#pragma unroll
    for (int k = 0; k < OWN * SHARING; k++)
        all[k] = k < SUMS ? sums[k / KW / INPUTS % TILE][k / KW % INPUTS][k % KW] : real(0);
    sum_lanes<OWN, OWN * SHARING / 2>(all, lane);
    real *own = partial + blockIdx.y * (g.O * g.inputs() * g.KH * KW);
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const int number = lane * OWN + k, b = number % KW;
        const int o = output + number / KW / INPUTS, c = input + number / KW % INPUTS;
        if (number < SUMS && o < g.outputs() && c < g.inputs())
            own[(((group * g.outputs() + o) * g.inputs() + c) * g.KH + a) * KW + b] = all[k];
    }
}

// partial[s] = gw over slice s of the pixels. One warp: TILE output channels × INPUTS
// input channels, or SPLIT times as many of both, × one row of the kernel. grid: warps × slices.
extern "C" __global__ void __launch_bounds__(128, 1)
convolution_backward_weight(const stored *__restrict__ gy,  // [N][O][OH][OW]
                            const stored *__restrict__ x,   // [N][C][H][W]
                            real *__restrict__ partial,     // [gridDim.y][O][C/groups][KH][KW]
                            int N, int C, int H, int W, int O, int OH, int OW, int KH,
                            int stride_y, int stride_x, int pad_y, int pad_x, int groups,
                            int x_branches, int y_branches, int S) {
    const Geometry g = GEOMETRY;
    if constexpr (KW <= 3) {
        if (S == 1) return weight_sums<1>(gy, x, partial, g);
        if (S == 2) return weight_sums<2>(gy, x, partial, g);
    }
    weight_sums<0>(gy, x, partial, g);
}
