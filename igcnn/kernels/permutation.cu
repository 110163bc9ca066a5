// Channel permutation Reorder(b); formula and shapes: permutation.py.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
permutation_forward(const stored *__restrict__ x,  // [N][C][pixels]
                    stored *__restrict__ y,        // [N][C][pixels]
                    int N, int C, int pixels, int branches) {
    for (int i = first_index(); i < N * C * pixels; i += index_step()) {
        int image = i / pixels / C, c = i / pixels % C, pixel = i % pixels;
        y[i] = x[(image * C + reorder(c, C, branches)) * pixels + pixel];
    }
}
