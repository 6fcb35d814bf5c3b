"""A Jupyter server extension that fixes formgrader on a Hub.

Stock formgrader builds links to notebooks and folders as if the server ran at the root of its host.
The Course List opens it in a frame inside JupyterLab, where a Hub service that forbids framing
stays blank; here it opens in its own tab.  Students without a name appear as "None, None".  The
extension runs in the server that serves formgrader.
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

# Appended to formgrader's own script to wrap `linkTo`; that script may end without a semicolon.
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


# Formgrader's scripts that show a nameless student as "None, None", and the line to replace.
NAMELESS = ("manage_students.js", "manage_submissions.js")
NAME = 'var name = last_name + ", " + first_name;'
MENDED = (
    'var name = [last_name, first_name].filter((part) => part && part !== "None").join(", ")'
    ' || this.model.get("student") || this.model.get("id");'
)


class NameScript(JupyterHandler):
    """Serves a patched version of a formgrader script that shows students."""

    def initialize(self, name: str) -> None:
        """Store the name of the script."""
        self.name = name

    @web.authenticated
    def get(self) -> None:
        """Write the installed script, changed to show the account of a student without a name."""
        text = Path(static_path, "js", self.name).read_text(encoding="utf-8")
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(text.replace(NAME, MENDED))


class LinkScript(JupyterHandler):
    """Serves a patched version of formgrader's script for links."""

    @web.authenticated
    def get(self) -> None:
        """Write the installed script, followed by `LINKS`."""
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(Path(static_path, "js", "utils.js").read_text(encoding="utf-8") + LINKS)


class OwnTab(JupyterHandler):
    """Redirects a request for formgrader inside JupyterLab to formgrader itself."""

    @web.authenticated
    def get(self) -> None:
        """Redirect to formgrader."""
        self.redirect(url_path_join(self.base_url, "formgrader"))


class _InLab(Matcher):
    """Matches the address at which the Course List opens formgrader."""

    def __init__(self, path: str) -> None:
        self.path = path

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        wanted = request.path == self.path and "formgrader" in request.query_arguments
        return {} if wanted else None


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Patch formgrader; the server loads extensions by name, so this one before nbgrader's."""
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
