"""Follows the training steps of a notebook's sessions, and can skip all but the first ones.

`install(steps)` patches `Session.run`.  Each session computes its first `steps` training steps (see
`autograder.kernel.subgraph`), and as many again after its variables were initialised, up to a total
of `ANEW` times `steps` in all sessions.  Later steps are counted, but only the other values that
they fetch are computed, so that a loop of thousands of steps reaches its own end in seconds.  With
such a limit, nothing is computed twice either: a fetch that depends only on variables and feeds is
cached until a variable changes, and a checkpoint of unchanged variables reuses the files of the one
before.

`journal_of(session)` says how its variables got their current values.  A restored value brings
along what is known of its checkpoint.

All of this shares a process with the student's code, so it is no more than a claim.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import glob
import os
import shutil
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import BaseSession

from autograder.kernel.subgraph import Subgraph, of_graph

ANEW = 10
KEPT_STEPS = 3  # steps whose feeds are kept
KEPT_BYTES = 8 << 20  # of one fed array
ENTRIES = 10_000  # most saves, and most evaluations, to record
SEPARATED = 6  # large files, one per checkpoint
CHECKPOINTS = 50  # checkpoints whose journals are kept
REMEMBERED = 256  # cached fetches
REMEMBERED_BYTES = 1 << 20  # of one cached fetch
LATER = 100  # milliseconds within which a file system's clock ticks
SMALL_BYTES = 1 << 20  # larger files are hard-linked rather than copied
WHOLE_BYTES = 1 << 20  # larger arrays are identified by a sample
EVERY = 61  # the stride of a sample: prime to the sides of images


@dataclass
class Journal:
    """How a session's variables got their values.

    Attributes:
        steps: training steps since they were initialised.
        sizes: number of rows in a batch → number of steps with such a batch.
        batches: checksums of a sample of each batch.
        first: the feeds of the first steps, by the names of tensors.
        saves: (path as given, steps so far) of each checkpoint.
        evaluated: steps so far → rows that were fed then without training on them.
        alongside: number of a step that fetched more than itself → rows that it was fed.

    """

    steps: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    batches: set[int] = field(default_factory=set)
    first: list[dict[str, np.ndarray]] = field(default_factory=list)
    saves: list[tuple[str, int]] = field(default_factory=list)
    evaluated: Counter[int] = field(default_factory=Counter)
    alongside: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Journal:
        """An independent copy; only the fed arrays are shared."""
        return replace(
            self,
            sizes=Counter(self.sizes),
            batches=set(self.batches),
            first=list(self.first),
            saves=list(self.saves),
            evaluated=Counter(self.evaluated),
            alongside=dict(self.alongside),
        )


@dataclass(frozen=True)
class _Files:
    """Files with a common prefix, and marks that show whether they are unchanged."""

    prefix: str
    marks: Mapping[str, tuple[int, ...]]  # by suffix

    @classmethod
    def at(cls, prefix: str, *patterns: str) -> _Files:
        """The files with one of these suffixes."""
        paths = [path for each in patterns for path in glob.glob(glob.escape(prefix) + each)]
        return cls(prefix, {path[len(prefix) :]: _mark(path) for path in paths})

    def link(self, prefix: str) -> bool:
        """Give the files another prefix as well; returns whether that worked."""
        if not self.marks or prefix == self.prefix:
            return False
        try:
            for ending, mark in self.marks.items():
                if _mark(self.prefix + ending) != mark:
                    return False
                with contextlib.suppress(FileNotFoundError):
                    os.remove(prefix + ending)
                if mark[1] <= SMALL_BYTES:
                    _copy_later(self.prefix + ending, prefix + ending)
                    continue
                os.link(self.prefix + ending, prefix + ending)
                for path in (self.prefix + ending, prefix + ending):
                    _links.pop(path, None)
                    _links[path] = None
        except OSError:
            return False
        return True


def _copy_later(source: str, target: str) -> None:
    """Copy a file so that the copy is newer: code may look for the newest by its time."""
    written = os.stat(source).st_mtime_ns
    for _ in range(LATER):
        shutil.copyfile(source, target)
        if os.stat(target).st_mtime_ns > written:
            break
        time.sleep(0.001)  # file times advance in milliseconds


def _mark(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass
class _Followed:
    """What is known of one session."""

    journal: Journal = field(default_factory=Journal)
    trained: set[str] = field(default_factory=set)  # names of the variables that steps change
    version: int = 0  # of the variables
    remembered: dict[Any, list[Any]] = field(default_factory=dict)
    saved: dict[str, tuple[int, _Files]] = field(default_factory=dict)  # by fetch, with the version

    def changed(self) -> None:
        """Note that a variable may have a new value."""
        self.version += 1
        self.remembered.clear()


_sessions: weakref.WeakKeyDictionary[Any, _Followed] = weakref.WeakKeyDictionary()
_checkpoints: dict[str, Journal] = {}  # by path: the journal when it was written
_exported: weakref.WeakKeyDictionary[Any, tuple[Any, _Files, Any]] = weakref.WeakKeyDictionary()
_links: dict[str, None] = {}  # hard-linked files, newest last
_most: int | None = None  # training steps to compute; None for all
_done = 0  # training steps computed, in all sessions
_asked = False  # whether the checks are asking, so that everything is computed
_run: Callable[..., Any] = BaseSession.run
_export: Callable[..., Any] = tf.train.Saver.export_meta_graph


def install(steps: int | None) -> None:
    """Follow all sessions of this process; compute `steps` training steps, or all of them."""
    global _most
    _most = steps
    BaseSession.run = _followed_run
    BaseSession.make_callable = _make_callable
    if steps is not None:
        tf.train.Saver.export_meta_graph = _export_once


def journal_of(session: Any) -> Journal:
    """The journal of a session."""
    return _sessions.setdefault(session, _Followed()).journal


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Compute everything and count nothing until the block ends."""
    global _asked
    before, _asked = _asked, True
    try:
        yield
    finally:
        _asked = before


