"""Mutants of a module: its functions with one small change each, made on the syntax tree.

Only the bodies of functions are changed: not decorators, defaults, annotations, docstrings, texts or the arguments of
``raise``. A mutant is applied by exchanging the code object of the live function, so that every module that has
imported the function has it. Code that Spark's executors import is therefore not mutated: tests on the driver have to
notice a mutant.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "least": "greatest", "greatest": "least",
    "floor": "ceil", "ceil": "floor", "asc": "desc", "desc": "asc", "isNull": "isNotNull", "isNotNull": "isNull",
    "array_min": "array_max", "array_max": "array_min", "eqNullSafe": "__eq__",
}  # fmt: skip
"""Names of functions and methods that are exchanged."""
QUIET_ARGUMENTS = {"dtype", "strict"}
"""Keyword arguments that are neither left out nor changed: they restate or check what is so without them."""
JOINS = {"left": "inner", "full": "inner", "left_anti": "left_semi", "left_semi": "left_anti"}
"""Kinds of Spark joins that are exchanged."""


@dataclass(frozen=True, slots=True)
class Mutant:
    file: str
    """Below the package, e.g. `precision/certify.py`."""
    function: str
    """The outermost function, e.g. `Sequencer.test`."""
    line: int
    change: str
    """The changed piece of source before and after; with a number where the function has the same change twice."""
    code: CodeType

    @property
    def key(self) -> str:
        return f"{self.file} {self.function}: {self.change}"


@dataclass(frozen=True, slots=True)
class _Edit:
    """``owner.field``, or the element ``index`` of that list, becomes ``after``."""

    owner: ast.AST
    field: str
    index: int | None
    after: ast.AST

    @property
    def before(self) -> ast.AST:
        value = getattr(self.owner, self.field)
        node: ast.AST = value if self.index is None else value[self.index]
        return node

    @contextmanager
    def made(self) -> Iterator[None]:
        before = self.before
        self._set(self.after)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.index] = node


def mutants_of(package: Path, file: str) -> list[Mutant]:
    """All mutants of ``file`` (below ``package``), in the order of the source."""
    path = package / file
    tree = ast.parse(path.read_text())
    found, seen = [], Counter[str]()
    for name, function in _functions(tree.body):
        for edit in _edits(function):
            change = _change(edit.before, edit.after)
            with edit.made():
                compiled = compile(ast.fix_missing_locations(tree), str(path), "exec")
            code = next(code for code in _codes(compiled) if code.co_qualname == name)
            seen[f"{name}: {change}"] += 1
            number = seen[f"{name}: {change}"]
            line = getattr(edit.before, "lineno", function.lineno)
            found.append(Mutant(file, name, line, change + (f" ({number})" if number > 1 else ""), code))
    return found


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The live function has the mutant's code meanwhile."""
    function = live_function(mutant.file, mutant.function)
    original = function.__code__
    function.__code__ = mutant.code
    try:
        yield
    finally:
        function.__code__ = original


def live_function(file: str, name: str) -> FunctionType:
    """The function object, without what decorators put around it."""
    owner: Any = importlib.import_module("catalog_enrichment." + file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        owner = vars(owner)[part]
    while not isinstance(owner, FunctionType) or hasattr(owner, "__wrapped__"):
        if isinstance(owner, property):
            owner = owner.fget
        elif isinstance(owner, functools.cached_property):
            owner = owner.func
        else:
            owner = owner.__wrapped__ if hasattr(owner, "__wrapped__") else owner.__func__
    return owner


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _change(before: ast.AST, after: ast.AST) -> str:
    """The edit in words, short where only a part of a long statement changes."""
    if isinstance(before, ast.If) and isinstance(after, ast.If):
        return f"`if {_shown(before.test)}` negated"
    if isinstance(before, ast.Call) and isinstance(after, ast.Call) and before.func is after.func:
        (dropped,) = {*before.args, *before.keywords} - {*after.args, *after.keywords}
        return f"`{_shown(before.func)}(...)` without `{_shown(dropped)}`"
    return f"`{_shown(before)}` -> `{_shown(after)}`"


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} ... {text[-25:]}"


def _edits(function: ast.FunctionDef) -> Iterator[_Edit]:
    for index, statement in enumerate(function.body):
        if not _is_text(statement):
            yield from _edits_at(function, "body", index, statement)


def _edits_at(owner: ast.AST, field: str, index: int | None, node: ast.AST) -> Iterator[_Edit]:
    """The edits that replace ``node``, then those inside it."""
    yield from (_Edit(owner, field, index, after) for after in _replacements(node))
    if isinstance(node, ast.Call):
        yield from (_Edit(owner, field, index, after) for after in _with_one_argument_less(node))
    if isinstance(node, ast.keyword) and node.arg in QUIET_ARGUMENTS:
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args" if isinstance(node, ast.FunctionDef) else ""):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for position, child in children:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Raise | ast.JoinedStr) and not _is_text(child):
                yield from _edits_at(node, name, position, child)
            elif isinstance(child, ast.Raise):
                yield _Edit(node, name, position, ast.Pass())


def _is_text(node: ast.AST) -> bool:
    """A docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=[op, *rest], comparators=comparators) if type(op) in COMPARISONS:
            yield ast.Compare(left, [COMPARISONS[type(op)](), *rest], comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in OPERATORS:
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value) if value in JOINS:
            yield ast.Constant(JOINS[value])
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name], node.ctx)
        case ast.Attribute(value=value, attr=name) if name in NAMES:
            yield ast.Attribute(value, NAMES[name], node.ctx)
        case ast.Subscript(value=value, slice=ast.Constant(value=0), ctx=ctx):
            yield ast.Subscript(value, ast.Constant(-1), ctx)
        case ast.Subscript(value=value, slice=ast.Slice(), ctx=ast.Load()):
            yield value
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test, body=body, orelse=orelse) if not isinstance(test, ast.UnaryOp):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.comprehension(target=target, iter=iterated, ifs=[first, *rest]):
            yield ast.comprehension(target, iterated, rest, node.is_async)
            yield ast.comprehension(target, iterated, [ast.UnaryOp(ast.Not(), first), *rest], node.is_async)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Call(func=ast.Name(id="sorted" | "bool" | "abs" | "set" | "round"), args=[only], keywords=[]):
            yield only
        case ast.Call(func=ast.Attribute(value=value, attr="where" | "distinct" | "drop")):
            yield value


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with_one_argument_less(call: ast.Call) -> Iterator[ast.AST]:
    if len(call.args) > 1:
        yield ast.Call(call.func, call.args[:-1], call.keywords)
    for index, keyword in enumerate(call.keywords):
        if keyword.arg not in QUIET_ARGUMENTS:
            yield ast.Call(call.func, call.args, call.keywords[:index] + call.keywords[index + 1 :])
