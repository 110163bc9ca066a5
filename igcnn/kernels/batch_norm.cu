// Batch normalisation; formulas and shapes: batch_norm.py. A reduction over (N, H, W) is shared
// by several blocks a channel, each with a slice of the images; their partial sums are added in
// order by whoever needs the result, so there is no float atomic and the bits never change.
#include "common.cuh"

const int LOADS = 8;  // that a thread has under way

// partial[c, s]: the moments of x in the slice, of numbers rather than images.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_statistics(const stored *__restrict__ x,  // [N][C][pixels]
                      real *__restrict__ partial,    // [C][gridDim.y][3]
                      int N, int C, int pixels) {
    __shared__ real scratch[3 * 256 / WARP];
    int c = blockIdx.x, s = blockIdx.y, S = gridDim.y, first, end;
    slice_of(s, S, N * pixels, first, end);
    Moments<real> own = {0, 0, 0};
    for (int i = first + threadIdx.x; i < end; i += LOADS * blockDim.x) {
        // all loads are under way before the first is waited for
        real values[LOADS], sum = 0, squares = 0;
        const int count = min(LOADS, (end - i - 1) / int(blockDim.x) + 1);
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            const int k = i + (j < count ? j : 0) * blockDim.x;
            values[j] = get(x + (k / pixels * C + c) * pixels + k % pixels);
        }
        for (int j = 1; j < LOADS; j++) sum += j < count ? values[j] - values[0] : real(0);
        const real mean = values[0] + sum / count;
        for (int j = 0; j < LOADS; j++)
            squares += j < count ? (values[j] - mean) * (values[j] - mean) : real(0);
        own.merge({real(count), mean, squares});
    }
    own.merge_warp();
    if (threadIdx.x % WARP == 0) put_moments(scratch + 3 * (threadIdx.x / WARP), own);
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < int(blockDim.x) / WARP; w++) own.merge(moments_at<real>(scratch + 3 * w));
    put_moments(partial + (c * S + s) * 3, own);
}

// mean and biased variance of every channel from the moments of the slices.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_moments(const real *__restrict__ partial,  // [C][S][3]
                   real *__restrict__ mean,           // [C]
                   real *__restrict__ variance,       // [C]
                   int C, int S) {
    int c = first_index();
    if (c >= C) return;
    Moments<double> all = {0, 0, 0};
    for (int s = 0; s < S; s++) all.merge(moments_at<double>(partial + (c * S + s) * 3));
    mean[c] = real(all.mean);
    variance[c] = real(all.squares / all.count);
}

// centred = x − mean and y = γ/√(variance + ε) · centred + β.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_apply(const stored *__restrict__ x,       // [N][C][pixels]
                 const real *__restrict__ mean,      // [C]
                 const real *__restrict__ variance,  // [C]
                 const real *__restrict__ gamma,     // [C]
                 const real *__restrict__ beta,      // [C]
                 stored *__restrict__ centred,       // or null: [N][C][pixels], receives x − mean
                 stored *__restrict__ y,             // [N][C][pixels]
                 int N, int C, int pixels, real eps, int keep) {
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real d = get(x + i) - mean[c];
        if (keep) put(centred + i, d);
        put(y + i, d * (gamma[c] / sqrt(variance[c] + eps)) + beta[c]);
    }
}

// partial[c, s] = Σ gy, Σ gy·centred over the slice.
extern "C" __global__ void __launch_bounds__(256, 1)
batch_norm_backward_sums(const stored *__restrict__ gy,       // [N][C][pixels]
                         const stored *__restrict__ centred,  // [N][C][pixels]
                         real *__restrict__ partial,          // [C][gridDim.y][2]
                         int N, int C, int pixels) {
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
batch_norm_backward_parameters(const real *__restrict__ partial,   // [C][S][2]
                               const real *__restrict__ variance,  // [C]
                               real *__restrict__ ggamma,          // [C]
                               real *__restrict__ gbeta,           // [C]
                               int C, int S, real eps) {
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
batch_norm_backward_input(const stored *__restrict__ gy,       // [N][C][pixels]
                          const stored *__restrict__ centred,  // [N][C][pixels]
                          const real *__restrict__ variance,   // [C]
                          const real *__restrict__ gamma,      // [C]
                          const real *__restrict__ ggamma,     // [C]
                          const real *__restrict__ gbeta,      // [C]
                          stored *__restrict__ gx,             // [N][C][pixels]
                          int N, int C, int pixels, real eps, int training) {
    real m = real(N) * pixels;
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int c = i / pixels % C;
        real inverse = 1 / sqrt(variance[c] + eps), g = get(gy + i);
        if (training) g -= (gbeta[c] + get(centred + i) * inverse * ggamma[c]) / m;
        put(gx + i, gamma[c] * inverse * g);
    }
}
