// Rectified linear unit; formula and shapes: relu.py.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
relu_forward(const stored *__restrict__ x,  // [n]
             stored *__restrict__ y,        // [n]
             int n) {
    for (int i = first_index(); i < n; i += index_step()) put(y + i, rectified(get(x + i)));
}

extern "C" __global__ void __launch_bounds__(256, 1)
relu_backward(const stored *__restrict__ gy,  // [n]
              const stored *__restrict__ y,   // [n]
              stored *__restrict__ gx,        // [n]
              int n) {
    for (int i = first_index(); i < n; i += index_step())
        put(gx + i, get(y + i) > real(0) ? get(gy + i) : real(0));
}
