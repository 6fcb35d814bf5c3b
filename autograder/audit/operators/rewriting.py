"""Generates right variants of a solution, equivalent but written differently.

An operator changes nothing that might alter the meaning: names that others may use, the order of
calls, expressions that may be a tensor or a number.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from autograder.audit.operators.code import (
    BUILTINS,
    COMPREHENSION,
    NEST,
    Code,
    Operator,
    Surroundings,
    Variant,
    fixed,
    loaded,
    name,
    rebuild,
    stored,
    variants,
)

OWN_CELL = "scratch = [number**2 for number in range(5)]\nprint(scratch)"
PARTS = ("math", "linalg", "random", "nn")  # submodules that may alias a module's functions
TENSORS = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq, ast.NotEq: ast.NotEq, ast.Is: ast.Is, ast.IsNot: ast.IsNot,
    ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE,
}  # fmt: skip


def rewritings(text: str, around: Surroundings) -> list[Variant]:
    """All rewritings of a source, without duplicates."""

    def written(source: str) -> str:
        compile(source, "cell", "exec", dont_inherit=True)
        return source

    return variants(text, OPERATORS, around, written)


def restate(code: Code, statement: ast.stmt, *new: ast.stmt | str) -> Iterator[str]:
    """The source with a statement replaced by others, if it has lines of its own."""
    source = code.restate(statement, new)
    if source is not None:
        yield source


def assign(target: str, value: ast.expr) -> ast.Assign:
    """The assignment `target = value`."""
    return ast.Assign([ast.Name(target, ast.Store())], value, lineno=0)


def unused(code: Code, around: Surroundings, *wanted: str) -> list[str]:
    """The wanted names, numbered where they are already in use."""
    taken = loaded(code.tree) | stored(code.tree) | around.words | set(around.modules) | BUILTINS
    taken |= {n.arg for n in ast.walk(code.tree) if isinstance(n, ast.arg)}
    numbered = (itertools.chain([w], (f"{w}_{n}" for n in itertools.count(2))) for w in wanted)
    return [next(word for word in words if word not in taken) for words in numbered]


# -- names ---------------------------------------------------------------------------------------


def rename_locals(code: Code, around: Surroundings) -> Iterator[str]:
    """Rename the local names of a function or comprehension, one by one and all together."""
    scopes: list[tuple[ast.AST, list[str]]] = []
    for node in ast.walk(code.tree):
        if isinstance(node, ast.FunctionDef):
            if any(isinstance(n, ast.Global | ast.Nonlocal) for n in ast.walk(node)):
                continue
            given = {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)}
            inner = [n for n in ast.walk(node) if n is not node and isinstance(n, NEST)]
            if not inner:
                scopes.append((node, sorted(stored(node) - given)))
        elif isinstance(node, COMPREHENSION) and code.function(node) is None:
            own = set().union(*(stored(g.target) for g in node.generators))
            scopes.append((node, sorted(own - loaded(node.generators[0].iter))))
    for scope, names in scopes:
        fresh = dict(zip(names, unused(code, around, *(f"my_{n}" for n in names)), strict=True))
        for chosen in [*([old] for old in names), names]:
            yield _rename(code, scope, {old: fresh[old] for old in chosen})


def rename_globals(code: Code, around: Surroundings) -> Iterator[str]:
    """Rename a cell's global names that occur nowhere else, one by one and all together."""
    outside = [n for n in ast.walk(code.tree) if isinstance(n, (ast.Global, *NEST))]
    names = sorted(stored(code.tree) - around.words)
    if not outside and names:
        fresh = dict(zip(names, unused(code, around, *(f"the_{n}" for n in names)), strict=True))
        for chosen in [*([old] for old in names), names]:
            yield _rename(code, code.tree, {old: fresh[old] for old in chosen})


def _rename(code: Code, scope: ast.AST, fresh: dict[str, str]) -> str:
    places = [n for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id in fresh]
    texts = [n for n in ast.walk(scope) if isinstance(n, ast.JoinedStr)]
    within = {inner for text in texts for inner in ast.walk(text)}
    changes: dict[ast.AST, ast.AST] = {n: ast.Name(fresh[n.id], n.ctx) for n in places}
    edits: list[tuple[ast.expr | ast.stmt, str]] = [
        (n, fresh[n.id]) for n in places if n not in within
    ]
    outer = [text for text in texts if not any(n in texts for n in code.above(text))]
    edits += [(text, ast.unparse(rebuild(text, changes))) for text in outer]
    return code.edit(edits)


