// y = Σ terms, then perhaps ReLU; formulas and shapes: combine.py.
//
// | kernel          | a thread computes                                                         |
// |-----------------|---------------------------------------------------------------------------|
// | combine_sums_v1 | the sums of a channel: the same bytes, but few threads have work, one     |
// |                 | number after another, and neighbours read far apart                       |
// | combine_sums_v2 | its share of a block's sums, LOADS loads of each array at once            |
// Shipped: v2; v1 is the readable reference. The other kernels are their formulas,
// VEC numbers a thread.
//
// Compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of 67 TFLOP/s.
// For 64 images of 32×32, C = 48.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | combine_forward        |        39 |       0.0 | 37.7 |  0.01 |       8.8 |           0.3 |
// | combine_sums_v2        |        48 |       0.1 | 50.3 |  0.01 |      11.7 |           0.3 |
// | combine_backward_input |        47 |       0.0 | 37.7 |  0.02 |       8.8 |           0.4 |
// | skip_backward          |        32 |       0.0 | 37.7 |  0.00 |       8.8 |           0.0 |
// variants: VEC=1,4
// VEC: pixels side by side that a thread takes at once; it divides those of a channel.
#include "common.cuh"

const int LOADS = 2;  // of an array that a thread of combine_sums_v2 has under way

// From the moments of S parts: mean and variance of the batch (in evaluation the running ones), the
// running statistics moved towards them, and x ↦ scale·x + shift. One block a channel.
extern "C" __global__ void __launch_bounds__(256, 1)
norm_coefficients(const real *__restrict__ partial,  // [C][S][3]
                  const real *__restrict__ gamma,    // [C]
                  const real *__restrict__ beta,     // [C]
                  real *__restrict__ running_mean,   // [C]
                  real *__restrict__ running_var,    // [C]
                  real *__restrict__ mean,           // [C]
                  real *__restrict__ variance,       // [C]
                  real *__restrict__ scale,          // [C]
                  real *__restrict__ shift,          // [C]
                  int S, real eps, real momentum, int training) {
    __shared__ double scratch[3][256 / WARP];
    const int c = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const real *parts = partial + c * S * 3;
    const real g = gamma[c], b = beta[c];
    real m = running_mean[c], v = running_var[c];
    // parts lie near one another: little is lost to sums about the mean of the first
    const double pivot = training ? parts[1] : 0;
    double count = 0, sum = 0, squares = 0;
#pragma unroll 4
    for (int s = threadIdx.x; s < S && training; s += blockDim.x) {
        const auto part = moments_at<double>(parts + s * 3);
        const double d = part.mean - pivot;
        count += part.count;
        sum += part.count * d;
        squares += part.squares + part.count * d * d;
    }
    count = warp_sum(count);
    sum = warp_sum(sum);
    squares = warp_sum(squares);
    if (lane == 0) {
        scratch[0][warp] = count;
        scratch[1][warp] = sum;
        scratch[2][warp] = squares;
    }
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < int(blockDim.x) / WARP; w++) {
        count += scratch[0][w];
        sum += scratch[1][w];
        squares += scratch[2][w];
    }
    if (training) {
        const double d = sum / count;
        const real batch_mean = real(pivot + d), batch_var = real(squares / count - d * d);
        running_mean[c] = momentum * m + (1 - momentum) * batch_mean;
        running_var[c] = momentum * v + (1 - momentum) * batch_var;
        m = batch_mean;
        v = batch_var;
    }
    mean[c] = m;
    variance[c] = v;
    const real factor = g / sqrt(v + eps);
    scale[c] = factor;
    shift[c] = b - m * factor;
}

// VEC numbers side by side, in memory and in registers.
__device__ __forceinline__ void take(const stored *p, real (&values)[VEC]) {
    if constexpr (VEC == 4) {
        const Quad v = quad_at(p);
        values[0] = v.x;
        values[1] = v.y;
        values[2] = v.z;
        values[3] = v.w;
    } else {
        values[0] = get(p);
    }
}
__device__ __forceinline__ void give(stored *p, const real (&values)[VEC]) {
    if constexpr (VEC == 4) {
        put_quad(p, Quad{values[0], values[1], values[2], values[3]});
    } else {
        put(p, values[0]);
    }
}

