// One step of stochastic gradient descent, in place; formula: sgd_update.py.
//
// All parameters lie in one flat array, which is cut into equal parts, one a job. No vectors V:
// there are no images here, and the compiler vectorizes a plain loop.
#include "common.hpp"

struct SgdUpdate {
    real *w;
    const real *g;
    real *v;                // velocity
    const real *constants;  // learning rate, momentum, weight decay
    int size;
    int nesterov;
    int jobs;
};

KERNEL(sgd_update, SgdUpdate) {
    const real lr = a.constants[0], momentum = a.constants[1], weight_decay = a.constants[2];
    const Size first = (Size)a.size * job / a.jobs, last = (Size)a.size * (job + 1) / a.jobs;
    real *__restrict__ w = a.w, *__restrict__ v = a.v;
    const real *__restrict__ g = a.g;
    for (Size i = first; i < last; i++) {
        const real d = g[i] + weight_decay * w[i], velocity = momentum * v[i] + d;
        v[i] = velocity;
        w[i] -= lr * (a.nesterov ? d + momentum * velocity : velocity);
    }
}
