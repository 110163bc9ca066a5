// Fully connected layer; formula: linear.py.
//
//     z = w·x + b      gx = wᵀ·gz      gw = Σ_n gz·xᵀ      gb = Σ_n gz
//
// x is [blocks][C], z is [blocks][K], w is [K][C]. Forward and gx are sums of number · vector, a
// tile of sums in registers. gw adds up over the images, that is over lanes: summing the lanes of
// gz[k]·x[c] for each weight would cost more than the products, so x is transposed once, channels
// side by side, and a gradient of an image is the number. Jobs are cut by K forward, by C
// backward.
#include "common.hpp"

static const int TILE = 6;

struct LinearForward {
    const V *x;     // [blocks][C]
    const real *w;  // [K][C]
    const real *b;  // or null: [K]
    V *z;           // [blocks][K]
    int C;
    int K;
    Batch batch;
};

template <int T>
static inline void outputs(const LinearForward &a, const V *x, int k, V *z) {
    V sums[T];
    const real *w = a.w + (Size)k * a.C;
    UNROLL for (int t = 0; t < T; t++) sums[t] = V{};
    for (int c = 0; c < a.C; c++)
        UNROLL for (int t = 0; t < T; t++) add(sums[t], x[c], w[(Size)t * a.C + c]);
    UNROLL for (int t = 0; t < T; t++) z[k + t] = a.b ? sums[t] + a.b[k + t] : sums[t];
}

KERNEL(linear_forward, LinearForward) {
    const Rows own = rows_of(a.batch, job, a.K);
    const V *x = a.x + (Size)block_of(a.batch, job) * a.C;
    V *z = a.z + (Size)block_of(a.batch, job) * a.K;
    int k = own.first;
    for (; k + TILE <= own.last; k += TILE) outputs<TILE>(a, x, k, z);
    for (; k < own.last; k++) outputs<1>(a, x, k, z);
}

struct LinearBackward {
    const V *gz;    // 0 in lanes without image
    const V *x;
    const real *w;
    V *gx;
    real *gw;       // or null: [jobs][K][C], to be added up
    real *gb;       // or null: [jobs][K]
    int C;
    int K;
    Batch batch;
};

// Vectors that hold the channels of one image, once x is transposed.
static inline Size channel_vectors(const LinearBackward &a) {
    return (a.C + LANES - 1) / LANES;
}

SCRATCH(linear_backward, LinearBackward) { return LANES * channel_vectors(a); }

template <int T>
static inline void inputs(const LinearBackward &a, const V *gz, int c, V *gx) {
    V sums[T];
    const real *w = a.w + c;
    UNROLL for (int t = 0; t < T; t++) sums[t] = V{};
    for (int k = 0; k < a.K; k++, w += a.C)
        UNROLL for (int t = 0; t < T; t++) add(sums[t], gz[k], w[t]);
    UNROLL for (int t = 0; t < T; t++) gx[c + t] = sums[t];
}

// LANES gradients of the weights of T outputs: of channel c and those after it, n of them.
template <int T>
static inline void weights(const LinearBackward &a, const V *gz, const V *x, Size step, int images,
                           real *gw, int n) {
    V sums[T];
    UNROLL for (int t = 0; t < T; t++) sums[t] = V{};
    for (int i = 0; i < images; i++)
        UNROLL for (int t = 0; t < T; t++) add(sums[t], x[i * step], lane(gz[t], i));
    UNROLL for (int t = 0; t < T; t++)
        memcpy(gw + (Size)t * a.C, (const void *)(sums + t), n * sizeof(real));
}

KERNEL(linear_backward, LinearBackward) {
    const int block = block_of(a.batch, job), images = images_of(a.batch, block);
    const Rows own = rows_of(a.batch, job, a.C);
    const V *gz = a.gz + (Size)block * a.K, *x = a.x + (Size)block * a.C;
    V *gx = a.gx + (Size)block * a.C;
    int c = own.first;
    for (; c + TILE <= own.last; c += TILE) inputs<TILE>(a, gz, c, gx);
    for (; c < own.last; c++) inputs<1>(a, gz, c, gx);
    if (a.gw) {
        const Size step = channel_vectors(a);
        real *transposed = (real *)scratch;  // [image][channel from own.first]
        clear(scratch, LANES * step);
        for (int i = 0; i < images; i++)
            for (c = own.first; c < own.last; c++)
                transposed[i * step * LANES + c - own.first] = lane(x[c], i);
        real *gw = a.gw + (Size)job * a.K * a.C;
        memset(gw, 0, (Size)a.K * a.C * sizeof(real));  // channels of other slices stay so
        for (c = own.first; c < own.last; c += LANES) {
            const V *from = scratch + (c - own.first) / LANES;
            const int n = smaller(LANES, own.last - c);
            int k = 0;
            for (; k + TILE <= a.K; k += TILE)
                weights<TILE>(a, gz + k, from, step, images, gw + (Size)k * a.C + c, n);
            for (; k < a.K; k++)
                weights<1>(a, gz + k, from, step, images, gw + (Size)k * a.C + c, n);
        }
    }
    if (a.gb)  // by the first slice; the others leave zeros
        for (int k = 0; k < a.K; k++)
            a.gb[(Size)job * a.K + k] = job % a.batch.slices ? 0 : total(gz[k]);
}
