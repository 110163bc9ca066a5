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
// | convolution_forward_v2      | TILE channels of PIXELS    | x once for TILE, w from shared    |
// |                             |                            | once for PIXELS                   |
// | convolution_backward_input  | the same                   | gy and w, likewise                |
// | convolution_backward_weight | a warp: the taps of TILE   | TILE gy and INPUTS·KW x for       |
// |                             | × INPUTS channels, a row   | TILE·INPUTS·KW                    |
// Shipped: v2; v1 is kept as the formula that can be read.
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

#define GEOMETRY                                                                                 \
    Geometry{N,        C,        H,     W,     O,      OH,         OW,       KH,                 \
             stride_y, stride_x, pad_y, pad_x, groups, x_branches, y_branches}

extern "C" __global__ void __launch_bounds__(256, 1)
convolution_forward_v1(const stored *__restrict__ x, const real *__restrict__ w,
                       stored *__restrict__ y, int N, int C, int H, int W, int O, int OH, int OW,
                       int KH, int stride_y, int stride_x, int pad_y, int pad_x, int groups,
                       int x_branches, int y_branches) {
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

// pixels of a thread, a block's threads apart, as in convolution.py
const int PIXELS = TILE < 4 ? 1 : 4;

// The k-th pixel of a thread, in images of H × W.
struct Pixel {
    int n, i, j;
    bool inside;
    __device__ __forceinline__ Pixel(int k, int N, int H, int W) {
        const int index = (blockIdx.x * PIXELS + k) * blockDim.x + threadIdx.x;
        n = index / (H * W);
        i = index / W % H;
        j = index % W;
        inside = index < N * H * W;
    }
};

// Whether n is a whole number of strides from 0 up, fewer than `most`, and how many. STRIDE: the
// stride as a constant, so that nothing is divided; 0: it is in `stride`.
template <int STRIDE>
__device__ __forceinline__ bool steps(int n, int stride, int most, int &count) {
    const int s = STRIDE ? STRIDE : stride;
    count = STRIDE == 2 ? n >> 1 : n / s;
    return n >= 0 && count < most && count * s == n;
}

__device__ __forceinline__ void add_products(const real (&values)[PIXELS], const real *weights,
                                             real (&sums)[PIXELS][TILE]) {
#pragma unroll
    for (int t = 0; t < TILE; t++) {
        const real weight = weights[t];
#pragma unroll
        for (int k = 0; k < PIXELS; k++) sums[k][t] += values[k] * weight;
    }
}

// grid: tiles of pixels × groups × chunks of TILE output channels of a group.
extern "C" __global__ void __launch_bounds__(128, 1)
convolution_forward_v2(const stored *__restrict__ x, const real *__restrict__ w,
                       stored *__restrict__ y, int N, int C, int H, int W, int O, int OH, int OW,
                       int KH, int stride_y, int stride_x, int pad_y, int pad_x, int groups,
                       int x_branches, int y_branches) {
    __shared__ real weights[SHARED_WEIGHTS];  // (input channel, a, b, output channel)
    const Geometry g = GEOMETRY;
    const int taps = KH * KW, at_once = SHARED_WEIGHTS / (taps * TILE);
    const int group = blockIdx.y, first_output = blockIdx.z * TILE;
    int images[PIXELS], tops[PIXELS], lefts[PIXELS];
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        const Pixel at(k, N, OH, OW);
        images[k] = at.n * C * H * W;
        tops[k] = at.inside ? at.i * stride_y - pad_y : H;
        lefts[k] = at.j * stride_x - pad_x;
    }
    real sums[PIXELS][TILE] = {};
    for (int first = 0; first < g.inputs(); first += at_once) {
        const int count = min(at_once, g.inputs() - first);
        __syncthreads();
        for (int k = threadIdx.x; k < count * taps * TILE; k += blockDim.x) {
            int t = k % TILE, tap = k / TILE % taps, c = first + k / (TILE * taps);
            int o = first_output + t;
            weights[k] = o < g.outputs()
                             ? w[((group * g.outputs() + o) * g.inputs() + c) * taps + tap]
                             : real(0);
        }
        __syncthreads();
        for (int c = 0; c < count; c++) {
            const stored *plane = x + g.x_plane(0, group * g.inputs() + first + c);
            for (int a = 0; a < KH; a++)
#pragma unroll(KW < 4 ? KW : 1)
                for (int b = 0; b < KW; b++) {
                    real values[PIXELS] = {};
                    bool any = false;
#pragma unroll
                    for (int k = 0; k < PIXELS; k++) {
                        const int row = tops[k] + a, column = lefts[k] + b;
                        if (row < 0 || row >= H || column < 0 || column >= W) continue;
                        values[k] = get(plane + images[k] + row * W + column);
                        any = true;
                    }
                    if (any) add_products(values, weights + ((c * KH + a) * KW + b) * TILE, sums);
                }
        }
    }
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        const Pixel at(k, N, OH, OW);
#pragma unroll
        for (int t = 0; t < TILE; t++) {
            if (!at.inside || first_output + t >= g.outputs()) break;
            const int o = group * g.outputs() + first_output + t;
            put(y + g.y_plane(at.n, o) + at.i * OW + at.j, sums[k][t]);
        }
    }
}

