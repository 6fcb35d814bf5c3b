"""Generates wrong variants of a solution, each with one small mistake.

The operators know Python and the names in NumPy and TensorFlow, but no course.  A variant may
happen to be right; only grading tells.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

from autograder.audit.operators.code import (
    BUILTINS,
    COMPREHENSION,
    Code,
    Operator,
    Surroundings,
    Variant,
    does,
    expression,
    name,
    rebuild,
    variants,
)

# Each name may be replaced by the next two in its row, which wraps around.
FAMILIES = [
    row.split()
    for row in (
        "relu tanh sigmoid",
        "softmax log_softmax sigmoid",
        "reduce_sum reduce_mean reduce_max",
        "sum mean max min",
        "min max",
        "zeros ones",
        "argmax argmin argsort",
        "max_pool avg_pool",
        "truncated_normal random_normal random_uniform",
        "log exp log1p",
        "abs square negative",
        "equal not_equal",
        "minimum maximum",
        "floor ceil",
        "float int",
        "append extend",
        "rsplit split",
        "vstack hstack",
        "AdamOptimizer GradientDescentOptimizer RMSPropOptimizer",
        "global_variables_initializer local_variables_initializer",
        "float32 float64 int32",
        "int64 int32 float32",
        "uint8 int8",
    )
]
TEXTS = {"SAME": "VALID", "VALID": "SAME", "float32": "float64", "float64": "float32"}
ARITHMETIC: dict[type[ast.operator], list[type[ast.operator]]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div, ast.Mod],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.MatMult: [ast.Mult],
}
COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq, ast.GtE],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}


def mutants(text: str, around: Surroundings) -> list[Variant]:
    """All mutants of a source; no two of them, nor the source, have the same bytecode."""
    return variants(text, OPERATORS, around, does)


# -- numbers, texts, names -----------------------------------------------------------------------


def shift_number(code: Code, around: Surroundings) -> Iterator[str]:
    """Change an integer by 1, scale a float by 1.5 and 0.5, invert a boolean."""
    for node in code.expressions:
        match node:
            case ast.Constant(value=bool()):
                yield code.swap(node, ast.Constant(not node.value))
            case ast.Constant(value=int(whole)):
                for other in (whole + 1, whole - 1):
                    yield code.swap(node, expression(str(other)))
            case ast.Constant(value=float(value)):
                for near in (value * 1.5, value / 2) if value else (1.0, -1.0):
                    yield code.swap(node, expression(repr(near)))


def replace_text(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace a string by its counterpart in `TEXTS`, or drop its last character."""
    for node in code.expressions:
        match node:
            case ast.Constant(value=str(text)) if text:
                if not any(isinstance(n, ast.JoinedStr) for n in code.above(node)):
                    yield code.swap(node, ast.Constant(TEXTS.get(text, text[:-1])))


