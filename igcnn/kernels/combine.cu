// y = Σ terms, then perhaps ReLU; formulas and shapes: combine.py.
//
// Compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of 67 TFLOP/s.
// For 64 images of 32×32, C = 48.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | combine_forward        |        48 |       0.0 | 37.7 |  0.01 |       8.8 |           0.3 |
// | combine_backward_sums  |        30 |       0.0 | 37.7 |  0.01 |       8.8 |           0.3 |
// | combine_backward_input |        56 |       0.0 | 50.3 |  0.02 |      11.7 |           0.4 |
// | skip_backward          |        26 |       0.0 | 37.7 |  0.00 |       8.8 |           0.0 |
#include "common.cuh"

// From S partial sums about a pivot: mean and variance of the batch (in evaluation the running
// ones), the running statistics moved towards them, and x ↦ scale·x + shift. The pivot is the
// running mean, or x[0, c, 0, 0] as in batch_norm_statistics. One warp a channel.
extern "C" __global__ void __launch_bounds__(256, 1)
norm_coefficients(const stored *__restrict__ x, const real *__restrict__ partial,
                  const real *__restrict__ gamma, const real *__restrict__ beta,
                  real *__restrict__ running_mean, real *__restrict__ running_var,
                  real *__restrict__ mean, real *__restrict__ variance, real *__restrict__ scale,
                  real *__restrict__ shift, int N, int C, int pixels, int S, real eps,
                  real momentum, int training, int about_running_mean) {
    int c = first_index() / WARP, lane = threadIdx.x % WARP;
    if (c >= C) return;
    real sum = 0, squares = 0, count = real(N) * pixels;
    for (int s = lane; s < S && training; s += WARP) {
        sum += partial[(c * S + s) * 2];
        squares += partial[(c * S + s) * 2 + 1];
    }
    sum = warp_sum(sum);
    squares = warp_sum(squares);
    if (lane) return;
    real m = running_mean[c], v = running_var[c];
    if (training) {
        real offset = sum / count, spread = squares / count - offset * offset;
        real batch_mean = (about_running_mean ? m : get(x + c * pixels)) + offset;
        real batch_var = spread < 0 ? real(0) : spread;
        running_mean[c] = momentum * m + (1 - momentum) * batch_mean;
        running_var[c] = momentum * v + (1 - momentum) * batch_var;
        m = batch_mean;
        v = batch_var;
    }
    mean[c] = m;
    variance[c] = v;
    real factor = gamma[c] / sqrt(v + eps);
    scale[c] = factor;
    shift[c] = beta[c] - m * factor;
}

// normed: bit k says whether term k is scaled and shifted.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_forward(const stored *__restrict__ x0, const real *__restrict__ scale0,
                const real *__restrict__ shift0, const stored *__restrict__ x1,
                const real *__restrict__ scale1, const real *__restrict__ shift1,
                stored *__restrict__ y, int N, int C, int pixels, int terms, int normed,
                int relu) {
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real sum = get(x0 + i);
        if (normed & 1) sum = sum * scale0[c] + shift0[c];
        if (terms > 1) {
            real other = get(x1 + i);
            sum += normed & 2 ? other * scale1[c] + shift1[c] : other;
        }
        put(y + i, relu ? rectified(sum) : sum);
    }
}

// partial[c, s] = Σ g, Σ g·(x − mean) over the slice, with g = gy, or 0 where ReLU was 0. mask 0:
// there is no ReLU, 1: it was 0 where y is, 2: where scale·x + shift is not positive.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_backward_sums(const stored *__restrict__ gy, const stored *__restrict__ y,
                      const stored *__restrict__ x, const real *__restrict__ mean,
                      const real *__restrict__ scale, const real *__restrict__ shift,
                      real *__restrict__ partial, int N, int C, int pixels, int mask) {
    __shared__ real scratch[256 / WARP];
    int c = blockIdx.x, s = blockIdx.y, S = gridDim.y, first, end;
    slice_of(s, S, N, first, end);
    real sum = 0, products = 0, m = mean[c];
    for (int n = first; n < end; n++) {
        int start = (n * C + c) * pixels;
        for (int i = start + threadIdx.x; i < start + pixels; i += blockDim.x) {
            real g = get(gy + i), value = get(x + i);
            if (mask == 1 && !(get(y + i) > real(0))) g = 0;
            if (mask == 2 && !(scale[c] * value + shift[c] > real(0))) g = 0;
            sum += g;
            products += g * (value - m);
        }
    }
    sum = block_sum(sum, scratch);
    products = block_sum(products, scratch);
    if (threadIdx.x == 0) {
        partial[(c * S + s) * 2] = sum;
        partial[(c * S + s) * 2 + 1] = products;
    }
}

// gγ, gβ, and the coefficients with gx = a·g + b·(x − mean) + d.
extern "C" __global__ void __launch_bounds__(256, 1)
norm_backward_coefficients(const real *__restrict__ partial, const real *__restrict__ variance,
                           const real *__restrict__ gamma, real *__restrict__ ggamma,
                           real *__restrict__ gbeta, real *__restrict__ coefficients, int N,
                           int C, int pixels, int S, real eps) {
    int c = first_index();
    if (c >= C) return;
    real sum = 0, products = 0, count = real(N) * pixels;
    for (int s = 0; s < S; s++) {
        sum += partial[(c * S + s) * 2];
        products += partial[(c * S + s) * 2 + 1];
    }
    real inverse = 1 / sqrt(variance[c] + eps), a = gamma[c] * inverse;
    gbeta[c] = sum;
    ggamma[c] = products * inverse;
    coefficients[3 * c] = a;
    coefficients[3 * c + 1] = -a * inverse * inverse * products / count;
    coefficients[3 * c + 2] = -a * sum / count;
}

// The gradient of a normalised term.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_backward_input(const stored *__restrict__ gy, const stored *__restrict__ y,
                       const stored *__restrict__ x, const real *__restrict__ mean,
                       const real *__restrict__ coefficients, stored *__restrict__ gx, int N,
                       int C, int pixels, int relu, int accumulate) {
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real g = get(gy + i);
        if (relu && !(get(y + i) > real(0))) g = 0;
        g = coefficients[3 * c] * g + coefficients[3 * c + 1] * (get(x + i) - mean[c]) +
            coefficients[3 * c + 2];
        put(gx + i, accumulate ? get(gx + i) + g : g);
    }
}

// The gradient of a term that is added as it is.
extern "C" __global__ void __launch_bounds__(256, 1)
skip_backward(const stored *__restrict__ gy, const stored *__restrict__ y,
              stored *__restrict__ gx, int n, int relu, int accumulate) {
    for (int i = first_index(); i < n; i += index_step()) {
        real g = get(gy + i);
        if (relu && !(get(y + i) > real(0))) g = 0;
        put(gx + i, accumulate ? get(gx + i) + g : g);
    }
}
