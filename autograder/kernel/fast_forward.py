"""Follows the training steps of a notebook's sessions, and may leave out all but the first ones.

`install(steps)` changes `Session.run`.  In every session the first `steps` training steps (see
`autograder.kernel.subgraph`) are computed, again after its variables were initialised, but never
more than `ANEW` times as many in all; later ones are counted, and of what they fetch only the rest
is computed, so that a loop of thousands of steps runs to its own end in seconds.  What
has been computed is not computed again: a fetch that depends on nothing but variables and feeds
is remembered until a variable changes, and a checkpoint of unchanged variables is a link to the
one before.

`journal_of(session)` tells how the values that its variables have now came about.  A value that
was restored brings along what is known of its checkpoint.

All of this shares a process with the student's code, and is no more than its claim.
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
KEPT_STEPS = 3  # whose feeds are kept
KEPT_BYTES = 8 << 20  # of one fed array
ENTRIES = 10_000  # of what is told of saves, and of evaluations
SEPARATED = 6  # large files, one of a checkpoint
CHECKPOINTS = 50  # of which it is known how they came about
REMEMBERED = 256  # fetches
REMEMBERED_BYTES = 1 << 20  # of one
LATER = 100  # milliseconds within which the clock of a file system goes on
SMALL_BYTES = 1 << 20  # of a file that is copied; a larger one gets another name
WHOLE_BYTES = 1 << 20  # up to which an array is recognised by all of its bytes
EVERY = 61  # of a larger one each so-many-th number counts: prime to the sides of images


@dataclass
class Journal:
    """How the values of a session's variables came about.

    steps: training steps since they were initialised.
    sizes: how many steps had a batch of so many rows.
    batches: checksums of some numbers of all batches.
    first: what was fed in the first steps, by the names of tensors.
    saves: (path as given, steps so far) of each checkpoint.
    evaluated: how many rows were fed to look at the network after so many steps.
    """

    steps: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    batches: set[int] = field(default_factory=set)
    first: list[dict[str, np.ndarray]] = field(default_factory=list)
    saves: list[tuple[str, int]] = field(default_factory=list)
    evaluated: Counter[int] = field(default_factory=Counter)

    def copy(self) -> Journal:
        """A journal that goes on by itself; what was fed is shared."""
        return replace(
            self,
            sizes=Counter(self.sizes),
            batches=set(self.batches),
            first=list(self.first),
            saves=list(self.saves),
            evaluated=Counter(self.evaluated),
        )


@dataclass(frozen=True)
class _Files:
    """Files with one beginning of their names, and what shows that they are still the same."""

    prefix: str
    marks: Mapping[str, tuple[int, ...]]  # by ending

    @classmethod
    def at(cls, prefix: str, *patterns: str) -> _Files:
        """Those with one of the endings."""
        paths = [path for each in patterns for path in glob.glob(glob.escape(prefix) + each)]
        return cls(prefix, {path[len(prefix) :]: _mark(path) for path in paths})

    def link(self, prefix: str) -> bool:
        """Give them other names, too; whether that could be done."""
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
    """A copy that is younger than its source: who looks for the newest by its time finds it."""
    written = os.stat(source).st_mtime_ns
    for _ in range(LATER):
        shutil.copyfile(source, target)
        if os.stat(target).st_mtime_ns > written:
            break
        time.sleep(0.001)  # a file system counts in milliseconds


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
    saved: dict[str, tuple[int, _Files]] = field(default_factory=dict)  # by fetch, with version

    def changed(self) -> None:
        """A variable may have another value now."""
        self.version += 1
        self.remembered.clear()


_sessions: weakref.WeakKeyDictionary[Any, _Followed] = weakref.WeakKeyDictionary()
_checkpoints: dict[str, Journal] = {}  # by path: what was known when it was written
_exported: weakref.WeakKeyDictionary[Any, tuple[Any, _Files, Any]] = weakref.WeakKeyDictionary()
_links: dict[str, None] = {}  # files that share their content with another, the newest last
_most: int | None = None  # training steps that are computed
_done = 0  # training steps that were computed
_asked = False  # whether the checks ask, and everything is to be computed
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
    """What is known of a session."""
    return _sessions.setdefault(session, _Followed()).journal


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Meanwhile everything is computed, and nothing counted."""
    global _asked
    before, _asked = _asked, True
    try:
        yield
    finally:
        _asked = before