def replace_function(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace a function or type by a neighbour in `FAMILIES` that exists."""
    for node in code.expressions:
        match node:
            case ast.Attribute(value=value, attr=attr, ctx=ast.Load()):
                module = around.resolve(value) if around.is_module(value) else None
                for other in neighbours(attr):
                    if module is None or hasattr(module, other):
                        yield code.swap(node, ast.Attribute(value, other, ast.Load()))
            case ast.Name(id=id_, ctx=ast.Load()) if id_ in BUILTINS:
                for other in neighbours(id_):
                    if other in BUILTINS:
                        yield code.swap(node, name(other))


def neighbours(word: str) -> list[str]:
    """The names that may be confused with this one, nearest first."""
    found: dict[str, None] = {}
    for row in FAMILIES:
        if word in row:
            at = row.index(word)
            found |= dict.fromkeys([*row[at + 1 :], *row[:at]][:2])
    return list(found)


def exchange_name(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace a name by those that the cell used first before and after it."""
    free = [
        node
        for node in code.expressions
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.id not in around.modules
        and node.id not in BUILTINS
        and not _receives(code, node)
        and not isinstance(code.parents[node], ast.Expr)  # a bare name does nothing
    ]
    free.sort(key=lambda node: (node.lineno, node.col_offset))
    used = list(dict.fromkeys(node.id for node in free))
    for node in free:
        at = used.index(node.id)
        for other in dict.fromkeys((used[at - 1], used[(at + 1) % len(used)])):
            if other != node.id:
                yield code.swap(node, name(other))


def _receives(code: Code, node: ast.AST) -> bool:
    """Whether a method is called on this node; other objects hardly ever have that method."""
    method = code.parents[node]
    return isinstance(method, ast.Attribute) and isinstance(code.parents[method], ast.Call)


def shift_index(code: Code, around: Surroundings) -> Iterator[str]:
    """Add 1 to an index that is a name."""
    for node in code.expressions:
        match node:
            case ast.Subscript(slice=place):
                parts = place.elts if isinstance(place, ast.Tuple) else [place]
                for part in parts:
                    if isinstance(part, ast.Name):
                        yield code.swap(part, ast.BinOp(part, ast.Add(), ast.Constant(1)))


# -- expressions ---------------------------------------------------------------------------------


def negate(code: Code, around: Surroundings) -> Iterator[str]:
    """Add or remove a minus or a `not`."""
    for node in code.expressions:
        match node:
            case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
                yield code.swap(node, operand)
            case ast.BinOp(left=left, right=right):
                for operand in (left, right):
                    if not isinstance(operand, ast.List | ast.ListComp | ast.Constant):
                        yield code.swap(operand, ast.UnaryOp(ast.USub(), operand))
            case ast.Constant(value=int() | float()) if node.value and node.value is not True:
                yield code.swap(node, ast.UnaryOp(ast.USub(), node))
            case ast.IfExp(test=test):
                yield code.swap(test, ast.UnaryOp(ast.Not(), test))
    for statement in code.statements:
        match statement:
            case ast.Return(value=ast.Call() | ast.BinOp() | ast.Name() as value):
                yield code.swap(value, ast.UnaryOp(ast.USub(), value))
            case ast.If(test=test) | ast.While(test=test):
                yield code.swap(test, ast.UnaryOp(ast.Not(), test))


def replace_operator(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace an arithmetic operator, a comparison, or `and` by `or` and vice versa."""
    for node in code.expressions:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                for other in ARITHMETIC.get(type(op), []):
                    yield code.swap(node, ast.BinOp(left, other(), right))
            case ast.Compare(left=left, ops=[op], comparators=right):
                for comparison in COMPARISONS[type(op)]:
                    yield code.swap(node, ast.Compare(left, [comparison()], right))
            case ast.BoolOp(op=op, values=values):
                joined = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield code.swap(node, ast.BoolOp(joined, values))
    for statement in code.statements:
        match statement:
            case ast.AugAssign(target=target, op=op, value=value):
                for other in ARITHMETIC.get(type(op), []):
                    yield from restate(code, statement, ast.AugAssign(target, other(), value))
                yield from restate(code, statement, ast.Assign([target], value))


def exchange_operands(code: Code, around: Surroundings) -> Iterator[str]:
    """`b - a` for `a - b`; not for sums and products of numbers, which commute."""
    for node in code.expressions:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                joined = (ast.List, ast.ListComp, ast.Tuple, ast.JoinedStr)
                numbers = isinstance(op, ast.Add | ast.Mult)
                if not numbers or isinstance(left, joined) or isinstance(right, joined):
                    yield code.edit([(left, wrap(code, right)), (right, wrap(code, left))])
            case ast.IfExp(body=body, orelse=other):
                yield code.edit([(body, code.text_of(other)), (other, code.text_of(body))])


def wrap(code: Code, node: ast.expr) -> str:
    """The text of an operand, in parentheses if needed."""
    text = code.text_of(node)
    return f"({text})" if isinstance(node, ast.BinOp | ast.UnaryOp | ast.IfExp) else text


def leave_out_call(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace a call by its first argument or by the object of the method."""
    for node in code.expressions:
        match node:
            case ast.Call(func=func, args=[first, *_]) if not isinstance(first, ast.Starred):
                if not isinstance(first, COMPREHENSION):
                    yield code.swap(node, first)
                if isinstance(func, ast.Attribute) and not around.is_module(func.value):
                    yield code.swap(node, func.value)
            case ast.Call(func=ast.Attribute(value=value)) if not around.is_module(value):
                yield code.swap(node, value)
            case ast.Attribute(value=value, ctx=ast.Load()) if not around.is_module(value):
                if not isinstance(code.parents[node], ast.Call):
                    yield code.swap(node, value)


def drop_argument(code: Code, around: Surroundings) -> Iterator[str]:
    """Drop one keyword argument of a call, or its last positional argument."""
    for node in code.expressions:
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                left = [other for other in node.keywords if other is not keyword]
                yield code.swap(node, ast.Call(node.func, node.args, left))
            if node.args:
                yield code.swap(node, ast.Call(node.func, node.args[:-1], node.keywords))


def exchange_arguments(code: Code, around: Surroundings) -> Iterator[str]:
    """Swap two adjacent arguments."""
    for node in code.expressions:
        if isinstance(node, ast.Call):
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield from exchange(code, values)


def exchange_elements(code: Code, around: Surroundings) -> Iterator[str]:
    """Swap two adjacent elements, axes or targets."""
    for node in code.expressions:
        match node:
            case ast.List(elts=values) | ast.Tuple(elts=values):
                yield from exchange(code, values)
            case ast.Dict(values=values):
                yield from exchange(code, values)


def exchange(code: Code, values: list[ast.expr]) -> Iterator[str]:
    """The source with two adjacent `values` swapped, for each pair."""
    for one, other in itertools.pairwise(values):
        held = any(isinstance(n, ast.JoinedStr) for n in code.above(one))
        if (
            not held
            and not isinstance(one, ast.GeneratorExp)
            and not isinstance(other, ast.GeneratorExp)
        ):
            yield code.edit([(one, code.text_of(other)), (other, code.text_of(one))])


def drop_element(code: Code, around: Surroundings) -> Iterator[str]:
    """Drop the first or the last element of a list or tuple."""
    for node in code.expressions:
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1:
            place = isinstance(code.parents[node], ast.Subscript)
            if isinstance(node.ctx, ast.Load) and not place:
                for left in (node.elts[1:], node.elts[:-1]):
                    yield code.swap(node, type(node)(left, node.ctx))


def swap_axes(code: Code, around: Surroundings) -> Iterator[str]:
    """Transpose the result of a `reshape` method."""
    for node in code.expressions:
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr="reshape")):
                if not around.is_module(value):
                    yield code.swap(node, ast.Attribute(node, "T", ast.Load()))


