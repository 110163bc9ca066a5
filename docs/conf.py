"""The documentation: `sphinx-build -W docs site` writes it. It opens from disk, offline."""

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature, stringify_signature

import igcnn
from igcnn.inspection.page.formula import to_mathml
from igcnn.layers import Layer

project = "igcnn"
version = release = igcnn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

html_theme = "furo"
html_title = "igcnn"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"  # typeset here: no script, no font, nothing to download
html_static_path = ["site.css"]
html_css_files = ["site.css"]
pygments_style = "default"
pygments_dark_style = "github-dark"

smartquotes = False  # of "--"
default_role = "code"  # of `names` in docstrings
highlight_language = "none"  # of a block that names no language
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "groupwise"
autodoc_mock_imports = ["onnx", "safetensors", "torch"]  # only for some commands
napoleon_use_ivar = True  # attributes stand in the table of their class


class Formula(SphinxDirective):
    """The formulas of an operation, typeset; a test holds them to those in its docstring."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"gradient": directives.flag, "block": directives.nonnegative_int}

    def run(self):
        """Return one node a line."""
        return [nodes.math_block(line, line) for line in self.content]


def math_in_text(writer, node):
    """Write a formula within a text."""
    writer.body.append(to_mathml(node.astext(), display=False))
    raise nodes.SkipNode


def math_in_a_line(writer, node):
    """Write a formula in a line of its own."""
    writer.body.append(f'<div class="formula">{to_mathml(node.astext())}</div>')
    raise nodes.SkipNode


def arguments_of_layer(app, what, name, item, options, arguments, returns):
    """Return the arguments of a layer's __init__; its __new__ takes any."""
    if what == "class" and issubclass(item, Layer):
        found = signature(item.__init__, bound_method=True)
        options = {"show_return_annotation": False, "unqualified_typehints": True}
        return stringify_signature(found, **options), None
    return None


def dashes(app, tree):
    """Put a dash between a parameter and its description, which Sphinx leaves to smart quotes."""
    for text in tree.findall(nodes.Text):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app):
    """Register the directive and the renderer."""
    app.add_directive("formula", Formula)
    app.connect("doctree-read", dashes)
    app.connect("autodoc-process-signature", arguments_of_layer)
    app.add_html_math_renderer("mathml", (math_in_text, None), (math_in_a_line, None))