def separate() -> None:
    """Turn the newest hard links into separate files, as many as a Saver keeps by default.

    The grader refuses to read a file with a second name.
    """
    for path in list(_links)[-SEPARATED:]:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_nlink > 1:
                shutil.copyfile(path, f"{path}.own")
                os.replace(f"{path}.own", path)
    _links.clear()


# -- running -----------------------------------------------------------------------------------


@functools.wraps(_run)
def _followed_run(
    self: Any, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
) -> Any:
    __tracebackhide__ = True  # hides this frame from a student's traceback
    state = _sessions.setdefault(self, _Followed())
    compute = functools.partial(_run, self, fetches, feed_dict, options, run_metadata)
    try:
        request = _Request.of(self, fetches, feed_dict, compute)
    except Exception:  # not a call that can be followed; the session reports the error
        state.changed()
        return compute()
    if request.any("applying"):
        return _step(state, request)
    if request.any("writing"):
        return _write(state, request)
    if request.any("saves"):
        return _save(state, request)
    if not _asked and len(state.journal.evaluated) < ENTRIES:
        state.journal.evaluated[state.journal.steps] += request.rows
    measured = options is not None or run_metadata is not None
    if _most is None or _asked or measured or request.any("varies"):
        return compute()
    return _look(state, request)


@dataclass(frozen=True)
class _Request:
    """One call of `Session.run`.

    Attributes:
        session: the session.
        fetches: as given.
        feed_dict: as given.
        compute: makes the original call.
        leaves: the tensors and operations in `fetches`.
        parts: what each of the leaves does.
        fed: the fed arrays, by the names of tensors.

    """

    session: Any
    fetches: Any
    feed_dict: Any
    compute: Callable[[], Any]
    leaves: list[Any]
    parts: list[Subgraph]
    fed: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, session: Any, fetches: Any, feed_dict: Any, compute: Callable[[], Any]) -> _Request:
        """Analyse a call.  Raises TensorFlow's errors for anything outside the session's graph."""
        graph = session.graph
        leaves = [graph.as_graph_element(leaf) for leaf in _flat(fetches)]
        parts = [of_graph(graph).behind(getattr(leaf, "op", leaf)) for leaf in leaves]
        fed = {
            graph.as_graph_element(key, allow_operation=False).name: np.asarray(value)
            for key, value in (feed_dict or {}).items()
        }
        return cls(session, fetches, feed_dict, compute, leaves, parts, fed)

    def any(self, what: str) -> bool:
        """Whether one of the parts has this attribute set."""
        return any(getattr(part, what) for part in self.parts)

    @property
    def changes(self) -> set[str]:
        """Names of the variables that may get new values."""
        return {name for part in self.parts for name in part.changes}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The fed arrays that are not text."""
        fed = sorted(self.fed.items())
        return {name: array for name, array in fed if array.dtype.kind in "biuf"}

    @property
    def rows(self) -> int:
        """The largest number of rows among the fed arrays."""
        return max((len(array) for array in self.numbers.values() if array.ndim), default=0)

    @property
    def path(self) -> str:
        """The only text that is fed: where a Saver writes or reads; "" unless there is just one."""
        texts = [a for a in self.fed.values() if a.dtype.kind in "SUO" and not a.ndim]
        return os.fsdecode(texts[0].item()) if len(texts) == 1 else ""

    def packed(self, values: list[Any]) -> Any:
        """The values of the leaves in the structure of `fetches`; None for operations."""
        return _packed(
            self.fetches,
            iter(
                None if isinstance(leaf, tf.Operation) else value
                for leaf, value in zip(self.leaves, values, strict=True)
            ),
        )


def _step(state: _Followed, request: _Request) -> Any:
    """Count a training step, and compute it if it is one of the first."""
    global _done
    __tracebackhide__ = True
    journal = state.journal
    if _asked or _most is None or (journal.steps < _most and _done < ANEW * _most):
        _done += not _asked
        state.changed()
        values = request.compute()
    else:
        values = _without_applying(state, request)
    if _asked:
        return values
    state.trained |= request.changes
    journal.steps += 1
    journal.sizes[request.rows] += 1
    if len(request.leaves) > 1 and len(journal.alongside) < ENTRIES:
        journal.alongside[journal.steps] = request.rows
    numbers, checksum = request.numbers, 0
    for array in numbers.values():
        checksum = zlib.adler32(_some(array), checksum)
    journal.batches.add(checksum)
    if len(journal.first) < KEPT_STEPS:
        small = {name: array for name, array in numbers.items() if array.nbytes <= KEPT_BYTES}
        journal.first.append(copy.deepcopy(small))
    return values


def _without_applying(state: _Followed, request: _Request) -> Any:
    """Compute whatever is fetched besides the step itself."""
    __tracebackhide__ = True
    known = of_graph(request.session.graph)
    try:
        instead = [
            known.without_applying(leaf) if part.applying else [leaf]
            for leaf, part in zip(request.leaves, request.parts, strict=True)
        ]
    except Exception:  # the graph cannot be taken apart
        state.changed()
        return request.compute()
    if any(part.writing - part.applying for part in request.parts):
        state.changed()
    found = _run(request.session, instead, request.feed_dict)
    return request.packed([values[0] if values else None for values in found])


def _write(state: _Followed, request: _Request) -> Any:
    """Let variables get new values; the journal then describes the new ones."""
    __tracebackhide__ = True
    state.changed()
    values = request.compute()
    if _asked:
        return values
    if request.any("restores"):
        known = _checkpoints.get(os.path.abspath(request.path), Journal())
        state.journal = known.copy()
    elif request.changes & state.trained:
        state.journal = Journal()
    return values


def _save(state: _Followed, request: _Request) -> Any:
    """Write a checkpoint, or reuse the last one's files if no variable has changed since."""
    __tracebackhide__ = True
    name, path = request.leaves[0].name, request.path
    version, files = state.saved.get(name, (-1, _Files("", {})))
    quick = _most is not None and len(request.leaves) == 1 and version == state.version
    if quick and path and files.link(path):
        values = request.packed([os.fsencode(path)])
    else:
        values = request.compute()
    if path:
        state.saved[name] = state.version, _Files.at(path, ".index", ".data-*-of-*")
    if path and not _asked and len(state.journal.saves) < ENTRIES:
        state.journal.saves.append((path, state.journal.steps))
        _checkpoints[os.path.abspath(path)] = state.journal.copy()
        if len(_checkpoints) > CHECKPOINTS:
            del _checkpoints[next(iter(_checkpoints))]
    return values


