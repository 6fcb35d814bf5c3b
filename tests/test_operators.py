"""Generated variants: mutations change a program's behaviour, rewritings keep it."""

from __future__ import annotations

import importlib
import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from autograder.audit.operators import mutation, rewriting
from autograder.audit.operators.code import Surroundings, Variant, change_of, does

MODULES = {"np": "numpy", "tf": "tensorflow.compat.v1"}
AROUND = Surroundings(MODULES)

# (operator, source, resulting variants).
MUTATIONS = [
    ("shift a number", "f(3)", ["f(4)", "f(2)"]),
    ("shift a number", "f(0.5)", ["f(0.75)", "f(0.25)"]),
    ("shift a number", "f(True)", ["f(False)"]),
    (
        "shift a number",
        "print(f'{a:.3f} {b + 1}')",
        ["print(f'{a:.3f} {b + 2}')", "print(f'{a:.3f} {b + 0}')"],
    ),
    ("replace a text", "pool(padding='SAME')", ["pool(padding='VALID')"]),
    ("replace a text", "for m in '|_+': f(m)", ["for m in '|_': f(m)"]),
    ("replace a function", "np.argmax(a)", ["np.argmin(a)", "np.argsort(a)"]),
    ("replace a function", "min(a)", ["sum(a)", "max(a)"]),
    ("replace a function", "net.relu(a)", ["net.tanh(a)", "net.sigmoid(a)"]),
    ("replace a function", "np.float32(a)", ["np.float64(a)", "np.int32(a)", "np.int64(a)"]),
    ("exchange names", "c = a - b", ["c = b - b", "c = a - a"]),
    ("exchange names", "a.run(b)\nfig", []),
    ("shift an index", "a[i, :]", ["a[(i + 1), :]"]),
    ("negate", "return_ = -a", ["return_ = a"]),
    ("negate", "if a: f()", ["if (not a): f()"]),
    ("replace an operator", "a <= b", ["(a < b)", "(a >= b)"]),
    ("replace an operator", "a and b", ["(a or b)"]),
    ("replace an operator", "a += 1", ["a -= 1", "a = 1"]),
    ("exchange operands", "x = a - b", ["x = b - a"]),
    ("exchange operands", "x = a + b", []),
    ("exchange operands", "x = [a] + b", ["x = b + [a]"]),
    ("leave out a call", "y = np.abs(x)", ["y = x"]),
    ("leave out a call", "y = x.sum()", ["y = x"]),
    ("drop an argument", "f(a, k=1)", ["f(a)", "f(k=1)"]),
    ("exchange arguments", "f(a, b, k=c)", ["f(b, a, k=c)", "f(a, c, k=b)"]),
    ("exchange elements", "a[i, :, 0]", ["a[:, i, 0]", "a[i, 0, :]"]),
    ("exchange elements", "a, b = f()", ["b, a = f()"]),
    ("exchange elements", "f({x: a, y: b})", ["f({x: b, y: a})"]),
    ("drop an element", "f([a, b, c])", ["f([b, c])", "f([a, b])"]),
    ("swap axes", "a.reshape(2, 3)", ["a.reshape(2, 3).T"]),
    ("shift a slice", "a[:9]", ["a[:]", "a[1:9]"]),
    ("shift a slice", "a[:, 1]", ["a[::-1, 1]"]),
    ("drop a statement", "a = 1\nfig", ["pass\nfig"]),
    ("drop a result", "def f():\n    return a", ["def f():\n    a"]),
    ("end a loop", "for i in a:\n    f(i)", ["for i in a:\n    f(i)\n    break"]),
    ("end a loop", "range(n)", ["range(1, n)"]),
    (
        "move over an edge",
        "for i in a:\n    f(i)\n    g(i)\nh()",
        [
            "for i in a:\n    f(i)\ng(i)\nh()",
            "for i in a:\n    f(i)\n    g(i)\n    h()\npass",
        ],
    ),
]


@pytest.mark.parametrize(("operator", "source", "wanted"), MUTATIONS)
def test_an_operator_makes_these_mutants(operator: str, source: str, wanted: list[str]) -> None:
    found = mutation.mutants(source, AROUND)
    assert [m.source for m in found if m.operator == operator] == wanted