// gx[c, i, j] = Σ_{o, a, b} w[o, c, a, b] · gy[o, (i + p − a)/s, (j + q − b)/s], whole steps only.
// STRIDE: of rows and columns, as a constant; 0: any.
template <int STRIDE>
__device__ __forceinline__ void backward_input(const stored *__restrict__ gy,
                                               const real *__restrict__ w,
                                               stored *__restrict__ gx, const Geometry &g,
                                               int accumulate, real *weights) {
    const int taps = g.KH * KW, at_once = SHARED_WEIGHTS / (taps * TILE);
    const int group = blockIdx.y, first_input = blockIdx.z * TILE;
    int images[PIXELS], bottoms[PIXELS], rights[PIXELS];
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        const Pixel at(k, g.N, g.H, g.W);
        images[k] = at.n * g.O * g.OH * g.OW;
        bottoms[k] = at.inside ? at.i + g.pad_y : -1;
        rights[k] = at.j + g.pad_x;
    }
    real sums[PIXELS][TILE] = {};
    for (int first = 0; first < g.outputs(); first += at_once) {
        const int count = min(at_once, g.outputs() - first);
        __syncthreads();
        for (int k = threadIdx.x; k < count * taps * TILE; k += blockDim.x) {
            int t = k % TILE, tap = k / TILE % taps, o = first + k / (TILE * taps);
            int c = first_input + t;
            weights[k] = c < g.inputs()
                             ? w[((group * g.outputs() + o) * g.inputs() + c) * taps + tap]
                             : real(0);
        }
        __syncthreads();
        for (int o = 0; o < count; o++) {
            const stored *plane = gy + g.y_plane(0, group * g.outputs() + first + o);
            for (int a = 0; a < g.KH; a++)
#pragma unroll(KW < 4 ? KW : 1)
                for (int b = 0; b < KW; b++) {
                    real values[PIXELS] = {};
                    bool any = false;
#pragma unroll
                    for (int k = 0; k < PIXELS; k++) {
                        const int down = bottoms[k] - a, right = rights[k] - b;
                        int row, column;
                        if (!steps<STRIDE>(down, g.stride_y, g.OH, row) ||
                            !steps<STRIDE>(right, g.stride_x, g.OW, column))
                            continue;
                        values[k] = get(plane + images[k] + row * g.OW + column);
                        any = true;
                    }
                    if (any)
                        add_products(values, weights + ((o * g.KH + a) * KW + b) * TILE, sums);
                }
        }
    }
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        const Pixel at(k, g.N, g.H, g.W);
#pragma unroll
        for (int t = 0; t < TILE; t++) {
            if (!at.inside || first_input + t >= g.inputs()) break;
            const int c = group * g.inputs() + first_input + t;
            stored *p = gx + g.x_plane(at.n, c) + at.i * g.W + at.j;
            put(p, accumulate ? get(p) + sums[k][t] : sums[k][t]);
        }
    }
}

