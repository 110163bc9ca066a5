"""Each operation's formula and the lines of source that compute it, for the page and the site."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import Any

from latex2mathml.converter import convert
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import CudaLexer, PythonLexer

from ..cuda import kernel_lines


@dataclass(frozen=True)
class Operation:
    """One operation, forward and backward.

    Attributes:
        key: for links.
        title: its name.
        layers: class names of the layers that it computes.
        says: what it does, in a sentence or two.
        forward: formula, in LaTeX.
        backward: formulas of its gradients, likewise.
        numpy: names of the functions in `igcnn.kernels`, "stem.function": forward, backward.
        cuda: names of the kernels, "stem.kernel": forward, backward.
    """

    key: str
    title: str
    layers: tuple[str, ...]
    says: str
    forward: str
    backward: tuple[str, ...]
    numpy: tuple[tuple[str, ...], tuple[str, ...]]
    cuda: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """Lines of a source file.

    Attributes:
        name: of the function or kernel.
        file: its name.
        line: the first one's number.
        text: the lines.
        html: the same with colours.
    """

    name: str
    file: str
    line: int
    text: str
    html: Markup


OPERATIONS = (
    Operation(
        key="convolution",
        title="Convolution",
        layers=("Convolution", "Duplicate"),
        says="Each output pixel is the sum of products of a kernel with a window of the input; "
        "in G groups, an output channel sees the input channels of its own group alone.",
        forward=r"y_{o,i,j} = \sum_{c,a,b} w_{o,c,a,b} \, x_{c,\; i s + a - p,\; j s + b - p}",
        backward=(
            r"\frac{\partial \ell}{\partial w_{o,c,a,b}} = \sum_{i,j} "
            r"\frac{\partial \ell}{\partial y_{o,i,j}} \, x_{c,\; i s + a - p,\; j s + b - p}",
            r"\frac{\partial \ell}{\partial x_{c,r,q}} = \sum_{o,a,b} w_{o,c,a,b} \, "
            r"\frac{\partial \ell}{\partial y_{o,\; (r + p - a)/s,\; (q + p - b)/s}}",
        ),
        numpy=(
            ("convolution.convolution_forward", "convolution._correlate"),
            (
                "convolution.convolution_backward_input",
                "convolution.convolution_backward_weight",
                "convolution._correlate_weight",
            ),
        ),
        cuda=(
            ("convolution.convolution_forward_v1", "convolution.convolve"),
            ("convolution.convolve", "convolution.weight_sums"),
        ),
    ),
    Operation(
        key="interleaved_group_convolution",
        title="Interleaved group convolution",
        layers=("InterleavedGroupConvolution",),
        says="A spatial group convolution over L partitions, channels dealt out anew, a 1×1 group "
        "convolution over partitions that hold one channel of each of the first, and back. The "
        "primary half is a convolution; the lines here are the rest, with both permutations "
        "folded in.",
        forward=r"y = P \, W^d \, P^{\mathsf{T}} \, W^p \, x",
        backward=(
            r"\frac{\partial \ell}{\partial p} = P \, (W^d)^{\mathsf{T}} \, P^{\mathsf{T}} \, "
            r"\frac{\partial \ell}{\partial y}, \qquad p = W^p x",
            r"\frac{\partial \ell}{\partial W^d_m} = \sum_{i,j} \left( P^{\mathsf{T}} "
            r"\frac{\partial \ell}{\partial y} \right)_{m,i,j} \left( P^{\mathsf{T}} p "
            r"\right)_{m,i,j}^{\mathsf{T}}",
        ),
        numpy=(
            ("interleaved_group_convolution.mix_forward",),
            (
                "interleaved_group_convolution.mix_backward_input",
                "interleaved_group_convolution.mix_backward_weight",
            ),
        ),
        cuda=(
            (
                "interleaved_group_convolution.igc_forward_v1",
                "interleaved_group_convolution.igc_forward_v2",
            ),
            (
                "interleaved_group_convolution.igc_backward_input_v1",
                "interleaved_group_convolution.igc_backward_input_v2",
                "interleaved_group_convolution.igc_backward_weight_v1",
                "interleaved_group_convolution.igc_backward_weight_v2",
            ),
        ),
    ),
    Operation(
        key="interleaved_product",
        title="Interleaved product",
        layers=("InterleavedProduct",),
        says="Group convolutions, one of them spatial, each followed by a permutation that deals "
        "the channels of its groups out to those of the next. An interleaved group convolution "
        "is the case of two factors. Its steps are convolutions and permutations, below.",
        forward=r"y = P_K \, W_K \cdots P_2 \, W_2 \, P_1 \, W_1 \, x",
        backward=(
            r"\frac{\partial \ell}{\partial x} = W_1^{\mathsf{T}} P_1^{\mathsf{T}} \cdots "
            r"W_K^{\mathsf{T}} P_K^{\mathsf{T}} \, \frac{\partial \ell}{\partial y}",
        ),
        numpy=((), ()),
        cuda=((), ()),
    ),
    Operation(
        key="permutation",
        title="Permutation",
        layers=("Permutation",),
        says="Channels read as b branches of C/b and written as C/b branches of b. Its inverse, "
        "and so its gradient, is Reorder(C/b). The networks fold it into the convolution.",
        forward=r"y_c = x_{\,(c \bmod b) \, C/b \,+\, \lfloor c / b \rfloor}",
        backward=(
            r"\frac{\partial \ell}{\partial x} = \mathrm{Reorder}(C/b) \, "
            r"\frac{\partial \ell}{\partial y}",
        ),
        numpy=(
            ("permutation.permutation_forward", "permutation.permutation_index"),
            ("permutation.permutation_backward",),
        ),
        cuda=(("permutation.permutation_forward",), ("permutation.permutation_forward",)),
    ),
    Operation(
        key="batch_norm",
        title="Batch normalisation",
        layers=("BatchNorm",),
        says="Each channel is shifted and scaled to mean 0 and variance 1, then scaled "
        "and shifted by learned parameters. Training uses mean and variance of the batch; "
        "evaluation, as on this page, uses running statistics.",
        forward=r"y = \gamma \, \hat{x} + \beta, \qquad "
        r"\hat{x} = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}",
        backward=(
            r"\frac{\partial \ell}{\partial \beta} = \sum \frac{\partial \ell}{\partial y}, "
            r"\qquad \frac{\partial \ell}{\partial \gamma} = "
            r"\sum \frac{\partial \ell}{\partial y} \hat{x}",
            r"\frac{\partial \ell}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} "
            r"\left( \frac{\partial \ell}{\partial y} - \frac{1}{m} \frac{\partial \ell}{\partial "
            r"\beta} - \frac{\hat{x}}{m} \frac{\partial \ell}{\partial \gamma} \right)",
        ),
        numpy=(
            ("batch_norm.batch_norm_forward_training", "batch_norm.batch_norm_forward_evaluation"),
            ("batch_norm.batch_norm_backward_training",),
        ),
        cuda=(
            ("batch_norm.batch_norm_statistics", "batch_norm.batch_norm_apply"),
            (
                "batch_norm.batch_norm_backward_sums",
                "batch_norm.batch_norm_backward_parameters",
                "batch_norm.batch_norm_backward_input",
            ),
        ),
    ),
    Operation(
        key="relu",
        title="Rectified linear unit",
        layers=("ReLU",),
        says="Negative values become zero; the gradient passes where the output is positive.",
        forward=r"y = \max(x, 0)",
        backward=(
            r"\frac{\partial \ell}{\partial x} = "
            r"\frac{\partial \ell}{\partial y} \, [\, y > 0 \,]",
        ),
        numpy=(("relu.relu_forward",), ("relu.relu_backward",)),
        cuda=(("relu.relu_forward",), ("relu.relu_backward",)),
    ),
    Operation(
        key="relu6",
        title="Rectified linear unit, cut off at 6",
        layers=("ReLU6",),
        says="Like ReLU, but capped at 6, where the gradient is 0 as well.",
        forward=r"y = \min(\max(x, 0), 6)",
        backward=(
            r"\frac{\partial \ell}{\partial x} = "
            r"\frac{\partial \ell}{\partial y} \, [\, 0 < y < 6 \,]",
        ),
        numpy=(("relu6.relu6_forward",), ("relu6.relu6_backward",)),
        cuda=(("relu6.relu6_forward",), ("relu6.relu6_backward",)),
    ),
    Operation(
        key="add",
        title="Addition",
        layers=("Add",),
        says="The sum at the end of a residual block; the block's ReLU follows it.",
        forward=r"y = x + f(x)",
        backward=(
            r"\frac{\partial \ell}{\partial x} = \frac{\partial \ell}{\partial f} = "
            r"\frac{\partial \ell}{\partial y} \quad \text{(along each of the two ways)}",
        ),
        numpy=(("add.add_forward",), ()),
        cuda=(("add.add_forward",), ()),
    ),
    Operation(
        key="max_pool",
        title="Max pooling",
        layers=("MaxPool",),
        says="The largest number of each window; its gradient goes to the pixel that won.",
        forward=r"y_{c,i,j} = \max_{a,b} x_{c,\; i s + a - p,\; j s + b - p}",
        backward=(
            r"\frac{\partial \ell}{\partial x_{c,r,q}} = \sum_{i,j} \frac{\partial \ell}{\partial "
            r"y_{c,i,j}} \, [\, (r, q) \text{ won the window of } (i, j) \,]",
        ),
        numpy=(
            ("pooling.max_pool_forward", "pooling._max_of_windows"),
            ("pooling.max_pool_backward",),
        ),
        cuda=(("pooling.max_pool_forward",), ("pooling.max_pool_backward",)),
    ),
    Operation(
        key="global_average_pool",
        title="Global average pooling",
        layers=("GlobalAveragePool",),
        says="The mean of each channel.",
        forward=r"y_c = \frac{1}{H W} \sum_{i,j} x_{c,i,j}",
        backward=(
            r"\frac{\partial \ell}{\partial x_{c,i,j}} = \frac{1}{H W} "
            r"\frac{\partial \ell}{\partial y_c}",
        ),
        numpy=(
            ("pooling.global_average_pool_forward",),
            ("pooling.global_average_pool_backward",),
        ),
        cuda=(
            ("pooling.global_average_pool_forward",),
            ("pooling.global_average_pool_backward",),
        ),
    ),
    Operation(
        key="linear",
        title="Fully connected layer",
        layers=("Linear",),
        says="One sum over all features for each class.",
        forward=r"y_k = \sum_i w_{k,i} \, x_i + b_k",
        backward=(
            r"\frac{\partial \ell}{\partial w_{k,i}} = \sum_n \frac{\partial \ell}{\partial "
            r"y_{n,k}} \, x_{n,i}, \qquad \frac{\partial \ell}{\partial b_k} = \sum_n "
            r"\frac{\partial \ell}{\partial y_{n,k}}",
            r"\frac{\partial \ell}{\partial x_i} = \sum_k w_{k,i} \, "
            r"\frac{\partial \ell}{\partial y_k}",
        ),
        numpy=(
            ("linear.linear_forward",),
            (
                "linear.linear_backward_input",
                "linear.linear_backward_weight",
                "linear.linear_backward_bias",
            ),
        ),
        cuda=(
            ("linear.linear_forward",),
            (
                "linear.linear_backward_input",
                "linear.linear_backward_weight",
                "linear.linear_backward_bias",
            ),
        ),
    ),
    Operation(
        key="softmax_cross_entropy",
        title="Softmax and cross-entropy",
        layers=("loss",),
        says="The loss of training: minus the logarithm of the probability of the right class.",
        forward=r"\ell = \frac{1}{N} \sum_n \left( \log \sum_k e^{z_{n,k}} - z_{n,t_n} \right)",
        backward=(
            r"\frac{\partial \ell}{\partial z_{n,k}} = \frac{1}{N} \left( \frac{e^{z_{n,k}}}"
            r"{\sum_{k'} e^{z_{n,k'}}} - [\, k = t_n \,] \right)",
        ),
        numpy=(
            ("softmax_cross_entropy.softmax_cross_entropy_forward",),
            ("softmax_cross_entropy.softmax_cross_entropy_backward",),
        ),
        cuda=(
            ("softmax_cross_entropy.softmax_forward", "softmax_cross_entropy.mean_loss"),
            ("softmax_cross_entropy.softmax_cross_entropy_backward",),
        ),
    ),
)


def operation_of(layer: str) -> Operation | None:
    """Return the operation of a layer's class, None if there is none for it."""
    return next((each for each in OPERATIONS if layer in each.layers), None)


