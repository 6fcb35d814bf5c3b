"""Sphinx' settings for the site that `make docs` builds in docs/_build/html."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "Autograded course kit"
copyright = "2026, the authors of this course kit"
html_title = project

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "kit_site"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# Docstrings write code in single backticks.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = False
# Classes of others: their documentation is not looked up, so that the build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(np|numpy|pathlib|Path|collections|Callable|Mapping)\b.*")]

html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "logo": {"text": project},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
