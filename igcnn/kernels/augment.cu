// From stored bytes to the network's input; formula and shapes: augment.py.
#include "common.cuh"
#include "augmentation.cuh"

// x[n], one image a block; images: (count, 3, H, W).
extern "C" __global__ void __launch_bounds__(256, 1)
augment(const unsigned char *__restrict__ images,  // [count][3][H][W]
        const int *__restrict__ all_labels,        // [count]
        const int *__restrict__ order,             // [count]
        const unsigned *__restrict__ state,        // [5]
        const float *__restrict__ mean,            // [3]
        const float *__restrict__ std,             // [3]
        stored *__restrict__ x,                    // [N][3][H][W]
        int *__restrict__ labels,                  // [N]
        int N, int count, int H, int W, int pad, int mirror, int stream) {
    const int n = blockIdx.x;
    const Crop crop(order, state, n, count, pad, mirror, stream);
    if (threadIdx.x == 0) labels[n] = all_labels[crop.sample];
    for (int i = threadIdx.x; i < 3 * H * W; i += blockDim.x)
        put(x + n * 3 * H * W + i,
            crop.at(images, mean, std, i / W / H, i / W % H, i % W, H, W));
}