def formula(latex: str, display: bool = True) -> Markup:
    """Return a formula as MathML."""
    return Markup(convert(latex, display="block" if display else "inline"))


def numpy_sources(names: Sequence[str]) -> list[Source]:
    """Return the lines of functions in igcnn.kernels, without what launches the CUDA kernel."""
    result = []
    for name in names:
        stem, _, function = name.partition(".")
        found: Any = getattr(import_module(f"igcnn.kernels.{stem}"), function)
        assert isinstance(found, FunctionType)
        lines, first = inspect.getsourcelines(found)
        html = _coloured("".join(lines), PythonLexer())
        result.append(Source(function, f"{stem}.py", first, "".join(lines), html))
    return result


def cuda_sources(names: Sequence[str]) -> list[Source]:
    """Return the lines of kernels, with the comment above each."""
    result = []
    for name in names:
        stem, _, kernel = name.partition(".")
        first, lines = kernel_lines(stem, kernel)
        text = "\n".join(lines) + "\n"
        result.append(Source(kernel, f"{stem}.cu", first, text, _coloured(text, CudaLexer())))
    return result


def colours() -> str:
    """Return the rules that colour source, for light pages and for dark ones."""
    light = HtmlFormatter(style="default").get_style_defs(".source")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".source")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _coloured(text: str, lexer: Any) -> Markup:
    return Markup(highlight(text, lexer, HtmlFormatter(nowrap=True)))
