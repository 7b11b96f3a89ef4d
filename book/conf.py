"""Sphinx configuration of the book; run from the root of the checkout with ``-c book``."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

from function_page import expand  # noqa: E402
from patch_lexer import PatchLexer  # noqa: E402
from stage_pages import PAGES  # noqa: E402

from vswap_ref import __version__  # noqa: E402

project = "vswap_ref"
author = "The vswap_ref authors"
copyright = "2026, the vswap_ref authors; code BSD-3-Clause, prose CC BY 4.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_external_toc",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
]
external_toc_path = str(Path(__file__).parent / "_toc.yml")
exclude_patterns = [
    "_build",
    ".venv",
    "notebooks/*.md",
    "tests",
    "data",
    "dist",
    "*.md",
    ".pytest_cache",
    ".hypothesis",
    ".ruff_cache",
    ".mypy_cache",
    "**/.ipynb_checkpoints",
    "vswap_ref",
    "benchmarks",
]
nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "pydata_sphinx_theme"
html_title = "vswap_ref"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_prev_next": True,
    "navbar_center": [],
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
templates_path = ["templates"]
html_sidebars = {"**": ["toc"]}
html_show_sourcelink = False
html_copy_source = False

ASSETS = ROOT / "_build" / "assets"
if (ASSETS / ".done").exists():
    html_static_path.append(str(ASSETS))
    mathjax_path = "mathjax/tex-chtml.js"
    nb_ipywidgets_js = {"require.js": {}, "embed-amd.js": {"data-jupyter-widgets-cdn": "", "crossorigin": "anonymous"}}
else:
    print("the pages will load MathJax and the widget manager from their CDN (no npm, no local copies)")


MADE = {"book/functions": expand, **PAGES}


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page that is made from the code gets its content when it is read, which it is at every build."""
    if docname in MADE:
        source[0] = MADE[docname](source[0])


def setup(app: Sphinx) -> None:
    """Cells are highlighted as Python, also below ``%%patch``; some pages are made from the code."""
    app.connect("source-read", fill_page)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: list(MADE))
    for alias in ("python", "ipython", "ipython3"):
        app.add_lexer(alias, PatchLexer)
