"""nbgrader's page templates, configured as in formgrader and `generate_feedback`."""

from __future__ import annotations

from pathlib import Path

from nbgrader.server_extensions.formgrader import handlers
from traitlets.config import Config


def settings_of(template: str) -> Config:
    """The configuration with which nbgrader renders one of its templates."""
    folder = Path(handlers.template_path)
    settings = Config()
    settings.HTMLExporter.sanitize_html = True
    settings.HTMLExporter.template_name = template
    settings.HTMLExporter.extra_template_basedirs = [str(folder)]
    settings.HTMLExporter.extra_template_paths = [
        str(folder.parent / "static/node_modules/bootstrap/dist/css")
    ]
    return settings
