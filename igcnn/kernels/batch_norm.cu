// Batch normalisation; formulas and shapes: batch_norm.py. A reduction over (N, H, W) is shared
// by several blocks a channel, each with a slice of the images; their partial sums are added in
// order by whoever needs the result, so there is no float atomic and the bits never change.
#include "common.cuh"

const int AT_ONCE = 8;  // numbers of a thread

// partial[c, s]: the moments of x in the slice. A block holds as many numbers as it can in
// registers, finds their mean, and then their squares about it.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_statistics(const stored *__restrict__ x, real *__restrict__ partial, int N, int C,
                      int pixels) {
    __shared__ real scratch[256 / WARP];
    const int c = blockIdx.x, s = blockIdx.y, S = gridDim.y, threads = blockDim.x;
    int first, end;
    slice_of(s, S, N, first, end);
    const int whole = threads / pixels, rest = threads % pixels;  // images and pixels of a step
    int n = first + int(threadIdx.x) / pixels, i = int(threadIdx.x) % pixels;
    Moments<real> all = {0, 0, 0};
    for (int left = (end - first) * pixels; left > 0; left -= AT_ONCE * threads) {
        const int count = min(left, AT_ONCE * threads);
        real values[AT_ONCE], sum = 0, squares = 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            values[k] = n < end ? get(x + (n * C + c) * pixels + i) : real(0);
            sum += values[k];
            n += whole;
            i += rest;
            if (i >= pixels) {
                i -= pixels;
                n += 1;
            }
        }
        const real mean = block_sum(sum, scratch) / count;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const real d = int(threadIdx.x) + k * threads < count ? values[k] - mean : real(0);
            squares += d * d;
        }
        all.merge(Moments<real>{real(count), mean, block_sum(squares, scratch)});
    }
    if (threadIdx.x == 0) put_moments(partial + (c * S + s) * 3, all);
}

// mean and biased variance of every channel from the moments of the slices.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_moments(const real *__restrict__ partial, real *__restrict__ mean,
                   real *__restrict__ variance, int C, int S) {
    int c = first_index();
    if (c >= C) return;
    Moments<double> all = {0, 0, 0};
    for (int s = 0; s < S; s++) all.merge(moments_at<double>(partial + (c * S + s) * 3));
    mean[c] = real(all.mean);
    variance[c] = real(all.squares / all.count);
}

// centred = x − mean and y = γ/√(variance + ε) · centred + β.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_apply(const stored *__restrict__ x, const real *__restrict__ mean,
                 const real *__restrict__ variance, const real *__restrict__ gamma,
                 const real *__restrict__ beta, stored *__restrict__ centred,
                 stored *__restrict__ y, int N, int C, int pixels, real eps, int keep) {
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real d = get(x + i) - mean[c];
        if (keep) put(centred + i, d);
        put(y + i, d * (gamma[c] / sqrt(variance[c] + eps)) + beta[c]);
    }
}

// partial[c, s] = Σ gy, Σ gy·centred over the slice.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_backward_sums(const stored *__restrict__ gy, const stored *__restrict__ centred,
                         real *__restrict__ partial, int N, int C, int pixels) {
    __shared__ real scratch[256 / WARP];
    int c = blockIdx.x, s = blockIdx.y, S = gridDim.y, first, end;
    slice_of(s, S, N, first, end);
    real sum = 0, products = 0;
    for (int n = first; n < end; n++) {
        int start = (n * C + c) * pixels;
        for (int i = threadIdx.x; i < pixels; i += blockDim.x) {
            real g = get(gy + start + i);
            sum += g;
            products += g * get(centred + start + i);
        }
    }
    sum = block_sum(sum, scratch);
    products = block_sum(products, scratch);
    if (threadIdx.x == 0) {
        partial[(c * S + s) * 2] = sum;
        partial[(c * S + s) * 2 + 1] = products;
    }
}

// gβ and gγ of every channel from the partial sums.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_backward_parameters(const real *__restrict__ partial, const real *__restrict__ variance,
                               real *__restrict__ ggamma, real *__restrict__ gbeta, int C, int S,
                               real eps) {
    int c = first_index();
    if (c >= C) return;
    real sum = 0, products = 0;
    for (int s = 0; s < S; s++) {
        sum += partial[(c * S + s) * 2];
        products += partial[(c * S + s) * 2 + 1];
    }
    gbeta[c] = sum;
    ggamma[c] = products / sqrt(variance[c] + eps);
}

// gx; in evaluation the statistics are constants, and so the two sums take no part.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_backward_input(const stored *__restrict__ gy, const stored *__restrict__ centred,
                          const real *__restrict__ variance, const real *__restrict__ gamma,
                          const real *__restrict__ ggamma, const real *__restrict__ gbeta,
                          stored *__restrict__ gx, int N, int C, int pixels, real eps,
                          int training) {
    real m = real(N) * pixels;
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real inverse = 1 / sqrt(variance[c] + eps), g = get(gy + i);
        if (training) g -= (gbeta[c] + get(centred + i) * inverse * ggamma[c]) / m;
        put(gx + i, gamma[c] * inverse * g);
    }
}
