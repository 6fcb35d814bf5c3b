"""Formgrader in a browser tab of its own, on a Hub: an extension of the grader's Jupyter server.

Stock formgrader makes links to notebooks and folders for a server at the root of its address,
and the Course List opens it in a frame inside JupyterLab, where a Hub service that nobody may
frame stays blank.  Both are put right here, in the server that runs formgrader.
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
    server.web_app.add_handlers(".*$", [(script, LinkScript)])
    headers = server.web_app.settings.get("headers", {})
    if "frame-ancestors 'self'" not in headers.get("Content-Security-Policy", ""):
        rule = Rule(_InLab(url_path_join(base, "lab")), OwnTab)
        server.web_app.default_router.rules.insert(0, rule)