def test_every_operator_is_shown_above() -> None:
    assert {operator for operator, *_ in MUTATIONS} == set(mutation.OPERATORS)
    assert {operator for _, operator, _ in REWRITINGS} == set(rewriting.OPERATORS)


# Programs whose results a rewriting must not change.
PROGRAMS = {
    "sums": """
def total(a, weights):
    \"\"\"A weighted sum.\"\"\"
    return float(np.sum(a * weights))

answer = [total(np.arange(k), np.ones(k)) for k in range(5)]
""",
    "slide": """
def slide(image, kernel):
    rows, columns = image.shape
    high, wide = kernel.shape
    padded = np.pad(image, [(high // 2, high // 2), (wide // 2, wide // 2)])
    result = np.zeros((rows, columns))
    for r in range(high):
        for c in range(wide):
            result += kernel[r, c] * padded[r : r + rows, c : c + columns]
    return result

rng = np.random.default_rng(1)
answer = slide(rng.random((6, 7)), rng.random((3, 5))).tolist()
""",
    "size": """
def size(n, width, stride, padding):
    if padding == "SAME":
        return -(-n // stride)
    return -(-(n - width + 1) // stride)

answer = [size(n, 3, k, p) for n in (5, 9, 28) for k in (1, 2, 3) for p in ("SAME", "VALID")]
""",
    "loops": """
i = 0
answer = []
for _ in range(20):
    i += 1
    if i % 4 == 0:
        low, high = np.min([i, 7]), np.max(a=[i, 7], axis=0)
        answer.append((i, int(low), int(high)))
texts = []
for pair in answer:
    texts.append(f"{pair[0]}: {pair[1] + pair[2]:d}")
answer.append(texts)
first, last = answer[0], answer[-1]
squares = [n * n for n in range(4) if n != 2] + [3]
seven = 7
answer.append(squares + [seven])
answer
""",
    "layers": """
values = np.linalg.norm(np.array([[3.0, 4.0], [5.0, 12.0]]), None, axis=1)
shape = np.reshape(np.matmul(np.ones((2, 3)), np.ones((3, 2))), [4, 1]).shape
answer = [values.tolist(), shape, np.max(np.array([1, 2]), initial=5, axis=0).tolist()]
""",
    "graph": """
p = tf.constant([[0.25, 0.75], [0.5, 0.5]])
t = tf.constant([[0.0, 1.0], [1.0, 0.0]])
loss = -tf.reduce_sum(t * tf.log(p), 1)
hidden = tf.nn.relu(tf.matmul(p, t) - 0.5)
size = tf.abs(loss)
answer = [size.numpy().tolist(), hidden.numpy().tolist()]
""",
}
WORDS = frozenset({"answer"})
REWRITINGS = [
    ("sums", "rename locals", "for my_k in range(5)"),
    ("slide", "rename locals", "my_padded = np.pad"),
    ("loops", "rename what only the cell names", "the_seven = 7"),
    ("sums", "another name for a module", "import numpy as np_again"),
    ("sums", "another name for a function", "my_sum = np.sum"),
    ("slide", "arguments by name", "array=image"),
    ("layers", "arguments by position", "None, 1)"),
    ("layers", "arguments in another order", "axis=0, initial=5"),
    ("graph", "a function's other path", "tf.math.abs(loss)"),
    ("graph", "another spelling of an operation", "tf.multiply(t, tf.log(p))"),
    ("graph", "another spelling of an operation", "tf.negative("),
    ("layers", "another spelling of an operation", "np.ones((2, 3)) @ np.ones((3, 2))"),
    ("size", "mirror a condition", "'SAME' == padding"),
    ("sums", "parenthesise", "return (float("),
    ("loops", "a list of a generator", "list((n * n for n"),
    ("sums", "introduce a variable", "part = np.sum(a * weights)"),
    ("loops", "inline a variable", "squares + [7]"),
    ("loops", "a loop for a comprehension", "if each_n != 2"),
    ("loops", "a comprehension for a loop", "texts += ["),
    ("loops", "while for a range", "while turn < 20"),
    ("loops", "another range", "range(1, 20 + 1)"),
    ("slide", "split an assignment", "rows = parts[0]"),
    ("loops", "join assignments", "i, answer = (0, [])"),
    ("slide", "two statements on a line", "image.shape; high"),
    ("loops", "spell a step", "i = i + 1"),
    ("loops", "annotate", "seven: object = 7"),
    ("sums", "document", "# My own solution."),
    ("size", "wrap in a block", "if True:"),
    ("slide", "extract a function", "made_by(high, image, wide)"),
    ("sums", "lambda for a function", "total = lambda a, weights"),
    ("size", "else after return", "else:"),
]


