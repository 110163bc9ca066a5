// Mean cross-entropy of the softmax; formula: softmax_cross_entropy.py.
//
//     loss_n = log Σ_k exp z[n, k] − z[n, t_n] + ε·(z[n, t_n] − z̄_n)
//     gz = (softmax(z) − (1 − ε)·onehot(t) − ε/K) / N
//
// z is [blocks][K]. Images lie side by side: each lane is the softmax of one image, and the
// compiler turns loops over lanes into vector instructions. The arithmetic is double even if
// `real` is float: there are few logits, so it costs little, and the loss is rounded only once.
#include <math.h>
#include <stdint.h>

#include "common.hpp"

// exp(x) for x ≤ 0 or NaN, to about 1 ulp. Unlike the C library's, it can be inlined and
// vectorized, and does not depend on the version of that library.
//
// x = n·log 2 + r with |r| ≤ log(2)/2, and exp(x) = 2ⁿ·exp(r). Adding 1.5·2⁵² rounds to a whole
// number n, which then is the low half of the bits.
static inline double exponential(double x) {
    const double magic = 0x1.8p52;
    const double shifted = x * 0x1.71547652b82fep0 + magic, n = shifted - magic;
    // log 2 in two parts; n times the first is exact
    const double r = x - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x < -708 ? 0 : p * power;
}

struct SoftmaxCrossEntropy {
    const V *z;         // [blocks][K]
    const int *labels;  // [N], from 0 to K − 1; not checked
    V *gz;              // or null: [blocks][K], 0 in lanes without image
    real *losses;       // [N]
    real *right;        // [N]: 1 where the label has the largest logit, else 0
    int K;
    int N;
    double smoothing;   // ε
    Batch batch;
};

// A job is a block; if blocks are cut into slices, the first slice does all the work.
//
// Of equal logits the one of the smaller class counts as larger, and NaN as larger than all: so
// a network whose outputs are all alike, or broken, gains nothing by it.
KERNEL(softmax_cross_entropy, SoftmaxCrossEntropy) {
    if (job % a.batch.slices) return;
    const int block = block_of(a.batch, job), images = images_of(a.batch, block);
    const V *z = a.z + (Size)block * a.K;
    int labels[LANES] = {};
    for (int i = 0; i < images; i++) labels[i] = a.labels[block * LANES + i];
    double largest[LANES], own[LANES], sums[LANES], ahead[LANES];
    for (int i = 0; i < LANES; i++) {
        largest[i] = lane(z[0], i);
        own[i] = lane(z[labels[i]], i);
        sums[i] = ahead[i] = 0;
    }
    for (int k = 1; k < a.K; k++)
        for (int i = 0; i < LANES; i++) {
            const double x = lane(z[k], i), m = largest[i];
            largest[i] = (m >= x) | (m != m) ? m : x;  // NaN counts as largest
        }
    for (int k = 0; k < a.K; k++)
        for (int i = 0; i < LANES; i++) {
            const double x = lane(z[k], i);
            sums[i] += exponential(x - largest[i]);
            const bool tie = (x == own[i]) & (k < labels[i]);
            ahead[i] += !(x <= own[i]) | tie ? 1 : 0;
        }
    for (int i = 0; i < images; i++) {
        const int n = block * LANES + i;
        double loss = log(sums[i]) - (own[i] - largest[i]);
        if (a.smoothing) {
            double mean = 0;
            for (int k = 0; k < a.K; k++) mean += lane(z[k], i);
            loss += a.smoothing * (own[i] - mean / a.K);
        }
        a.losses[n] = (real)loss;
        a.right[n] = ahead[i] == 0;
    }
    if (!a.gz) return;
    const double each = a.smoothing / a.K, target = 1 - a.smoothing + each;
    for (int k = 0; k < a.K; k++) {
        real *gz = (real *)(a.gz + (Size)block * a.K + k);
        for (int i = 0; i < LANES; i++) {
            const double softmax = exponential(lane(z[k], i) - largest[i]) / sums[i];
            const double g = (softmax - (k == labels[i] ? target : each)) / a.N;
            gz[i] = i < images ? (real)g : 0;
        }
    }
}

struct RecordResult {
    const real *losses;  // [N]
    const real *right;   // [N]
    real *results;       // [slots][2]: mean loss and right answers of a batch
    unsigned *state;     // position in the epoch's order, seed low, seed high, epoch, updates
    int N;
    int slots;
};

// Write into slot updates mod `slots`; then state goes on to the next batch. One job.
KERNEL(record_result, RecordResult) {
    double sum = 0, hits = 0;
    for (int n = 0; n < a.N; n++) {
        sum += a.losses[n];
        hits += a.right[n];
    }
    const unsigned slot = a.state[4] % (unsigned)a.slots;
    a.results[2 * (Size)slot] = (real)(sum / a.N);
    a.results[2 * (Size)slot + 1] = (real)hits;
    a.state[0] += (unsigned)a.N;
    a.state[4] += 1;
}
