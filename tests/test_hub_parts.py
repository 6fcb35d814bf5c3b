"""What the Hub is made of, one at a time; tests/test_hub.py has it all together."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from submissions import ROOT
from traitlets.config.loader import PyFileConfigLoader

from hub import accounts, environment


def test_sharing_leaves_the_source_alone_and_makes_all_of_it_readable(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True, mode=0o700)
    modes = {"open": 0o644, "closed": 0o600, "inner/program": 0o700, "inner/left": 0o644}
    for name, mode in modes.items():
        (source / name).write_text(name)
        (source / name).chmod(mode)
    (source / "link").symlink_to("open")
    environment.share(source, target, ["left"])
    assert {p.relative_to(target).as_posix() for p in target.rglob("*")} == {
        "open", "closed", "link", "inner", "inner/program",
    }  # fmt: skip
    assert (target / "link").is_symlink()
    for name in ("open", "closed", "inner/program"):
        assert (target / name).read_text() == name
        assert (target / name).stat().st_mode & stat.S_IROTH
        assert stat.S_IMODE((source / name).stat().st_mode) == modes[name]
    assert (target / "inner").stat().st_mode & 0o005 == 0o005
    assert (target / "inner" / "program").stat().st_mode & stat.S_IXOTH
    assert (target / "open").samefile(source / "open"), "what all may read is not copied"
    assert not (target / "closed").samefile(source / "closed")


@pytest.mark.parametrize(("mode", "public"), [(0o755, True), (0o711, True), (0o700, False)])
def test_a_program_is_public_when_all_folders_above_are(
    tmp_path: Path, mode: int, public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = Path(tmp_path.anchor, "tmp") if os.geteuid() == 0 else tmp_path
    folder = above / f"kit-public-{os.getpid()}-{mode:o}"
    folder.mkdir()
    try:
        program = folder / "program"
        program.touch(0o755)
        folder.chmod(mode)
        if above == tmp_path:
            pytest.skip("needs a folder that everybody may enter")
        assert environment.is_public(program) is public
    finally:
        folder.chmod(0o700)
        program.unlink()
        folder.rmdir()


def test_students_and_course_leave_out_the_same_files() -> None:
    """Students' servers cannot read the course's configuration, so the list stands twice."""
    course = PyFileConfigLoader("nbgrader_config.py", str(ROOT)).load_config()
    folder = ROOT / "hub" / "jupyter" / "everyone"
    everyone = PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()
    own = {".autograder", "results.json"}  # only in the course's folder
    assert set(everyone.CourseDirectory.ignore) == set(course.CourseDirectory.ignore) - own
    assert everyone.Execute.timeout == course.Execute.timeout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make accounts")
def test_accounts_of_a_demonstration_that_was_killed_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / f"{accounts.PREFIX}killed"
    name = f"kit-x{os.getpid()}"
    child = os.fork()
    if child == 0:
        folder.mkdir()
        accounts.create([name], {f"{accounts.GROUP_PREFIX}{name}": [name]}, folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (folder / "homes" / name).is_dir()
    assert name in Path("/etc/passwd").read_text()
    accounts.remove_stale()
    assert not folder.exists()
    assert name not in Path("/etc/passwd").read_text()
    assert name not in Path("/etc/group").read_text()