def alias_module(code: Code, around: Surroundings) -> Iterator[str]:
    """Import a module under another name."""
    for old, module in around.modules.items():
        places = [n for n in code.expressions if isinstance(n, ast.Name) and n.id == old]
        if places:
            (new,) = unused(code, around, f"{old}_again")
            text = code.edit([(place, new) for place in places])
            yield f"import {module} as {new}\n{text}"


def alias_function(code: Code, around: Surroundings) -> Iterator[str]:
    """Assign a module's function to a name in the line before its first call."""
    known = set()
    for node in code.expressions:
        match node:
            case ast.Call(func=ast.Attribute(attr=attr) as func) if around.is_module(func.value):
                statement = code.statement(node)
                simple = isinstance(statement, ast.Assign | ast.Expr | ast.Return)
                if attr not in known and simple:
                    known.add(attr)
                    (new,) = unused(code, around, f"my_{attr}")
                    text = rebuild(statement, {func: name(new)})
                    yield from restate(code, statement, assign(new, func), text)


# -- expressions ---------------------------------------------------------------------------------


def of_module(node: ast.AST, around: Surroundings) -> Any:
    """The called function, if it belongs to a module; otherwise None."""
    match node:
        case ast.Call(func=ast.Attribute(value=value) as func) if around.is_module(value):
            return around.resolve(func)
    return None


