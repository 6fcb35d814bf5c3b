"""nbgrader's configuration for everyone on the Hub: the exchange, and limits on submissions.

The student's own server reads this file, so a student can override it.  It keeps honest submissions
small and reports problems early; the autograder enforces the actual limits.
"""

import os

from nbgrader.auth import JupyterHubAuthPlugin
from nbgrader.exchange.default import ExchangeSubmit
from nbgrader.utils import find_all_notebooks, ignore_patterns

c = get_config()  # noqa: F821  nbgrader provides it

c.Exchange.root = os.environ.get("NBGRADER_EXCHANGE", "/srv/nbgrader/exchange")
c.Exchange.path_includes_course = True  # each course has its own folder in a student's home
if "JUPYTERHUB_USER" in os.environ:  # in a user's server, the Hub's groups give the courses
    c.Authenticator.plugin_class = JupyterHubAuthPlugin

# Validate runs the notebook on the student's own server, training included.
c.Execute.timeout = 1800

# Files that are not submitted.  Only the last checkpoint's tensors are graded.
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    "feedback",
    "mdc_session-[0-3]*",
    "*.meta",
]
c.CourseDirectory.max_file_size = 50_000  # kB; the tensors of chapter 4 are 39 300
c.CourseDirectory.max_dir_size = 60_000  # kB, of the submitted files


class BoundedSubmit(ExchangeSubmit):
    """`nbgrader submit` with a check of notebooks and sizes before it copies anything."""

    def do_copy(self, src, dest, log=None):
        """Copy the submission; the local copy in the cache gets the notebooks only."""
        include = self.coursedir.include
        try:
            if os.path.abspath(dest).startswith(os.path.abspath(self.cache_path) + os.sep):
                self.coursedir.include = ["*.ipynb"]  # enough to find the feedback later
            super().do_copy(src, dest, log)
        finally:
            self.coursedir.include = include

    def init_src(self):
        """Find the folder to submit; refuse it if it is too large."""
        super().init_src()
        limits = self.coursedir.max_file_size, self.coursedir.max_dir_size
        for path, size in self._travelling():
            if size > 1000 * limits[0]:
                self.fail(
                    f"Not submitted: {os.path.relpath(path, self.src_path)} has "
                    f"{size / 1e6:.1f} MB, and a file may have {limits[0] / 1e3:g} MB. "
                    "Move it out of the assignment's folder and submit again."
                )
        if self.get_size(self.src_path) > 1000 * limits[1]:
            largest, size = max(self._travelling(), key=lambda found: found[1])
            self.fail(
                f"Not submitted: the folder has {self.get_size(self.src_path) / 1e6:.1f} MB, and "
                f"{limits[1] / 1e3:g} MB may be handed in. Its largest file is "
                f"{os.path.relpath(largest, self.src_path)} ({size / 1e6:.1f} MB). Move what "
                "does not belong to the assignment out of the folder and submit again."
            )

    def check_filename_diff(self):
        """Refuse a folder without any notebook of the assignment; warn if some are missing."""
        wanted = sorted(find_all_notebooks(self.release_path))
        found = {os.path.relpath(path, self.src_path): size for path, size in self._travelling()}
        if not any(found.get(name) for name in wanted):
            others = [name for name in sorted(found) if name.endswith(".ipynb")]
            self.fail(
                f"Not submitted: none of the assignment's notebooks ({', '.join(wanted)}) is in "
                f"{self.src_path} with anything in it"
                + (f"; its notebooks are {', '.join(others[:5])}" if others else "")
                + ". Give them their names again, or move the folder away and fetch the "
                "assignment anew; then submit again."
            )
        super().check_filename_diff()

    def get_size(self, root):
        """Size in bytes of the files to copy; nbgrader's own count includes ignored files."""
        return sum(size for _, size in self._travelling())

    def _travelling(self):
        """(path, size in bytes) of every file to copy."""
        ignored = ignore_patterns(exclude=self.coursedir.ignore, include=self.coursedir.include)
        for folder, folders, files in os.walk(self.src_path, followlinks=True):
            left_out = set(ignored(folder, [*folders, *files]))
            folders[:] = [name for name in folders if name not in left_out]
            for name in set(files) - left_out:
                path = os.path.join(folder, name)
                yield path, os.path.getsize(path)


c.ExchangeFactory.submit = BoundedSubmit
