"""Each operation's formula and the lines of source that compute it, for the page and the site."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import CudaLexer, PythonLexer

from ..cuda import kernel_lines
from .formula import formulas, to_mathml


@dataclass(frozen=True)
class Operation:
    """One operation, forward and backward.

    Attributes:
        key: for links.
        title: its name.
        layers: class names of the layers that it computes.
        says: what it does, in a sentence or two.
        stem: module of `igcnn.kernels` or `igcnn.layers` whose docstring has the formulas.
        numpy: names of the functions in `igcnn.kernels`, "stem.function": forward, backward.
        cuda: names of the kernels, "stem.kernel": forward, backward.
        block: which block of formulas in the docstring, from 0; None for all.
    """

    key: str
    title: str
    layers: tuple[str, ...]
    says: str
    stem: str
    numpy: tuple[tuple[str, ...], tuple[str, ...]]
    cuda: tuple[tuple[str, ...], tuple[str, ...]]
    block: int | None = None

    @property
    def forward(self) -> str:
        """The formula, as in the docstring."""
        return (" " * 8).join(formulas(self.stem, False, self.block))

    @property
    def backward(self) -> list[str]:
        """The formulas of its gradients, likewise."""
        return formulas(self.stem, True, self.block)


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
        stem="convolution",
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
        stem="interleaved_group_convolution",
        block=0,
        numpy=(
            ("interleaved_group_convolution.mix_forward",),
            (
                "interleaved_group_convolution.mix_backward_input",
                "interleaved_group_convolution.mix_backward_weight",
            ),
        ),
        cuda=(
            (
                "interleaved_group_convolution_v1.igc_forward_v1",
                "interleaved_group_convolution.igc_forward_v2",
            ),
            (
                "interleaved_group_convolution_v1.igc_backward_input_v1",
                "interleaved_group_convolution.igc_backward_input_v2",
                "interleaved_group_convolution_v1.igc_backward_weight_v1",
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
        stem="interleaved_product",
        numpy=((), ()),
        cuda=((), ()),
    ),
    Operation(
        key="permutation",
        title="Permutation",
        layers=("Permutation",),
        says="Channels read as b branches of C/b and written as C/b branches of b. Its inverse, "
        "and so its gradient, is Reorder(C/b). The networks fold it into the convolution.",
        stem="permutation",
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
        stem="batch_norm",
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
        stem="relu",
        numpy=(("relu.relu_forward",), ("relu.relu_backward",)),
        cuda=(("relu.relu_forward",), ("relu.relu_backward",)),
    ),
    Operation(
        key="relu6",
        title="Rectified linear unit, cut off at 6",
        layers=("ReLU6",),
        says="Like ReLU, but capped at 6, where the gradient is 0 as well.",
        stem="relu6",
        numpy=(("relu6.relu6_forward",), ("relu6.relu6_backward",)),
        cuda=(("relu6.relu6_forward",), ("relu6.relu6_backward",)),
    ),
    Operation(
        key="add",
        title="Addition",
        layers=("Add",),
        says="The sum at the end of a residual block; the block's ReLU follows it.",
        stem="add",
        numpy=(("add.add_forward",), ()),
        cuda=(("add.add_forward",), ()),
    ),
    Operation(
        key="max_pool",
        title="Max pooling",
        layers=("MaxPool",),
        says="The largest number of each window; its gradient goes to the pixel that won.",
        stem="pooling",
        block=0,
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
        stem="pooling",
        block=2,
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
        stem="linear",
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
        stem="softmax_cross_entropy",
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


def formula(text: str, display: bool = True) -> Markup:
    """Return a formula, in the notation of the sources or in LaTeX, as MathML."""
    return Markup(to_mathml(text, display))


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