def parameters(function: Any) -> list[str] | None:
    """Names of the leading positional-or-keyword parameters; None without a signature."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    names = list(itertools.takewhile(lambda p: p.kind == p.POSITIONAL_OR_KEYWORD, found))
    return [parameter.name for parameter in names]


def name_arguments(code: Code, around: Surroundings) -> Iterator[str]:
    """Turn positional arguments into keyword arguments."""
    for node in code.expressions:
        function = of_module(node, around)
        names = parameters(function) if function is not None else None
        if names is None or not isinstance(node, ast.Call) or len(names) < len(node.args):
            continue
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            continue
        for kept in (0, 1)[: len(node.args)]:
            pairs = list(zip(names, node.args, strict=False))[kept:]
            named = [ast.keyword(parameter, value) for parameter, value in pairs]
            yield code.swap(node, ast.Call(node.func, node.args[:kept], named + node.keywords))


def place_arguments(code: Code, around: Surroundings) -> Iterator[str]:
    """Turn keyword arguments into positional arguments."""
    for node in code.expressions:
        function = of_module(node, around)
        names = parameters(function) if function is not None else None
        if names is None or not isinstance(node, ast.Call):
            continue
        placed, named = list(node.args), list(node.keywords)
        while named and names[len(placed) : len(placed) + 1] == [named[0].arg]:
            placed.append(named.pop(0).value)
            yield code.swap(node, ast.Call(node.func, list(placed), list(named)))


def order_arguments(code: Code, around: Surroundings) -> Iterator[str]:
    """Reverse the keyword arguments."""
    for node in code.expressions:
        match node:
            case ast.Call(func=func, args=args, keywords=[_, _, *_] as named):
                simple = not any(isinstance(n, ast.Call) for k in named for n in ast.walk(k.value))
                if simple and all(k.arg for k in named):
                    yield code.swap(node, ast.Call(func, args, named[::-1]))


def another_path(code: Code, around: Surroundings) -> Iterator[str]:
    """Call the same function by another path in its module."""
    for node in code.expressions:
        function = of_module(node, around)
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=attr) as func) if function:
                top = value
                while isinstance(top, ast.Attribute):
                    top = top.value
                places = [ast.Attribute(top, part, ast.Load()) for part in PARTS]
                same = inspect.unwrap(function)  # each path may have a wrapper of its own
                for place in [top, *places]:
                    other = ast.Attribute(place, attr, ast.Load())
                    another = ast.unparse(other) != ast.unparse(func)
                    found = around.resolve(other)
                    if another and callable(found) and inspect.unwrap(found) is same:
                        yield code.swap(func, other)


def spell_operation(code: Code, around: Surroundings) -> Iterator[str]:
    """`tf.add(a, b)` for `a + b` if one operand is a tensor, and `a @ b` for `tf.matmul`."""

    def tensor(node: ast.AST) -> ast.expr | None:
        """The module that creates this tensor; None if it may not be one."""
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name() as top)):
                if hasattr(around.resolve(top), "Tensor"):
                    function = around.resolve(node.func)
                    return None if isinstance(function, type) else top
            case ast.BinOp(left=left, right=right):
                return tensor(left) or tensor(right)
            case ast.UnaryOp(operand=operand):
                return tensor(operand)
        return None

    for node in code.expressions:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in TENSORS:
                top = tensor(left) or tensor(right)
                if top is not None:
                    function = ast.Attribute(top, TENSORS[type(op)], ast.Load())
                    yield code.swap(node, ast.Call(function, [left, right], []))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                top = tensor(operand)
                if top is not None:
                    function = ast.Attribute(top, "negative", ast.Load())
                    yield code.swap(node, ast.Call(function, [operand], []))
            case ast.Call(func=ast.Attribute(attr="matmul"), args=[left, right], keywords=[]):
                yield code.swap(node, ast.BinOp(left, ast.MatMult(), right))


def mirror(code: Code, around: Surroundings) -> Iterator[str]:
    """`0 == a` for `a == 0`; `not not` before a condition."""
    for node in code.expressions:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in MIRRORED:
                calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
                if not calls:
                    turned = ast.Compare(right, [MIRRORED[type(op)]()], [left])
                    yield code.swap(node, turned)
    for statement in code.statements:
        match statement:
            case ast.If(test=test) | ast.While(test=test):
                once = ast.UnaryOp(ast.Not(), test)
                yield code.swap(test, ast.UnaryOp(ast.Not(), once))


def parenthesise(code: Code, around: Surroundings) -> Iterator[str]:
    """Parenthesise all assigned and returned values."""
    values = [
        statement.value
        for statement in code.statements
        if isinstance(statement, ast.Assign | ast.Return) and statement.value is not None
    ]
    yield code.edit([(value, f"({code.text_of(value)})") for value in values])


def make_list(code: Code, around: Surroundings) -> Iterator[str]:
    """`list(...)` of a generator in place of a comprehension."""
    for node in code.expressions:
        match node:
            case ast.ListComp(elt=elt, generators=generators):
                inner = ast.GeneratorExp(elt, generators)
                yield code.swap(node, ast.Call(name("list"), [inner], []))


# -- statements ----------------------------------------------------------------------------------


def introduce_variable(code: Code, around: Surroundings) -> Iterator[str]:
    """Assign the subexpression that is evaluated first to a variable."""
    (new,) = unused(code, around, "part")
    for statement in code.statements:
        match statement:
            case ast.Assign(value=value) | ast.Return(value=ast.expr() as value):
                for part in [*_first_computed(value), *_constant(value)]:
                    rest = rebuild(statement, {part: name(new)})
                    yield from restate(code, statement, assign(new, part), rest)


def _first_computed(node: ast.expr) -> Iterator[ast.expr]:
    """The subexpressions that are certainly evaluated before anything else in an expression."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Call() as inner)):
            yield inner
            yield from _first_computed(inner)
        case ast.Call(args=[first, *_]) if isinstance(first, ast.Call | ast.BinOp | ast.UnaryOp):
            yield first
            yield from _first_computed(first)
        case ast.BinOp(left=first) | ast.UnaryOp(operand=first):
            if not isinstance(first, ast.Name | ast.Constant | ast.List):
                yield first
                yield from _first_computed(first)


def _constant(node: ast.expr) -> Iterator[ast.expr]:
    """Constant lists among a call's arguments, whose time of evaluation does not matter."""
    for inner in ast.walk(node):
        match inner:
            case ast.Call(args=args, keywords=keywords):
                for value in [*args, *(k.value for k in keywords)]:
                    match value:
                        case ast.List(elts=[ast.Constant(), *rest]):
                            if all(isinstance(r, ast.Constant) for r in rest):
                                yield value


def inline_variable(code: Code, around: Surroundings) -> Iterator[str]:
    """Inline a variable that is read only once, in the next statement."""
    for block in code.blocks():
        for one, other in itertools.pairwise(block):
            match one:
                case ast.Assign(targets=[ast.Name(id=target)], value=value):
                    scope = code.function(one) or code.tree
                    own = scope is not code.tree or target not in around.words
                    reads = [
                        n for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id == target
                    ]
                    if (
                        not own
                        or len(reads) != 2
                        or not isinstance(other, ast.Assign | ast.Return | ast.Expr)
                    ):
                        continue
                    read = reads[1]
                    nest = (*NEST, *COMPREHENSION)
                    between = list(code.between(read, other))
                    calls = [n for n in ast.walk(other) if isinstance(n, ast.Call)]
                    if any(isinstance(n, nest) for n in between) or other not in code.above(read):
                        continue
                    if all(call in between for call in calls):
                        yield code.edit(
                            [(one, "pass"), (other, ast.unparse(rebuild(other, {read: value})))]
                        )