// normed: bit k says whether term k is scaled and shifted.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_forward(const stored *__restrict__ x0,    // [N][C][pixels]
                const real *__restrict__ scale0,  // or null: [C]
                const real *__restrict__ shift0,  // or null: [C]
                const stored *__restrict__ x1,    // or null: [N][C][pixels]
                const real *__restrict__ scale1,  // or null: [C]
                const real *__restrict__ shift1,  // or null: [C]
                stored *__restrict__ y,           // [N][C][pixels]
                int N, int C, int pixels, int terms, int normed, int relu) {
    for (int i = first_index() * VEC; i < N * C * pixels; i += index_step() * VEC) {
        const int c = i / pixels % C;
        real sums[VEC], others[VEC] = {};
        take(x0 + i, sums);
        if (terms > 1) take(x1 + i, others);
#pragma unroll
        for (int k = 0; k < VEC; k++) {
            if (normed & 1) sums[k] = sums[k] * scale0[c] + shift0[c];
            if (terms > 1) sums[k] += normed & 2 ? others[k] * scale1[c] + shift1[c] : others[k];
            sums[k] = activated(sums[k], relu);
        }
        give(y + i, sums);
    }
}

// gγ, gβ, and the coefficients with gx = a·g + b·(x − mean) + d, of a channel of `count` numbers
// from Σ g and Σ g·(x − mean). inverse: 1/√(variance + ε).
__device__ __forceinline__ void put_gradients(int c, real sum, real products, real count,
                                              real gamma, real inverse, real *ggamma,
                                              real *gbeta, real *coefficients) {
    const real a = gamma * inverse;
    gbeta[c] = sum;
    ggamma[c] = products * inverse;
    coefficients[3 * c] = a;
    coefficients[3 * c + 1] = -a * inverse * inverse * products / count;
    coefficients[3 * c + 2] = -a * sum / count;
}

// gγ, gβ and the coefficients from Σ g and Σ g·(x − mean), with g = gy, or 0 where ReLU was 0.
// mask 0: there is no ReLU, 1: it was 0 where y is, 2: where scale·x + shift is not positive;
// 3: it was ReLU6 with the output y. Where y tells, `masked`, which may be gy itself, receives g.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_sums_v1(const stored *gy,                   // [N][C][pixels]
                const stored *__restrict__ y,       // [N][C][pixels]
                const stored *__restrict__ x,       // [N][C][pixels]
                const real *__restrict__ mean,      // [C]
                const real *__restrict__ scale,     // [C]
                const real *__restrict__ shift,     // [C]
                const real *__restrict__ variance,  // [C]
                const real *__restrict__ gamma,     // [C]
                real *__restrict__ ggamma,          // [C]
                real *__restrict__ gbeta,           // [C]
                real *__restrict__ coefficients,    // [C][3]
                stored *masked,                     // [N][C][pixels]
                int N, int C, int pixels, int mask, real eps) {
    for (int c = first_index(); c < C; c += index_step()) {
        real sum = 0, products = 0;
        for (int k = 0; k < N * pixels; k++) {
            const int i = (k / pixels * C + c) * pixels + k % pixels;
            const real value = get(x + i);
            real g = get(gy + i);
            if (mask % 2 && !passes(get(y + i), (mask + 1) / 2)) g = 0;
            if (mask == 2 && !(scale[c] * value + shift[c] > real(0))) g = 0;
            if (mask % 2) put(masked + i, g);
            sum += g;
            products += g * (value - mean[c]);
        }
        put_gradients(c, sum, products, real(N) * pixels, gamma[c], 1 / sqrt(variance[c] + eps),
                      ggamma, gbeta, coefficients);
    }
}

