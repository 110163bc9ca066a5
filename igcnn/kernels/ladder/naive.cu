// Rung 1, naive: one thread, one number, straight from the formula.
//
// The unit has L primary groups of M channels, C = L·M:
//   p[l·M + m] = Σ over c and 3×3 taps of w1[l·M + m, c, tap] · x[l·M + c]    primary, W^p
//   z[o·M + m] = Σ over l of w2[m·L + o, l] · p[l·M + m]                      secondary, W^d
// Secondary group m takes channel m of every primary group. Both permutations of the paper are
// in these indices: no channel is ever moved.
//
// Loads for each number of z, of gx, or of both weights' gradients, with L = 24, M = 2: by the
// formula, far from the border, and as the emulator counts them for one image of 16×16.
//
// | kernel              | global loads by the formula      | counted: global |  shared |
// |---------------------|----------------------------------|-----------------|---------|
// | igc_forward         | L·(18·M + 1) = 888               |           852.8 |     0.0 |
// | igc_backward_input  | 9·M·(2·L + 1) = 882              |           811.5 |     0.0 |
// | igc_backward_weight | W^p: 2·L + 1 = 49 a pixel,       |         10564.8 |     0.0 |
// |                     | W^d: 18·M + 1 = 37 a pixel       |                 |         |
//
// Two things make this slow. First, a product needs two numbers, and both come from global memory:
// about two loads per multiplication, from the memory that is farthest from the arithmetic. Caches
// catch most of these loads, but each still takes its turn in the load units. Second, an output
// needs L numbers of p, and each of those is needed by L outputs, but every thread computes its
// own: L·(9·M + 1) = 456 multiplications where 9·M + L = 42 would do. The next rung cures both:
// the threads of a block share what they load and what they compute.
//
// variant: L=24 M=2 THREADS=256
#include "../common.cuh"

const int C = L * M;

// x[n, c, i, j], and 0 outside of the image: a convolution of padding 1 sees a border of zeros.
__device__ real at(const stored *x, int H, int W, int n, int c, int i, int j) {
    if (i < 0 || i >= H || j < 0 || j >= W) return 0;
    return get(x + ((n * C + c) * H + i) * W + j);
}

// p[n, l·M + m, i, j], from 9·M products: 18·M loads.
__device__ real primary_output(const stored *x, const real *w1, int H, int W, int n, int l, int m,
                               int i, int j) {
    real sum = 0;
    for (int c = 0; c < M; c++)
        for (int tap = 0; tap < 9; tap++)  // tap 4 is the pixel itself
            sum += w1[((l * M + m) * M + c) * 9 + tap] *
                   at(x, H, W, n, l * M + c, i + tap / 3 - 1, j + tap % 3 - 1);
    return sum;
}

// The gradient of p[n, l·M + m, i, j]: p went into the L outputs of group m, each times a weight,
// and their gradients come back times the same weights. 2·L loads; 0 outside of the image.
__device__ real primary_gradient(const stored *gz, const real *w2, int H, int W, int n, int l,
                                 int m, int i, int j) {
    real sum = 0;
    if (i < 0 || i >= H || j < 0 || j >= W) return sum;
    for (int o = 0; o < L; o++)
        sum += w2[(m * L + o) * L + l] * at(gz, H, W, n, o * M + m, i, j);
    return sum;
}

// z: a thread for each number.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_forward(const stored *__restrict__ x,  // [N][C][H][W]
            const real *__restrict__ w1,   // [C][M][3][3]
            const real *__restrict__ w2,   // [C][L]
            stored *__restrict__ z,        // [N][C][H][W]
            int N, int H, int W) {
    // Neighbouring threads write neighbouring pixels, and for each tap read neighbouring pixels:
    // memory serves the 32 threads of a warp at once. If the grid is too small, threads go on.
    for (int k = first_index(); k < N * C * H * W; k += index_step()) {
        const int n = k / (C * H * W), channel = k / (H * W) % C, i = k / W % H, j = k % W;
        const int o = channel / M, m = channel % M;  // output o of secondary group m
        real sum = 0;                                // in a register until it is complete
        for (int l = 0; l < L; l++)
            sum += w2[(m * L + o) * L + l] * primary_output(x, w1, H, W, n, l, m, i, j);
        put(z + k, sum);
    }
}

// gx: a thread for each number. x[l·M + c] at (i, j) went into the M channels of p of its group,
// at the nine pixels around it. The tap that leads from there back to (i, j) is the mirrored one.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_backward_input(const stored *__restrict__ gz,  // [N][C][H][W]
                   const real *__restrict__ w1,    // [C][M][3][3]
                   const real *__restrict__ w2,    // [C][L]
                   stored *__restrict__ gx,        // [N][C][H][W]
                   int N, int H, int W) {
    for (int k = first_index(); k < N * C * H * W; k += index_step()) {
        const int n = k / (C * H * W), channel = k / (H * W) % C, i = k / W % H, j = k % W;
        const int l = channel / M, c = channel % M;
        real sum = 0;
        for (int m = 0; m < M; m++)
            for (int tap = 0; tap < 9; tap++)
                sum += w1[((l * M + m) * M + c) * 9 + tap] *
                       primary_gradient(gz, w2, H, W, n, l, m, i + 1 - tap / 3, j + 1 - tap % 3);
        put(gx + k, sum);
    }
}

// gw1 and gw2: a thread for each weight, a sum over every pixel of every image. These are few
// threads, 2,016 for L = 24, M = 2, where an H200 holds 270,336 at once: most of it is idle.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
igc_backward_weight(const stored *__restrict__ gz,  // [N][C][H][W]
                    const stored *__restrict__ x,   // [N][C][H][W]
                    const real *__restrict__ w1,    // [C][M][3][3]
                    const real *__restrict__ w2,    // [C][L]
                    real *__restrict__ partial1,    // [1][C][M][3][3]
                    real *__restrict__ partial2,    // [1][C][L]
                    int N, int H, int W) {
    const int SIZE1 = C * M * 9, SIZE2 = C * L;
    const int k1 = first_index(), k2 = k1 - SIZE1;  // the first threads have W^p, the others W^d
    if (k2 >= SIZE2) return;
    real sum = 0;
    for (int pixel = 0; pixel < N * H * W; pixel++) {
        const int n = pixel / (H * W), i = pixel / W % H, j = pixel % W;
        if (k2 < 0) {  // weight w1[l·M + m, c, tap]: what it was multiplied with, times ∂loss/∂p
            const int tap = k1 % 9, c = k1 / 9 % M, m = k1 / 9 / M % M, l = k1 / 9 / M / M;
            sum += primary_gradient(gz, w2, H, W, n, l, m, i, j) *
                   at(x, H, W, n, l * M + c, i + tap / 3 - 1, j + tap % 3 - 1);
        } else {  // weight w2[m·L + o, l]: likewise, p times ∂loss/∂z
            const int l = k2 % L, o = k2 / L % L, m = k2 / L / L;
            sum += at(gz, H, W, n, o * M + m, i, j) * primary_output(x, w1, H, W, n, l, m, i, j);
        }
    }
    if (k2 < 0)
        partial1[k1] = sum;
    else
        partial2[k2] = sum;
}