def loop_for_comprehension(code: Code, around: Surroundings) -> Iterator[str]:
    """An appending loop in place of a comprehension."""
    for node in code.expressions:
        match node:
            case ast.ListComp(elt=elt, generators=[ast.comprehension(is_async=0) as only]):
                statement = code.statement(node)
                above = list(code.between(node, statement))
                if any(isinstance(n, (*NEST, *COMPREHENSION, ast.IfExp)) for n in above):
                    continue
                if not isinstance(statement, ast.Assign | ast.Return | ast.Expr):
                    continue
                calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
                inside = list(ast.walk(node))
                if any(call not in above and call not in inside for call in calls):
                    continue
                names = sorted(stored(only.target))
                made, *fresh = unused(code, around, "made", *(f"each_{n}" for n in names))
                turned = dict(zip(names, fresh, strict=True))
                changes: dict[ast.AST, ast.AST] = {
                    n: ast.Name(turned[n.id], n.ctx)
                    for n in inside
                    if isinstance(n, ast.Name) and n.id in turned
                }
                add = ast.Call(
                    ast.Attribute(name(made), "append", ast.Load()), [rebuild(elt, changes)], []
                )
                body: list[ast.stmt] = [ast.Expr(add)]
                for test in reversed(only.ifs):
                    body = [ast.If(rebuild(test, changes), body, [])]
                loop = ast.For(rebuild(only.target, changes), only.iter, body, [], lineno=0)
                rest = rebuild(statement, {node: name(made)})
                yield from restate(
                    code, statement, assign(made, ast.List([], ast.Load())), loop, rest
                )


def comprehension_for_loop(code: Code, around: Surroundings) -> Iterator[str]:
    """A comprehension in place of a loop that only appends."""
    for statement in code.statements:
        match statement:
            case ast.For(
                target=target,
                iter=items,
                body=[
                    ast.Expr(
                        value=ast.Call(
                            func=ast.Attribute(value=ast.Name(id=listed), attr="append"),
                            args=[elt],
                        )
                    )
                ],
                orelse=[],
            ):
                if listed not in loaded(elt):
                    made = ast.ListComp(elt, [ast.comprehension(target, items, [], 0)])
                    yield from restate(
                        code,
                        statement,
                        ast.AugAssign(ast.Name(listed, ast.Store()), ast.Add(), made),
                    )


def while_for_range(code: Code, around: Surroundings) -> Iterator[str]:
    """A counting `while` in place of a `for` over a range."""
    for statement in code.statements:
        match statement:
            case ast.For(
                target=ast.Name(id=target),
                iter=ast.Call(func=ast.Name(id="range"), args=[stop], keywords=[]),
                body=body,
                orelse=[],
            ) if isinstance(stop, ast.Constant | ast.Name):
                kept = set().union(*map(stored, body))
                if not loaded(stop) & kept:
                    (turn,) = unused(code, around, "turn")
                    test = ast.Compare(name(turn), [ast.Lt()], [stop])
                    count = ast.AugAssign(ast.Name(turn, ast.Store()), ast.Add(), ast.Constant(1))
                    loop = ast.While(test, [assign(target, name(turn)), count, *body], [])
                    yield from restate(code, statement, assign(turn, ast.Constant(0)), loop)


def number_turns(code: Code, around: Surroundings) -> Iterator[str]:
    """A range that starts at 1 with an index one lower; a loop over a list of the range."""
    for statement in code.statements:
        match statement:
            case ast.For(
                target=ast.Name(id=target),
                iter=ast.Call(func=ast.Name(id="range"), args=[stop], keywords=[]) as items,
            ):
                yield code.swap(items, ast.Call(name("list"), [items], []))
                (turn,) = unused(code, around, "turn")
                above = ast.BinOp(stop, ast.Add(), ast.Constant(1))
                shifted = ast.Call(name("range"), [ast.Constant(1), above], [])
                less = ast.BinOp(name(turn), ast.Sub(), ast.Constant(1))
                loop = rebuild(statement, {})
                loop.target, loop.iter = ast.Name(turn, ast.Store()), shifted
                loop.body = [assign(target, less), *loop.body]
                yield from restate(code, statement, loop)