def _look(state: _Followed, request: _Request) -> Any:
    """Compute values that stay the same until a variable changes, or take them from the cache."""
    __tracebackhide__ = True
    key = (
        tuple((type(leaf), leaf.name) for leaf in request.leaves),
        tuple((name, _content(array)) for name, array in sorted(request.fed.items())),
    )
    if key in state.remembered:
        return request.packed(copy.deepcopy(state.remembered[key]))
    values = request.compute()
    found = list(_flat(values))
    size = sum(getattr(value, "nbytes", 0) for value in found)
    if len(state.remembered) < REMEMBERED and size <= REMEMBERED_BYTES:
        state.remembered[key] = copy.deepcopy(found)
    return values


def _content(array: np.ndarray) -> tuple[Any, ...]:
    """A key that identifies an array; for a large one it includes the place in memory."""
    if array.dtype.kind not in "biuf":
        return array.dtype.str, repr(array.tolist())
    if array.nbytes <= WHOLE_BYTES:
        return array.dtype.str, array.shape, zlib.crc32(_bytes(array))
    place = array.__array_interface__["data"][0], array.strides
    return array.dtype.str, array.shape, place, zlib.crc32(_some(array))


def _some(array: np.ndarray) -> memoryview:
    """A sample of an array's numbers, small enough to read in every step."""
    return _bytes(array.reshape(-1)[::EVERY] if array.flags.c_contiguous else array[::EVERY])


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data


