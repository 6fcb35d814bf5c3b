"""The service: JupyterHub runs it as `python -m autograder.service` in the course root.

The Hub passes addresses and the token in the environment; all other settings are in
`nbgrader_config.py`.  The service's own token needs no role: visitors log in by OAuth, which also
gives their names and groups.  Instructors need the scope `access:services!service=<its name>`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import threading
from pathlib import Path

from autograder.course import Course
from autograder.errors import UserError, printable_lines
from autograder.machine import explained, settle_in


def main() -> None:
    """Serve until the Hub ends the process; print a configuration error as one line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("autograder").setLevel(logging.INFO)
    try:
        settle_in()
        serve()
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else explained(error)
        if not said:
            raise
        print(f"autograder: {said}", file=sys.stderr)
        raise SystemExit(2) from None


class _Printable(logging.Formatter):
    """Removes control characters from log records; they may hold names that students chose."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def serve() -> None:
    """Poll the exchange and serve the page until a signal arrives."""
    from tornado.ioloop import IOLoop

    from autograder.engine.pool import Engine
    from autograder.record.gradebook import Gradebook
    from autograder.service.reconcile import Reconciler
    from autograder.service.records import only_service, own_scratch
    from autograder.service.settings import Settings
    from autograder.service.web import address, application

    course = Course.at(Path.cwd())
    host, port = address(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
    gradebook = Gradebook(course)
    settings = Settings.of(course, gradebook.config)
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/")
    with only_service(course):
        scratch = own_scratch(course)
        engines = [Engine(course, jobs=1) for _ in range(settings.jobs)]
        loop = IOLoop.current()
        ended = threading.Event()
        with Reconciler(course, settings, engines, gradebook) as reconciler:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: loop.add_callback_from_signal(loop.stop))

            def work() -> None:
                reconciler.prepare()
                while not ended.wait(settings.poll_seconds):
                    reconciler.look()

            threading.Thread(target=work, daemon=True).start()
            application(reconciler, prefix, secrets.token_bytes(32)).listen(port, host)
            loop.start()
            # Work in progress has no answer yet, so the next start does it again.
            ended.set()
            for child in multiprocessing.active_children():
                child.kill()
            for engine in engines:
                engine.close()
            shutil.rmtree(scratch, ignore_errors=True)
            logging.shutdown()
            os._exit(0)


if __name__ == "__main__":
    main()