def split_targets(code: Code, around: Surroundings) -> Iterator[str]:
    """Assign a tuple to one name, then its elements to the targets."""
    for statement in code.statements:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                if all(isinstance(target, ast.Name) for target in targets):
                    (new,) = unused(code, around, "parts")
                    parts: list[ast.stmt] = [assign(new, ast.Call(name("list"), [value], []))]
                    for at, target in enumerate(targets):
                        part = ast.Subscript(name(new), ast.Constant(at), ast.Load())
                        parts.append(ast.Assign([target], part, lineno=0))
                    yield from restate(code, statement, *parts)


def join_targets(code: Code, around: Surroundings) -> Iterator[str]:
    """Join two assignments into a tuple assignment."""
    for one, other in _neighbours(code):
        match one, other:
            case (
                ast.Assign(targets=[ast.Name(id=first)], value=value),
                ast.Assign(targets=[ast.Name() as second], value=more),
            ) if first not in loaded(more) and first != second.id:
                target = ast.Tuple([ast.Name(first, ast.Store()), second], ast.Store())
                both = ast.Assign([target], ast.Tuple([value, more], ast.Load()), lineno=0)
                yield code.edit([(one, "pass"), (other, ast.unparse(fixed(both)))])


def join_lines(code: Code, around: Surroundings) -> Iterator[str]:
    """Put pairs of simple statements on one line."""
    simple = (ast.Assign, ast.Expr, ast.AugAssign, ast.Return)
    edits: list[tuple[ast.expr | ast.stmt, str]] = []
    done: set[ast.stmt] = set()
    for one, other in _neighbours(code):
        if isinstance(one, simple) and isinstance(other, simple) and one not in done:
            done.add(other)
            both = f"{ast.unparse(one)}; {ast.unparse(other)}"
            edits += [(one, "pass"), (other, both)]
    yield code.edit(edits)


def _neighbours(code: Code) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    for block in code.blocks():
        for one, other in itertools.pairwise(block):
            if one in code.statements and other in code.statements:
                yield one, other


def spell_step(code: Code, around: Surroundings) -> Iterator[str]:
    """`i = i + 1` for `i += 1`."""
    for statement in code.statements:
        match statement:
            case ast.AugAssign(target=ast.Name(id=id_), op=op, value=ast.Constant() as value):
                step = ast.BinOp(name(id_), op, value)
                yield from restate(code, statement, assign(id_, step))


def annotate(code: Code, around: Surroundings) -> Iterator[str]:
    """Annotate assigned names, parameters and return types."""
    declared = {n for s in ast.walk(code.tree) if isinstance(s, ast.Global) for n in s.names}
    edits: list[tuple[ast.expr | ast.stmt, str]] = []
    for statement in code.statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=id_) as target]) if id_ not in declared:
                edits.append((target, f"{id_}: object"))
            case ast.FunctionDef():
                typed = rebuild(statement, {})
                typed.returns = name("object")
                for argument in typed.args.args:
                    argument.annotation = ast.Constant("object")
                yield from restate(code, statement, typed)
    yield code.edit(edits)


def document(code: Code, around: Surroundings) -> Iterator[str]:
    """Add a docstring or comments to the source; drop the docstring of a function."""
    yield f'"""My own solution."""\n{code.text}'
    yield f"# My own solution.\n\n{code.text}\n\n# That is all."
    for statement in code.statements:
        if isinstance(statement, ast.FunctionDef):
            told = rebuild(statement, {})
            if ast.get_docstring(told) is not None:
                del told.body[0]
            if told.body:
                yield from restate(code, statement, told)


def wrap_in_block(code: Code, around: Surroundings) -> Iterator[str]:
    """Wrap the cell, or a function's body, in `if True:`, a loop of one iteration, or `try`."""
    last = code.tree.body[-1] if code.tree.body else None
    bare = [last] if isinstance(last, ast.Expr) else []
    body = code.tree.body[:-1] if bare else code.tree.body
    tail = "\n".join(ast.unparse(statement) for statement in bare)
    if body:
        for block in _blocks(code, around, body):
            yield f"{ast.unparse(fixed(block))}\n{tail}"
    for statement in code.statements:
        if isinstance(statement, ast.FunctionDef):
            whole = rebuild(statement, {})
            for block in _blocks(code, around, whole.body):
                other = rebuild(whole, {})
                other.body = [block]
                yield from restate(code, statement, other)


