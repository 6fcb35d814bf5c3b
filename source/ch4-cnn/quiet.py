"""Imports a library without the lines about the machine that it logs on the way."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

__all__ = ["quiet"]

# "I0000 00:00:17… 42 port.cc:153] …" and "2026-01-31 12:00:00.5: I tensorflow/…] …".
# Libraries that register a part of CUDA twice call that an error; it is none.
_LOGGED = re.compile(
    rb"([IW]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: [IW] |"
    rb"WARNING: All log messages before absl::InitializeLog|"
    rb".*Unable to register cu\w+ factory)"
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what C++ libraries log as information or warning; show the rest at the end.

    They write to the process's own standard error, before any of their settings counts.
    When the import fails, everything is shown.
    """
    with contextlib.ExitStack() as files:
        try:
            kept = files.enter_context(tempfile.TemporaryFile())
            screen = os.dup(2)
        except OSError:  # no room, or no such stream: better noisy than not at all
            kept = None
        if kept is None:
            yield
            return
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            kept.seek(0)
            shown = [line for line in kept if failed or not _LOGGED.match(line)]
            sys.stderr.write(b"".join(shown).decode(errors="replace"))
