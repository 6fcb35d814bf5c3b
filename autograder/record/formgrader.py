"""Formgrader in a browser tab of its own, on a Hub: an extension of the grader's Jupyter server.

Stock formgrader makes links to notebooks and folders for a server at the root of its address,
and the Course List opens it in a frame inside JupyterLab, where a Hub service that nobody may
frame stays blank.  It calls a student whose name nobody has entered "None, None".  All of this is
put right here, in the server that runs formgrader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbgrader.server_extensions.formgrader.formgrader as stock
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from nbgrader.server_extensions.formgrader.handlers import static_path
from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule

from autograder.record.pages import PageExporter

# Appended to formgrader's own script, which may end without a semicolon, and wraps its `linkTo`.
LINKS = """;
(function () {
    const stock = linkTo;
    linkTo = function (type, path) {
        const link = stock(type, path);
        if (window !== window.top) {
            return link;
        }
        const lab = base_url.replace(/\\/formgrader$/, "") + "/lab/tree/";
        return (index, element) => $(link(index, element)).attr("href", lab + encodeURI(path))[0];
    };
})();
"""


# Formgrader's scripts that call a student without a name "None, None", and what they say instead.
NAMELESS = ("manage_students.js", "manage_submissions.js")
NAME = 'var name = last_name + ", " + first_name;'
MENDED = (
    'var name = [last_name, first_name].filter((part) => part && part !== "None").join(", ")'
    ' || this.model.get("student") || this.model.get("id");'
)


class NameScript(JupyterHandler):
    """Serves a script of formgrader's that shows students, mended."""

    def initialize(self, name: str) -> None:
        """Take the name of the script."""
        self.name = name

    @web.authenticated
    def get(self) -> None:
        """Write the installed script, in which who has no name is called by the account."""
        text = Path(static_path, "js", self.name).read_text(encoding="utf-8")
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(text.replace(NAME, MENDED))


class LinkScript(JupyterHandler):
    """Serves formgrader's script for links, mended."""

    @web.authenticated
    def get(self) -> None:
        """Write the installed script and what makes its links complete."""
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(Path(static_path, "js", "utils.js").read_text(encoding="utf-8") + LINKS)


class OwnTab(JupyterHandler):
    """Answers a wish for formgrader inside JupyterLab with formgrader itself."""

    @web.authenticated
    def get(self) -> None:
        """Redirect to formgrader."""
        self.redirect(url_path_join(self.base_url, "formgrader"))


class _InLab(Matcher):
    """The address under which the Course List looks for formgrader."""

    def __init__(self, path: str) -> None:
        self.path = path

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        wanted = request.path == self.path and "formgrader" in request.query_arguments
        return {} if wanted else None


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Mend formgrader; the server loads this extension before nbgrader's, by its name."""
    stock.HTMLExporter = PageExporter
    base = server.web_app.settings["base_url"]
    script = url_path_join(base, "formgrader/static/js/utils.js")
    scripts = [
        (url_path_join(base, f"formgrader/static/js/{name}"), NameScript, {"name": name})
        for name in NAMELESS
    ]
    server.web_app.add_handlers(".*$", [(script, LinkScript), *scripts])
    headers = server.web_app.settings.get("headers", {})
    if "frame-ancestors 'self'" not in headers.get("Content-Security-Policy", ""):
        rule = Rule(_InLab(url_path_join(base, "lab")), OwnTab)
        server.web_app.default_router.rules.insert(0, rule)
