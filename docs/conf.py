"""Configuration of the manual. `make docs` builds it into `build/docs`, with warnings as errors."""

from importlib.metadata import version as installed

project = "rlm_langchain"
author = "rlm-langchain contributors"
copyright = f"2026, {author}"
version = release = installed("rlm-langchain")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["tutorials/data"]
source_suffix = {".md": "markdown"}

# The pages are plain Markdown that reads well on a forge, too.
myst_heading_anchors = 4

# Docstrings are Markdown prose with names in single backticks.
default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"rlm_langchain {version}"
html_static_path = ["assets"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_selector = "div:not(.no-copy) > div.highlight > pre"

# For `make links`; those inside the manual are checked whenever it is built.
linkcheck_timeout = 20
linkcheck_anchors = False