// The same; partial[c, s] has the sums of a slice of the channel's numbers. The block of a channel
// that ends last, which `tickets`, zeros before and after, tells, adds them up.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_sums_v2(const stored *gy,                   // [N][C][pixels]
                const stored *__restrict__ y,       // [N][C][pixels]
                const stored *__restrict__ x,       // [N][C][pixels]
                const real *__restrict__ mean,      // [C]
                const real *__restrict__ scale,     // [C]
                const real *__restrict__ shift,     // [C]
                const real *__restrict__ variance,  // [C]
                const real *__restrict__ gamma,     // [C]
                real *__restrict__ partial,         // [C][gridDim.y][2]
                unsigned *__restrict__ tickets,     // [C]
                real *__restrict__ ggamma,          // [C]
                real *__restrict__ gbeta,           // [C]
                real *__restrict__ coefficients,    // [C][3]
                stored *masked,                     // [N][C][pixels]
                int N, int C, int pixels, int mask, real eps) {
    __shared__ real scratch[2][256 / WARP];
    const int c = blockIdx.x, s = blockIdx.y, S = gridDim.y, lane = threadIdx.x % WARP;
    const int quads = pixels / VEC, share = (N * quads + S - 1) / S;
    const int first = s * share, end = min(first + share, N * quads);
    real sum = 0, products = 0;
    const real m = mean[c], factor = scale[c], offset = shift[c];
    for (int q = first + threadIdx.x; q < end; q += LOADS * blockDim.x) {
        // all loads are under way before the first is waited for
        int at[LOADS];
        real g[LOADS][VEC] = {}, values[LOADS][VEC] = {}, ys[LOADS][VEC] = {};
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
            const int own = q + j * blockDim.x;
            at[j] = own < end ? (own / quads * C + c) * pixels + own % quads * VEC : -1;
            if (at[j] >= 0) take(gy + at[j], g[j]);
            if (at[j] >= 0) take(x + at[j], values[j]);
        }
        if (mask % 2)
#pragma unroll
            for (int j = 0; j < LOADS; j++)
                if (at[j] >= 0) take(y + at[j], ys[j]);
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
#pragma unroll
            for (int k = 0; k < VEC; k++) {
                if (mask % 2 && !passes(ys[j][k], (mask + 1) / 2)) g[j][k] = 0;
                if (mask == 2 && !(factor * values[j][k] + offset > real(0))) g[j][k] = 0;
                sum += g[j][k];
                products += g[j][k] * (values[j][k] - m);
            }
            if (mask % 2 && at[j] >= 0) give(masked + at[j], g[j]);
        }
    }
    sum = warp_sum(sum);
    products = warp_sum(products);
    if (lane == 0) {
        scratch[0][threadIdx.x / WARP] = sum;
        scratch[1][threadIdx.x / WARP] = products;
    }
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    unsigned ticket = 0;
    if (lane == 0) {
        for (int w = 1; w < int(blockDim.x) / WARP; w++) {
            sum += scratch[0][w];
            products += scratch[1][w];
        }
        partial[(c * S + s) * 2] = sum;
        partial[(c * S + s) * 2 + 1] = products;
        __threadfence();
        ticket = atomicInc(tickets + c, S - 1);
    }
    if (__shfl_sync(ALL_LANES, ticket, 0) != S - 1) return;
    __threadfence();
    sum = products = 0;
    for (int k = lane; k < S; k += WARP) {
        sum += __ldcg(partial + (c * S + k) * 2);
        products += __ldcg(partial + (c * S + k) * 2 + 1);
    }
    sum = warp_sum(sum);
    products = warp_sum(products);
    if (lane) return;
    put_gradients(c, sum, products, real(N) * pixels, gamma[c], 1 / sqrt(variance[c] + eps),
                  ggamma, gbeta, coefficients);
}

// The gradient of a normalised term. mask 0: gy is that of the sum of the terms; 2: ReLU lets it
// through where scale·x + shift is positive.
extern "C" __global__ void __launch_bounds__(256, 1)
combine_backward_input(const stored *__restrict__ gy,          // [N][C][pixels]
                       const stored *__restrict__ x,           // [N][C][pixels]
                       const real *__restrict__ mean,          // [C]
                       const real *__restrict__ scale,         // [C]
                       const real *__restrict__ shift,         // [C]
                       const real *__restrict__ coefficients,  // [C][3]
                       stored *__restrict__ gx,                // [N][C][pixels]
                       int N, int C, int pixels, int mask, int accumulate) {
    for (int i = first_index() * VEC; i < N * C * pixels; i += index_step() * VEC) {
        const int c = i / pixels % C;
        const real a = coefficients[3 * c], b = coefficients[3 * c + 1], m = mean[c];
        const real d = coefficients[3 * c + 2], factor = scale[c], offset = shift[c];
        real g[VEC], values[VEC], before[VEC] = {};
        take(gy + i, g);
        take(x + i, values);
        if (accumulate) take(gx + i, before);
#pragma unroll
        for (int k = 0; k < VEC; k++) {
            if (mask && !(factor * values[k] + offset > real(0))) g[k] = 0;
            g[k] = before[k] + (a * g[k] + b * (values[k] - m) + d);
        }
        give(gx + i, g);
    }
}

// The gradient of a term that is added as it is; gx may be gy.
extern "C" __global__ void __launch_bounds__(256, 1)
skip_backward(const stored *gy,              // [n]
              const stored *__restrict__ y,  // [n]
              stored *gx,                    // [n]
              int n, int relu, int accumulate) {
    for (int i = first_index() * VEC; i < n; i += index_step() * VEC) {
        real g[VEC], ys[VEC] = {}, before[VEC] = {};
        take(gy + i, g);
        if (relu) take(y + i, ys);
        if (accumulate) take(gx + i, before);
#pragma unroll
        for (int k = 0; k < VEC; k++)
            g[k] = before[k] + (passes(ys[k], relu) ? g[k] : real(0));
        give(gx + i, g);
    }
}
