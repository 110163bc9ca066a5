"""SGD with Nesterov momentum against PyTorch. Limit: memory, three reads and two writes.

pip install -e ".[bench]" && python benchmarks/sgd_update.py
"""

import argparse

import numpy as np
import torch
from harness import save
from operation import compare, on_threads, recorded

from igcnn.kernels.compiled import unavailable
from igcnn.kernels.sgd_update import launch_sgd_update, sgd_update

SIZES = {"164,410 parameters": 164_410, "11.7 million parameters": 11_689_512}
LR, MOMENTUM, DECAY = 0.1, 0.9, 1e-4


def engines(size):
    """Return the functions that update so many parameters, and the parameters of each."""
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    v = np.zeros_like(w)
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    parameter.grad = torch.from_numpy(g.copy())
    optimizer = torch.optim.SGD(
        [parameter], LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    functions = {"tape": lambda: sgd_update(w, g, v, LR, MOMENTUM, DECAY)}
    parameters = {"tape": w}
    if not unavailable():
        constants = np.array((LR, MOMENTUM, DECAY), np.float32)
        for threads, name in on_threads("compiled"):
            arrays = w.copy(), g, np.zeros_like(w), constants
            step = recorded(lambda arrays=arrays: launch_sgd_update(*arrays, True))
            functions[name] = lambda step=step, threads=threads: step.run(threads)
            parameters[name] = arrays[0]
    functions["PyTorch, 1 thread"] = optimizer.step
    parameters["PyTorch, 1 thread"] = parameter.detach().numpy()
    return functions, parameters


def main():
    """Check that three updates are equal, time, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    result = {"torch": torch.__version__, "cases": {}}
    for name, size in SIZES.items():
        print(f"\n{name}")
        functions, parameters = engines(size)
        for _ in range(3):
            for function in functions.values():
                function()
        for array in parameters.values():
            np.testing.assert_allclose(array, parameters["tape"], rtol=1e-4, atol=1e-5)
        result["cases"][name] = {"update": compare("update", functions, rounds)}
    save("sgd_update", result)


if __name__ == "__main__":
    main()
