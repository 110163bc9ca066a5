// The unit and its gradients by the formula, one thread a number. Nothing is shared or kept; what is
// loaded is normalised and rectified each time. They say what the kernels of
// interleaved_group_convolution.cu compute, and tests compare the two. Without normalisation, and
// step by step to shared memory and registers: ladder/.
//
// | kernel                 | a block                       | a thread                             |
// |------------------------|-------------------------------|--------------------------------------|
// | igc_forward_v1         | 256 numbers of z              | one: Σ w2·p with p = Σ w1·x          |
// | igc_backward_input_v1  | 256 numbers of gx             | one: Σ w1·gp with gp = Σ w2·gz       |
// | igc_backward_weight_v1 | 256 weights, some images      | one: Σ over pixels of gp·x or gz·p   |
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
// real: float
// variant: L=24 M=2 H=32 W=32 TH=8 G=8 WH=4 OT=12 QT=2
// variant: L=24 M=4 H=16 W=16 TH=8 G=8 WH=4 OT=12 QT=2
// variant: L=24 M=8 H=8 W=8 TH=4 G=8 WH=4 OT=12 QT=1
#include "interleaved_group_convolution.cuh"

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
igc_forward_v1(const stored *__restrict__ x,    // [N][L*M][H][W]
               const real *__restrict__ scale,  // or null: [L*M]
               const real *__restrict__ shift,  // or null: [L*M]
               const real *__restrict__ w1,     // [L*M][M][3][3]
               const real *__restrict__ w2,     // [L*M][L]
               stored *__restrict__ z,          // [N][L*M][H][W]
               int N, int activate) {
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

// The gradient of p[l·M + m] at pixel (i, j).
__device__ __forceinline__ real primary_gradient(const Incoming &gz, const real *w2, int n, int l,
                                                 int m, int i, int j) {
    real sum = 0;
    for (int o = 0; o < L; o++) sum += w2[(m * L + o) * L + l] * gz.at(n, o * M + m, i, j);
    return sum;
}

// gx. accumulate: add to what is in gx.
extern "C" __global__ void __launch_bounds__(256, 1)
igc_backward_input_v1(const stored *__restrict__ gy,          // [N][L*M][H][W]
                      const stored *__restrict__ y,           // [N][L*M][H][W]
                      const stored *__restrict__ z,           // [N][L*M][H][W]
                      const real *__restrict__ mean,          // [L*M]
                      const real *__restrict__ coefficients,  // [L*M][3]
                      const real *__restrict__ scale,         // [L*M]
                      const real *__restrict__ shift,         // [L*M]
                      const real *__restrict__ w1,            // [L*M][M][3][3]
                      const real *__restrict__ w2,            // [L*M][L]
                      stored *__restrict__ gx,                // [N][L*M][H][W]
                      int N, int mask, int accumulate) {
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
igc_backward_weight_v1(const stored *__restrict__ gy,          // [N][L*M][H][W]
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
                       real *__restrict__ partial1,            // [gridDim.y][L*M][M][3][3]
                       real *__restrict__ partial2,            // [gridDim.y][L*M][L]
                       int N, int mask, int activate) {
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
