"""A description computed by PyTorch."""

import torch
from torch.nn import functional as F

EPS = 2e-5


def loss_and_gradients(description, state, one):
    """Return the loss and the gradients by name, for the parameters of a state."""
    own = {
        name: torch.from_numpy(array.copy()).requires_grad_("moving" not in name)
        for name, array in state.items()
    }
    images, labels = one
    loss = F.cross_entropy(
        logits(description, own, torch.from_numpy(images)), torch.from_numpy(labels)
    )
    loss.backward()
    gradients = {n: t.grad.numpy() for n, t in own.items() if t.requires_grad}
    return loss.item(), gradients


def logits(description, own, x):
    values = {0: x}
    for k in description.live():
        op, inputs, options = description.steps[k]
        arguments = [values[i] for i in inputs]
        options = dict(options)
        options.pop("D", None)
        options.pop("kernel", None)
        weights = [own[f"{name}{k}"] for name in ("w", "v", "b") if f"{name}{k}" in own]
        if op == "batch_norm":
            gamma, beta = (own[f"norm{k}_{name}"] for name in ("gamma", "beta"))
            values[k + 1] = F.batch_norm(*arguments, None, None, gamma, beta, True, 0, EPS)
        else:
            values[k + 1] = OPERATIONS[op](*arguments, *weights, **options)
    total = 0
    for k, i in enumerate(description.heads):
        total = total + F.linear(values[i].mean((2, 3)), own[f"head{k}"], own.get(f"bias{k}"))
    return total


def igc(x, w, v, stride, padding, L, S):
    p = F.conv2d(x, w, stride=stride, padding=padding, groups=L)
    q = F.conv2d(F.channel_shuffle(p, L), v, groups=S)
    return F.channel_shuffle(q, S)


def max_pool(x, kernel_size, stride, padding):
    """PyTorch's own takes padding up to half of the window."""
    (pv, ph), low = padding, -torch.inf
    return F.max_pool2d(F.pad(x, (ph, ph, pv, pv), value=low), kernel_size, stride)


def avg_pool(x, kernel_size, stride, padding, count_include_pad):
    pv, ph = padding
    ones = torch.ones_like(x[:1, :1])

    def mean(values):
        return F.avg_pool2d(F.pad(values, (ph, ph, pv, pv)), kernel_size, stride)

    return mean(x) / (1 if count_include_pad else mean(ones))


OPERATIONS = {
    "conv": F.conv2d,
    "conv_bias": lambda x, w, b, **options: F.conv2d(x, w, b, **options),
    "igc": igc,
    "relu": F.relu,
    "relu6": F.relu6,
    "add": torch.add,
    "three": lambda a, b, c: a + b + c,
    "plus": torch.add,
    "times": torch.mul,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "permute": lambda x, branches: F.channel_shuffle(x, branches),
}
