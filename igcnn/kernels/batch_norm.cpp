// Batch normalization; formulas: batch_norm.py.
//
//     y = scale·x + shift      scale = γ/√(σ² + ε)      shift = β − μ·scale
//
// y is never stored: whoever reads x applies scale and shift, and ReLU, as it loads (Input in
// common.hpp). Backward likewise: gx = scale·g + slope·x + shift (Gradient), with
//
//     slope = −γ·gγ / (σ²+ε) / m      shift = −γ/√(σ²+ε) · gβ/m − slope·μ      m = N·H·W
//
// So only sums and numbers per channel are left to compute here. x is [blocks][H][C][W]. A job
// leaves mean and Σ(x − mean)² of its pixels rather than Σx and Σx²: the difference of two large
// numbers would lose the variance of a channel with a large mean. They are merged in double, in
// the order of the jobs.
#include <math.h>

#include "common.hpp"

struct BatchNormSums {
    const V *x;
    double *sums;  // [jobs][2][C]: mean and Σ(x − mean)², of the real images of a job
    int C, H, W;
    Batch batch;
};

SCRATCH(batch_norm_sums, BatchNormSums) { return 2 * (Size)a.C; }

// Row by row, each lane by itself: the mean of the row first, then the squares about it while the
// row is in the cache. Rows are merged by Chan's formula, and at the end the lanes, in double.
KERNEL(batch_norm_sums, BatchNormSums) {
    const int block = block_of(a.batch, job), images = images_of(a.batch, block);
    const Rows rows = rows_of(a.batch, job, a.H);
    V *means = scratch, *squares = scratch + a.C;
    clear(scratch, 2 * a.C);
    const V *x = a.x + ((Size)block * a.H + rows.first) * a.C * a.W;
    for (int r = rows.first; r < rows.last; r++) {
        const real before = r - rows.first, share = 1 / (before + 1);
        for (int c = 0; c < a.C; c++, x += a.W) {
            // about the first pixel: the mean of equal pixels is exact
            const V first = x[0];
            V sum{}, square{};
            for (int j = 1; j < a.W; j++) sum += x[j] - first;
            const V mean = first + sum * ((real)1 / a.W);
            for (int j = 0; j < a.W; j++) {
                const V d = x[j] - mean;
                add(square, d, d);
            }
            const V d = mean - means[c];
            add(square, d * d, before * share * a.W);
            add(means[c], d, share);
            squares[c] += square;
        }
    }
    const double pixels = (double)(rows.last - rows.first) * a.W;
    double *to = a.sums + (Size)job * 2 * a.C;
    for (int c = 0; c < a.C; c++) {
        const double first = lane(means[c], 0);
        double mean = 0, square = 0;
        for (int i = 1; i < images; i++) mean += lane(means[c], i) - first;
        mean = first + mean / images;
        for (int i = 0; i < images; i++) {
            const double d = lane(means[c], i) - mean;
            square += lane(squares[c], i) + pixels * d * d;
        }
        to[c] = mean;
        to[a.C + c] = square;
    }
}

// The numbers that are rounded to `real` are rounded once: shift belongs to the rounded scale, so
// that a channel without variance becomes β.
static inline void normalize(double mean, double variance, double eps, double gamma, double beta,
                             real &scale, real &shift) {
    scale = (real)(gamma / sqrt(variance + eps));
    shift = (real)(beta - mean * scale);
}

struct BatchNormStatistics {
    const double *sums;  // [jobs][2][C], as batch_norm_sums leaves them
    const real *gamma;
    const real *beta;
    real *running_mean;  // momentum·running + (1 − momentum)·batch
    real *running_var;
    real *mean;
    real *variance;      // biased
    real *scale;
    real *shift;
    double momentum;
    double eps;
    int C;
    int H;               // rows that the jobs of `sums` were cut by
    int W;
    Batch batch;         // of those jobs
};

KERNEL(batch_norm_statistics, BatchNormStatistics) {
    for (int c = 0; c < a.C; c++) {
        double count = 0, mean = 0, square = 0;
        for (int k = 0; k < a.batch.blocks * a.batch.slices; k++) {
            const Rows rows = rows_of(a.batch, k, a.H);
            if (rows.first == rows.last) continue;
            const double m =
                (double)(rows.last - rows.first) * a.W * images_of(a.batch, block_of(a.batch, k));
            const double *sums = a.sums + (Size)k * 2 * a.C;
            const double d = sums[c] - mean;
            mean += d * (m / (count + m));
            square += sums[a.C + c] + d * d * (count * m / (count + m));
            count += m;
        }
        const double variance = square / count;
        a.mean[c] = (real)mean;
        a.variance[c] = (real)variance;
        a.running_mean[c] = (real)(a.momentum * a.running_mean[c] + (1 - a.momentum) * mean);
        a.running_var[c] = (real)(a.momentum * a.running_var[c] + (1 - a.momentum) * variance);
        normalize(mean, variance, a.eps, a.gamma[c], a.beta[c], a.scale[c], a.shift[c]);
    }
}

struct BatchNormInference {
    const real *gamma;
    const real *beta;
    const real *running_mean;
    const real *running_var;
    real *scale;
    real *shift;
    double eps;
    int C;
};

KERNEL(batch_norm_inference, BatchNormInference) {
    for (int c = 0; c < a.C; c++)
        normalize(a.running_mean[c], a.running_var[c], a.eps, a.gamma[c], a.beta[c], a.scale[c],
                  a.shift[c]);
}

struct BatchNormGradient {
    const double *sums;    // [jobs][2][C]: Σ g and Σ g·(x − mean), as an Ending leaves them
    const real *gamma;
    const real *mean;
    const real *variance;
    real *ggamma;          // or null
    real *gbeta;           // or null
    real *scale;           // of the gradient of x: scale·g + slope·x + shift
    real *slope;
    real *shift;
    double eps;
    double count;          // N·H·W
    int C;
    int jobs;
};

KERNEL(batch_norm_gradient, BatchNormGradient) {
    for (int c = 0; c < a.C; c++) {
        double sum = 0, product = 0;
        for (int k = 0; k < a.jobs; k++) {
            sum += a.sums[(Size)k * 2 * a.C + c];
            product += a.sums[(Size)k * 2 * a.C + a.C + c];
        }
        const double inverse = 1 / sqrt(a.variance[c] + a.eps), scale = a.gamma[c] * inverse;
        const double ggamma = product * inverse;
        if (a.gbeta) a.gbeta[c] = (real)sum;
        if (a.ggamma) a.ggamma[c] = (real)ggamma;
        a.scale[c] = (real)scale;
        a.slope[c] = (real)(-scale * inverse * ggamma / a.count);
        a.shift[c] = (real)(-scale * sum / a.count - (double)a.slope[c] * a.mean[c]);
    }
}
