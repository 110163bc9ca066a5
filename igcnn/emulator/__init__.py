"""The CUDA model on a CPU: runs the kernels' unmodified sources, and watches what they do.

One fiber for each thread of a block, one block after another (runtime.cpp, device.h); in check
mode every access to memory is checked against CUDA's rules (check.cpp). What it cannot show: time,
weak memory order, and what the GPU's own compiler makes of a source.
"""

from .library import Library, Step, Traffic

__all__ = ["Library", "Step", "Traffic"]
