"""The fixes of formgrader's scripts by our extension of the grader's server."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbgrader.server_extensions.formgrader.formgrader as stock
import pytest
from nbgrader.server_extensions.formgrader.handlers import static_path
from tornado.httputil import HTTPConnection, HTTPServerRequest
from tornado.web import Application

from autograder.record import formgrader

CHROMIUM = shutil.which("chromium")
SCRIPT = """() => {{
    const model = {model};
    const view = {{model: {{get: (key) => model[key] ?? null}}}};
    return (function () {{ {body}; return name; }}).call(view);
}}"""


class Connection(HTTPConnection):
    """A minimal connection for a request."""

    no_keep_alive = False
    context = SimpleNamespace(remote_ip="", protocol="http")


def test_formgraders_scripts_are_served_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "HTMLExporter", stock.HTMLExporter)
    server = SimpleNamespace(web_app=Application([], base_url="/services/c/"))
    formgrader._load_jupyter_server_extension(server)
    for name in formgrader.NAMELESS:
        # nbgrader's script still has the line that is replaced.
        assert Path(static_path, "js", name).read_text("utf-8").count(formgrader.NAME) == 1
        path = f"/services/c/formgrader/static/js/{name}"
        request = HTTPServerRequest("GET", path, connection=Connection())
        found = server.web_app.find_handler(request)
        assert found.handler_class is formgrader.NameScript
        assert found.handler_kwargs == {"name": name}


def test_it_is_on_in_every_jupyter_server_of_this_environment() -> None:
    folder = Path(sys.prefix, "etc", "jupyter", "jupyter_server_config.d")
    found = json.loads((folder / "autograder-formgrader.json").read_text("utf-8"))
    assert found["ServerApp"]["jpserver_extensions"] == {formgrader.__name__: True}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")
def test_who_has_no_name_is_called_by_the_account() -> None:
    from playwright.sync_api import sync_playwright

    def body(last: str, first: str) -> str:
        return f"let last_name = {last}, first_name = {first}; {formgrader.MENDED}"

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page()
        for last, first, model, shown in (
            ('"Lovelace"', '"Ada"', '{id: "ada"}', "Lovelace, Ada"),
            ('"None"', '"Ada"', '{id: "ada"}', "Ada"),
            ('"None"', '"None"', '{id: "ada"}', "ada"),
            # A submission's id is not the student's.
            ('"None"', '"None"', '{id: "5f3a", student: "ada"}', "ada"),
        ):
            script = SCRIPT.format(model=model, body=body(last, first))
            assert tab.evaluate(script) == shown
        chromium.close()