def _make_callable(
    self: Any, fetches: Any, feed_list: Any = None, accept_options: bool = False
) -> Callable[..., Any]:
    """Replace `Session.make_callable` with a function that calls `Session.run`."""

    def call(*values: Any, **options: Any) -> Any:
        return self.run(fetches, dict(zip(feed_list or (), values, strict=True)), **options)

    return call


@functools.wraps(_export)
def _export_once(self: Any, filename: Any = None, *args: Any, **options: Any) -> Any:
    """Write the graph beside a checkpoint; an unchanged graph is not written again."""
    if not isinstance(filename, str):
        return _export(self, filename, *args, **options)
    of = repr((id(tf.get_default_graph()), tf.get_default_graph().version, args, options))
    before, files, made = _exported.get(self, ("", _Files("", {}), None))
    if before != of or not files.link(filename):
        made = _export(self, filename, *args, **options)
    _exported[self] = of, _Files.at(filename, ""), made
    return made


# -- fetches -----------------------------------------------------------------------------------


def _flat(fetches: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and mappings, in order."""
    if isinstance(fetches, list | tuple):
        for item in fetches:
            yield from _flat(item)
    elif isinstance(fetches, Mapping):
        for item in fetches.values():
            yield from _flat(item)
    else:
        yield fetches


def _packed(fetches: Any, values: Iterator[Any]) -> Any:
    """The inverse of `_flat`: values in the structure of `fetches`."""
    if isinstance(fetches, tuple) and hasattr(fetches, "_fields"):
        return type(fetches)(*(_packed(item, values) for item in fetches))
    if isinstance(fetches, list | tuple):
        return type(fetches)(_packed(item, values) for item in fetches)
    if isinstance(fetches, Mapping):
        return {key: _packed(item, values) for key, item in fetches.items()}
    return next(values)
