// One step of stochastic gradient descent; formula: sgd_update.py. The constants that change in
// a run lie in device memory, so that a captured graph can be replayed with others:
// constants = (learning rate, momentum, weight decay).
//
// Compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of 67 TFLOP/s.
// For 600,000 weights.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | sgd_update             |        30 |       0.0 | 12.0 |  0.00 |       2.8 |           0.1 |
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
sgd_update(real *__restrict__ w,                // [n]
           const real *__restrict__ g,          // [n]
           real *__restrict__ v,                // [n]
           const real *__restrict__ constants,  // [3]
           int n, int nesterov) {
    const real lr = constants[0], momentum = constants[1], weight_decay = constants[2];
    for (int i = first_index(); i < n; i += index_step()) {
        real d = g[i] + weight_decay * w[i];
        real velocity = momentum * v[i] + d;
        v[i] = velocity;
        w[i] -= lr * (nesterov ? d + momentum * velocity : velocity);
    }
}