def _blocks(code: Code, around: Surroundings, body: list[ast.stmt]) -> Iterator[ast.stmt]:
    yield ast.If(ast.Constant(True), body, [])
    (once,) = unused(code, around, "once")
    if not any(isinstance(s, ast.Break | ast.Continue) for s in body):
        one = ast.Call(name("range"), [ast.Constant(1)], [])
        yield ast.For(ast.Name(once, ast.Store()), one, body, [], lineno=0)
    yield ast.Try(body, [], [], [ast.Pass()])


def extract_function(code: Code, around: Surroundings) -> Iterator[str]:
    """Compute an assigned or returned value in a new function; move the whole cell into one."""
    (new,) = unused(code, around, "made_by")
    for statement in code.statements:
        match statement:
            case ast.Assign(value=value) | ast.Return(value=ast.expr() as value):
                if isinstance(value, ast.Name | ast.Constant):
                    continue
                function = code.function(statement)
                given: list[str] = []
                if function is not None:
                    local = stored(function) | {a.arg for a in function.args.args}
                    given = sorted(local & loaded(value))
                head = _function(new, given, [ast.Return(value)])
                call = ast.Call(name(new), [name(one) for one in given], [])
                yield from restate(code, statement, head, rebuild(statement, {value: call}))
    yield from _cell_as_function(code, around)


def _cell_as_function(code: Code, around: Surroundings) -> Iterator[str]:
    (new,) = unused(code, around, "solve")
    last = code.tree.body[-1] if code.tree.body else None
    bare = [last] if isinstance(last, ast.Expr) else []
    body = code.tree.body[:-1] if bare else code.tree.body
    imported = [n for n in ast.walk(code.tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    inner = [n for n in ast.walk(code.tree) if isinstance(n, NEST)]
    if not body or imported or inner:
        return
    names = sorted(n for n in stored(code.tree) if n in around.words)
    declared: list[ast.stmt] = [ast.Global(names)] if names else []
    head = _function(new, [], [*declared, *body])
    tail = "\n".join(ast.unparse(statement) for statement in bare)
    yield f"{ast.unparse(fixed(head))}\n{new}()\n{tail}"


def _function(new: str, given: list[str], body: list[ast.stmt]) -> ast.FunctionDef:
    arguments = ast.arguments([], [ast.arg(one) for one in given], None, [], [], None, [])
    return ast.FunctionDef(new, arguments, body, [], lineno=0)


def lambda_for_function(code: Code, around: Surroundings) -> Iterator[str]:
    """A lambda in place of a function that only returns a value."""
    for statement in code.statements:
        match statement:
            case ast.FunctionDef(name=id_, args=arguments, body=[*rest, ast.Return(value=value)]):
                told = len(rest) == 1 and ast.get_docstring(statement) is not None
                if value is not None and (not rest or told):
                    one = ast.Lambda(arguments, value)
                    yield from restate(code, statement, assign(id_, one))


def else_after_return(code: Code, around: Surroundings) -> Iterator[str]:
    """Move a `return` after an `if` into its `else`, or join both in a conditional expression."""
    for one, other in _neighbours(code):
        match one, other:
            case (
                ast.If(test=test, body=[ast.Return(value=ast.expr() as yes)], orelse=[]),
                ast.Return(value=ast.expr() as no),
            ):
                branch = ast.If(test, [ast.Return(yes)], [ast.Return(no)])
                yield code.edit([(one, "pass"), (other, code.laid(other, [branch]))])
                either = ast.Return(ast.IfExp(test, yes, no))
                yield code.edit([(one, "pass"), (other, code.laid(other, [either]))])


OPERATORS: dict[str, Operator] = {
    "rename locals": rename_locals,
    "rename what only the cell names": rename_globals,
    "another name for a module": alias_module,
    "another name for a function": alias_function,
    "arguments by name": name_arguments,
    "arguments by position": place_arguments,
    "arguments in another order": order_arguments,
    "a function's other path": another_path,
    "another spelling of an operation": spell_operation,
    "mirror a condition": mirror,
    "parenthesise": parenthesise,
    "a list of a generator": make_list,
    "introduce a variable": introduce_variable,
    "inline a variable": inline_variable,
    "a loop for a comprehension": loop_for_comprehension,
    "a comprehension for a loop": comprehension_for_loop,
    "while for a range": while_for_range,
    "another range": number_turns,
    "split an assignment": split_targets,
    "join assignments": join_targets,
    "two statements on a line": join_lines,
    "spell a step": spell_step,
    "annotate": annotate,
    "document": document,
    "wrap in a block": wrap_in_block,
    "extract a function": extract_function,
    "lambda for a function": lambda_for_function,
    "else after return": else_after_return,
}
