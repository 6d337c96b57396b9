"""How the documentation is built. The build and the pages need no network: no intersphinx, no remote fonts or scripts."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "session_reuse"
author = "The session_reuse authors"
copyright = "The session_reuse authors"  # noqa: A001  (the name that Sphinx asks for)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "session_reuse"
html_static_path = ["_static"]
html_css_files = ["diagrams.css"]

default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_exclude = ".linenos, .gp, .go"

# The blocking twins have the names of the asynchronous classes, and annotations do not distinguish them.
suppress_warnings = ["ref.python"]

# Other projects' classes have no page here, and none may be fetched to link to them.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!session_reuse).*"),
    (
        r"py:.*",
        r"session_reuse\.(_|browsers|config\.ConfigOptions).*",
    ),
]

INDEX_PAGES = {"index", "how-to/index", "reference/index", "explanation/index"}


def add_contents(_: Any, page: str, source: list[str]) -> None:
    """Make the table of contents from the links of an index page, so that a code host shows no directive."""
    if page in INDEX_PAGES:
        links = dict.fromkeys(re.findall(r"\]\(([\w/-]+)\.md\)", source[0]))
        source[0] += "\n```{toctree}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(links) + "\n```\n"


def setup(app: Any) -> None:
    """Register the hook. Sphinx calls this."""
    app.connect("source-read", add_contents)
