// ReLU6, min(max(x, 0), 6); formula and shapes: relu6.py.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
relu6_forward(const stored *__restrict__ x,  // [n]
              stored *__restrict__ y,        // [n]
              int n) {
    for (int i = first_index(); i < n; i += index_step()) put(y + i, rectified6(get(x + i)));
}

extern "C" __global__ void __launch_bounds__(256, 1)
relu6_backward(const stored *__restrict__ gy,  // [n]
               const stored *__restrict__ y,   // [n]
               stored *__restrict__ gx,        // [n]
               int n) {
    for (int i = first_index(); i < n; i += index_step())
        put(gx + i, passes(get(y + i), 2) ? get(gy + i) : real(0));
}
