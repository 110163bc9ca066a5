"""SGD with Nesterov momentum against PyTorch. Limit: memory, three reads and two writes.

pip install -e ".[bench]" && python benchmarks/sgd_update.py
"""

import argparse

import numpy as np
import torch
from harness import measure, ratios, save

from igcnn.kernels.sgd_update import sgd_update

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
    functions = {
        "igcnn": lambda: sgd_update(w, g, v, LR, MOMENTUM, DECAY),
        "PyTorch, 1 thread": optimizer.step,
    }
    return functions, (w, parameter.detach().numpy())


def main():
    """Check that three updates are equal, time, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    result = {"torch": torch.__version__, "cases": {}}
    for name, size in SIZES.items():
        functions, (own, other) = engines(size)
        for _ in range(3):
            for function in functions.values():
                function()
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)
        seconds = measure(functions, rounds)
        relative = ratios(seconds, "igcnn")
        result["cases"][name] = {"seconds": seconds, "times igcnn": relative}
        median = 1e3 * sorted(seconds["igcnn"])[rounds // 2]
        print(f"{name}: igcnn {median:.3f} ms | PyTorch {relative['PyTorch, 1 thread']:.2f} ×")
    save("sgd_update", result)


if __name__ == "__main__":
    main()
