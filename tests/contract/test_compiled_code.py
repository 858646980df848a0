"""What the compiler of the hot code (docs/decisions/0043) takes and does wrong without a word is looked for in it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import hatch_build

FILES = [
    Path(file) for package, modules in hatch_build.COMPILED.values() for file in hatch_build.sources(package, modules)
]

LEFT_AT_ONCE = ("asyncio.timeout(", "self._writing", "reading")
"""Contexts that wait for nothing when they are left, however that is."""
PURE = {"len", "find", "end", "strip"}
"""Functions that may be called twice."""


def within(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All below them, and nothing of functions that are made there."""
    for node in nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from within(ast.iter_child_nodes(node))


def faults(source: str, protocols: frozenset[str] = frozenset()) -> list[str]:
    """With their lines. `protocols`: the names of classes that are some."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try):
            handled = [*(line for handler in node.handlers for line in handler.body), *node.finalbody]
            # The error would be the current one of everything that runs meanwhile, and of some of it for good.
            found += [
                f"{one.lineno}: waits while an error is handled"
                for one in within(handled)
                if isinstance(one, ast.Await | ast.AsyncWith | ast.AsyncFor | ast.Yield | ast.YieldFrom)
            ]
        elif isinstance(node, ast.AsyncWith):
            # The same, when it is left by an error.
            found += [
                f"{node.lineno}: waits when `{told}` is left"
                for told in (ast.unparse(item.context_expr) for item in node.items)
                if not told.startswith(LEFT_AT_ONCE)
            ]
        elif isinstance(node, ast.Slice):
            # Bounds are evaluated twice, unless what is sliced is of a type of Python's own.
            found += [
                f"{one.lineno}: a slice calls {called}"
                for one in ast.walk(node)
                if isinstance(one, ast.Call) and (called := ast.unparse(one.func).rpartition(".")[2]) not in PURE
            ]
        elif isinstance(node, ast.ClassDef):
            # Such a default is left out.
            found += [
                f"{line.lineno}: a protocol or None, and its default in the class"
                for line in node.body
                if isinstance(line, ast.AnnAssign)
                and isinstance(line.value, ast.Constant)
                and line.value.value is None
                and not node.decorator_list
                and protocols & {name.id for name in ast.walk(line.annotation) if isinstance(name, ast.Name)}
            ]
    return found


def protocols() -> frozenset[str]:
    trees = [ast.parse(file.read_text()) for file in FILES]
    return frozenset(
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(base) for base in node.bases}
    )


def test_nothing_is_compiled_that_the_compiler_does_wrong() -> None:
    known = protocols()
    assert "Stream" in known
    found = {f"{file}:{fault}" for file in FILES for fault in faults(file.read_text(), known)}
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    try:\n        g()\n    except E:\n        await h()",
        "async def f():\n    try:\n        g()\n    finally:\n        await h()",
        "async def f():\n    async with g():\n        pass",
        "def f():\n    return view[write(view):]",
        "class C:\n    stream: Stream | None = None",
    ],
)
def test_each_such_thing_is_noticed(source: str) -> None:
    assert len(faults(source, frozenset({"Stream"}))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    try:\n        await g()\n    except E:\n        x = lambda: (yield)\n        return x",
        "async def f():\n    async with asyncio.timeout(1):\n        await g()",
        "def f():\n    return text[begin:len(text)]",
        "class C:\n    size: int | None = None",
    ],
)
def test_what_is_done_right_is_let_be(source: str) -> None:
    assert not faults(source, frozenset({"Stream"}))