def ran(source: str) -> Any:
    """Run a program; return the value of `answer`."""
    names: dict[str, Any] = {a: importlib.import_module(m) for a, m in MODULES.items()}
    exec(source, names)
    return names["answer"]


def rewritten(program: str) -> list[Variant]:
    return rewriting.rewritings(PROGRAMS[program], Surroundings(MODULES, WORDS))


@pytest.mark.parametrize(("program", "operator", "holds"), REWRITINGS)
def test_an_operator_rewrites(program: str, operator: str, holds: str) -> None:
    found = [variant.source for variant in rewritten(program) if variant.operator == operator]
    assert any(holds in source for source in found), found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_rewriting_computes_the_same(program: str) -> None:
    wanted = ran(PROGRAMS[program])
    found = rewritten(program)
    assert len(found) > 10
    assert [v.name for v in found if ran(v.source) != wanted] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_mutant_is_another_program_and_no_two_are_one(program: str) -> None:
    found = mutation.mutants(PROGRAMS[program], AROUND)
    essences = Counter(does(mutant.source) for mutant in found)
    assert does(PROGRAMS[program]) not in essences
    assert set(essences.values()) == {1}
    assert max(Counter(mutant.name for mutant in found).values()) == 1
    assert len(found) > 15


@pytest.mark.parametrize("program", PROGRAMS)
def test_most_mutants_compute_something_else(program: str) -> None:
    wanted, alike = ran(PROGRAMS[program]), 0
    found = mutation.mutants(PROGRAMS[program], AROUND)
    for mutant in found:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                alike += repr(ran(mutant.source)) == repr(wanted)
        except Exception:
            continue
    assert alike < len(found) / 3


def test_what_a_source_does_is_told_apart() -> None:
    assert does("a = 28 * 28") == does("a = 784  # pixels")
    assert does("a = 1") != does("a = 1.0")
    assert does("f(1)") != does("f(True)")
    assert does("def f(a): return a") != does("def f(b): return b + 1")


def test_a_change_is_named_by_its_lines() -> None:
    assert change_of("a = 1\nb = 2\nc = 3", "a = 1\nb = 4\nc = 3") == "b = 2 → b = 4"
    assert change_of("a = (\n    1\n)", "a = 2") == "a = ( 1 ) → a = 2"


def test_equal_changes_of_equal_lines_are_numbered() -> None:
    names = [mutant.name for mutant in mutation.mutants("f(2)\nf(2)", AROUND)]
    assert names[:4] == [
        "shift a number: f(2) → f(3)",
        "shift a number: f(2) → f(1)",
        "shift a number: f(2) → f(3) (2)",
        "shift a number: f(2) → f(1) (2)",
    ]


def test_comments_and_layout_stay_where_nothing_changes() -> None:
    source = "# first\na = f(  # why\n    [1, 2],\n    'ä', 3\n)\nb = 1\n"
    found = {mutant.source for mutant in mutation.mutants(source, AROUND)}
    assert source.replace("b = 1", "b = 2") in found
    assert source.replace("3", "4") in found


def test_what_is_no_python_has_no_variants() -> None:
    assert mutation.mutants("!pip install x", AROUND) == []
    assert rewriting.rewritings("%matplotlib inline", AROUND) == []


def test_a_name_that_others_use_keeps_it() -> None:
    around = Surroundings({}, frozenset({"rows"}))
    found = rewriting.rewritings("rows = 1\nrest = rows + 1", around)
    assert all("rows" in variant.source for variant in found)
    assert any("the_rest" in variant.source for variant in found)


def test_a_variable_is_not_moved_past_a_call() -> None:
    found = rewriting.rewritings("a = f()\nb = g(h(), a)", Surroundings())
    assert [v.source for v in found if v.operator == "inline a variable"] == []


def test_variants_come_in_one_order() -> None:
    source = PROGRAMS["slide"]
    random.seed(1)
    once = mutation.mutants(source, AROUND)
    random.seed(2)
    assert mutation.mutants(source, AROUND) == once