def shift_slice(code: Code, around: Surroundings) -> Iterator[str]:
    """Drop a bound of a slice, start it at 1, or reverse it."""
    for node in code.expressions:
        match node:
            case ast.Slice(lower=lower, upper=upper, step=None) if lower or upper:
                if lower and upper:
                    yield code.swap(node, ast.Slice(lower, None))
                    yield code.swap(node, ast.Slice(None, upper))
                else:
                    yield code.swap(node, ast.Slice(None, None))
                if upper:
                    yield code.swap(node, ast.Slice(ast.Constant(1), upper))
            case ast.Slice(lower=None, upper=None, step=None):
                turned = ast.Slice(None, None, ast.UnaryOp(ast.USub(), ast.Constant(1)))
                yield code.swap(node, turned)


# -- statements ----------------------------------------------------------------------------------


def restate(code: Code, statement: ast.stmt, *new: ast.stmt) -> Iterator[str]:
    """The source with a statement replaced by others, if it has lines of its own."""
    source = code.restate(statement, new)
    if source is not None:
        yield source


def drop_statement(code: Code, around: Surroundings) -> Iterator[str]:
    """Replace a statement by `pass`, unless it has no effect."""
    for statement in code.statements:
        match statement:
            case ast.Expr(value=ast.Name() | ast.Constant()) | ast.Pass():
                continue
        yield code.edit([(statement, "pass")])


def drop_result(code: Code, around: Surroundings) -> Iterator[str]:
    """Compute the return value without returning it."""
    for statement in code.statements:
        match statement:
            case ast.Return(value=ast.expr() as value):
                yield from restate(code, statement, ast.Expr(value))


def end_loop(code: Code, around: Surroundings) -> Iterator[str]:
    """End a loop after its first iteration, or start counting at 1."""
    for statement in code.statements:
        match statement:
            case ast.For(body=[*_, last]):
                yield from restate(code, last, last, ast.Break())
    for node in code.expressions:
        match node:
            case ast.Call(func=ast.Name(id="range"), args=[stop]):
                yield code.swap(node, ast.Call(name("range"), [ast.Constant(1), stop], []))
            case ast.Call(func=ast.Name(id="enumerate"), args=[items]):
                start = [items, ast.Constant(1)]
                yield code.swap(node, ast.Call(name("enumerate"), start, []))


def move_over_edge(code: Code, around: Surroundings) -> Iterator[str]:
    """Move the last statement of a block out of it, or the next statement into it."""
    for block in code.blocks():
        for at, statement in enumerate(block):
            match statement:
                case ast.For(body=body, orelse=[]) | ast.If(body=body, orelse=[]):
                    if len(body) > 1 and not isinstance(body[-1], ast.Return):
                        rest = rebuild(statement, {})
                        rest.body = body[:-1]
                        yield from restate(code, statement, rest, body[-1])
                    if at + 1 < len(block) and not isinstance(body[-1], ast.Return):
                        more = rebuild(statement, {})
                        more.body = [*body, block[at + 1]]
                        yield code.edit(
                            [(statement, code.laid(statement, [more])), (block[at + 1], "pass")]
                        )


OPERATORS: dict[str, Operator] = {
    "shift a number": shift_number,
    "replace a text": replace_text,
    "replace a function": replace_function,
    "exchange names": exchange_name,
    "shift an index": shift_index,
    "negate": negate,
    "replace an operator": replace_operator,
    "exchange operands": exchange_operands,
    "leave out a call": leave_out_call,
    "drop an argument": drop_argument,
    "exchange arguments": exchange_arguments,
    "exchange elements": exchange_elements,
    "drop an element": drop_element,
    "swap axes": swap_axes,
    "shift a slice": shift_slice,
    "drop a statement": drop_statement,
    "drop a result": drop_result,
    "end a loop": end_loop,
    "move over an edge": move_over_edge,
}