def separate() -> None:
    """Make files of their own of the newest checkpoints, as many as a Saver keeps by itself.

    A grader reads no file that has other names.
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
    __tracebackhide__ = True  # a student's traceback ends in TensorFlow, as it does without us
    state = _sessions.setdefault(self, _Followed())
    compute = functools.partial(_run, self, fetches, feed_dict, options, run_metadata)
    try:
        request = _Request.of(self, fetches, feed_dict, compute)
    except Exception:  # nothing that can be followed; the session itself says what is wrong
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

    leaves: the tensors and operations in `fetches`, and parts: what each of them does.
    fed: the feed by names of tensors, as arrays.
    compute: the call itself.
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
        """Raises whatever TensorFlow does when something in it is not of the session's graph."""
        graph = session.graph
        leaves = [graph.as_graph_element(leaf) for leaf in _flat(fetches)]
        parts = [of_graph(graph).behind(getattr(leaf, "op", leaf)) for leaf in leaves]
        fed = {
            graph.as_graph_element(key, allow_operation=False).name: np.asarray(value)
            for key, value in (feed_dict or {}).items()
        }
        return cls(session, fetches, feed_dict, compute, leaves, parts, fed)

    def any(self, what: str) -> bool:
        """Whether one of the parts has this."""
        return any(getattr(part, what) for part in self.parts)

    @property
    def changes(self) -> set[str]:
        """Names of the variables that may get other values."""
        return {name for part in self.parts for name in part.changes}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """What is fed and is no text."""
        fed = sorted(self.fed.items())
        return {name: array for name, array in fed if array.dtype.kind in "biuf"}

    @property
    def rows(self) -> int:
        """The largest number of rows among what is fed."""
        return max((len(array) for array in self.numbers.values() if array.ndim), default=0)

    @property
    def path(self) -> str:
        """The one text that is fed: where a Saver writes or reads."""
        texts = [a for a in self.fed.values() if a.dtype.kind in "SUO" and not a.ndim]
        return os.fsdecode(texts[0].item()) if len(texts) == 1 else ""

    def packed(self, values: list[Any]) -> Any:
        """Values of the leaves in the arrangement of `fetches`; None for operations."""
        return _packed(
            self.fetches,
            iter(
                None if isinstance(leaf, tf.Operation) else value
                for leaf, value in zip(self.leaves, values, strict=True)
            ),
        )


def _step(state: _Followed, request: _Request) -> Any:
    """A training step: computed while it is one of the first, and counted."""
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
    numbers, checksum = request.numbers, 0
    for array in numbers.values():
        checksum = zlib.adler32(_some(array), checksum)
    journal.batches.add(checksum)
    if len(journal.first) < KEPT_STEPS:
        small = {name: array for name, array in numbers.items() if array.nbytes <= KEPT_BYTES}
        journal.first.append(copy.deepcopy(small))
    return values


def _without_applying(state: _Followed, request: _Request) -> Any:
    """What is fetched beside the step itself."""
    __tracebackhide__ = True
    known = of_graph(request.session.graph)
    try:
        instead = [
            known.without_applying(leaf) if part.applying else [leaf]
            for leaf, part in zip(request.leaves, request.parts, strict=True)
        ]
    except Exception:  # a graph that cannot be taken apart
        state.changed()
        return request.compute()
    if any(part.writing - part.applying for part in request.parts):
        state.changed()
    found = _run(request.session, instead, request.feed_dict)
    return request.packed([values[0] if values else None for values in found])


def _write(state: _Followed, request: _Request) -> Any:
    """Variables get other values; the journal is about the new ones."""
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
    """A checkpoint; where no variable has changed since the last one, it is that one's files."""
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
    """Values that are the same as long as no variable changes."""
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
    """What tells an array from others; of a large one also where it lies in memory."""
    if array.dtype.kind not in "biuf":
        return array.dtype.str, repr(array.tolist())
    if array.nbytes <= WHOLE_BYTES:
        return array.dtype.str, array.shape, zlib.crc32(_bytes(array))
    place = array.__array_interface__["data"][0], array.strides
    return array.dtype.str, array.shape, place, zlib.crc32(_some(array))


def _some(array: np.ndarray) -> memoryview:
    """Some of its numbers, few enough to look at in every step."""
    return _bytes(array.reshape(-1)[::EVERY] if array.flags.c_contiguous else array[::EVERY])


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data


def _make_callable(
    self: Any, fetches: Any, feed_list: Any = None, accept_options: bool = False
) -> Callable[..., Any]:
    """What `Session.make_callable` promises, by `Session.run`."""

    def call(*values: Any, **options: Any) -> Any:
        return self.run(fetches, dict(zip(feed_list or (), values, strict=True)), **options)

    return call


@functools.wraps(_export)
def _export_once(self: Any, filename: Any = None, *args: Any, **options: Any) -> Any:
    """The graph that lies beside a checkpoint; an unchanged one is not written again."""
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
    """What lies in lists, tuples and mappings, however deep, in order."""
    if isinstance(fetches, list | tuple):
        for item in fetches:
            yield from _flat(item)
    elif isinstance(fetches, Mapping):
        for item in fetches.values():
            yield from _flat(item)
    else:
        yield fetches


def _packed(fetches: Any, values: Iterator[Any]) -> Any:
    """The inverse of `_flat`: values in the arrangement of `fetches`."""
    if isinstance(fetches, tuple) and hasattr(fetches, "_fields"):
        return type(fetches)(*(_packed(item, values) for item in fetches))
    if isinstance(fetches, list | tuple):
        return type(fetches)(_packed(item, values) for item in fetches)
    if isinstance(fetches, Mapping):
        return {key: _packed(item, values) for key, item in fetches.items()}
    return next(values)