// grid: tiles of pixels × groups × chunks of TILE input channels of a group. accumulate: add to
// what is in gx.
extern "C" __global__ void __launch_bounds__(128, 1)
convolution_backward_input(const stored *__restrict__ gy, const real *__restrict__ w,
                           stored *__restrict__ gx, int N, int C, int H, int W, int O, int OH,
                           int OW, int KH, int stride_y, int stride_x, int pad_y, int pad_x,
                           int groups, int x_branches, int y_branches, int accumulate) {
    __shared__ real weights[SHARED_WEIGHTS];  // (output channel, a, b, input channel)
    const Geometry g = GEOMETRY;
    if (stride_y == 1 && stride_x == 1)
        backward_input<1>(gy, w, gx, g, accumulate, weights);
    else if (stride_y == 2 && stride_x == 2)
        backward_input<2>(gy, w, gx, g, accumulate, weights);
    else
        backward_input<0>(gy, w, gx, g, accumulate, weights);
}

// input channels of a warp in the gradient of the weights, as in convolution.py
const int INPUTS = KW == 1 ? 8 : KW < 4 ? 2 : 1;

// partial[s] = gw over the images of slice s. One warp: TILE output channels × INPUTS input
// channels × one row of the kernel; its lanes share the pixels. grid: warps × slices.
extern "C" __global__ void __launch_bounds__(128, 1)
convolution_backward_weight(const stored *__restrict__ gy, const stored *__restrict__ x,
                            real *__restrict__ partial, int N, int C, int H, int W, int O, int OH,
                            int OW, int KH, int stride_y, int stride_x, int pad_y, int pad_x,
                            int groups, int x_branches, int y_branches) {
    const Geometry g = GEOMETRY;
    const int chunks = (g.outputs() + TILE - 1) / TILE, parts = (g.inputs() + INPUTS - 1) / INPUTS;
    const int unit = first_index() / WARP, lane = threadIdx.x % WARP;
    if (unit >= groups * chunks * parts * KH) return;
    const int a = unit % KH, input = unit / KH % parts * INPUTS;
    const int output = unit / KH / parts % chunks * TILE, group = unit / KH / parts / chunks;
    // where the channels begin in an image; those beyond the last are it again, and not written
    int ys[TILE], xs[INPUTS];
#pragma unroll
    for (int t = 0; t < TILE; t++)
        ys[t] = g.y_plane(0, group * g.outputs() + min(output + t, g.outputs() - 1));
#pragma unroll
    for (int c = 0; c < INPUTS; c++)
        xs[c] = g.x_plane(0, group * g.inputs() + min(input + c, g.inputs() - 1));
    int first, end;
    slice_of(blockIdx.y, gridDim.y, N, first, end);
    real sums[TILE][INPUTS][KW] = {};
    for (int pixel = first * OH * OW + lane; pixel < end * OH * OW; pixel += WARP) {
        const int n = pixel / (OH * OW), i = pixel / OW % OH, j = pixel % OW;
        const int row = i * stride_y + a - pad_y, left = j * stride_x - pad_x;
        if (row < 0 || row >= H) continue;
        const stored *line = x + (n * C * H + row) * W, *place = gy + (n * O * OH + i) * OW + j;
        real gradients[TILE];
#pragma unroll
        for (int t = 0; t < TILE; t++) gradients[t] = get(place + ys[t]);
#pragma unroll
        for (int c = 0; c < INPUTS; c++)
#pragma unroll
            for (int b = 0; b < KW; b++) {
                const int column = left + b;
                const bool valid = column >= 0 && column < W;
                const real value = valid ? get(line + xs[c] + column) : real(0);
#pragma unroll
                for (int t = 0; t < TILE; t++) sums[t][c][b] += gradients[t] * value;
            }
    }
    const int size = O * g.inputs() * KH * KW;
#pragma unroll
    for (int t = 0; t < TILE; t++)
#pragma unroll
        for (int c = 0; c < INPUTS; c++)
#pragma unroll
            for (int b = 0; b < KW; b++) {
                const real sum = warp_sum(sums[t][c][b]);
                const int o = group * g.outputs() + output + t, k = input + c;
                if (lane == 0 && output + t < g.outputs() && k < g.inputs())
                    partial[blockIdx.y * size + ((o * g.inputs() + k) * KH + a) * KW + b] = sum;
            }
}
