"""What this file's functions are called with, gathered before anything is judged."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import calls
from audit.risk.python.values import NOTHING, elements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.scopes import Scope
    from audit.risk.python.values import Value

_MAX_CALLS = 64
# What calls a function once for each element.
# Expressions that are no function whatever is in them.
_NO_FUNCTIONS = frozenset({ast.Constant, ast.JoinedStr, ast.BinOp, ast.Compare, ast.UnaryOp})
_FOR_EACH = frozenset({"map", "imap", "imap_unordered", "map_async", "filter", "starmap", "apply", "applymap"})


def learn(ev: Evaluator) -> None:
    """Tell this file's functions what they are called with, and forget what was found out without it."""
    if any(scope.is_function for scope in ev.outline.scopes):
        for node in ev.outline.calls:
            func = ev.value(node.func)
            for scope, instance in func.scopes:
                _learn(ev, node, scope, instance=instance)
            if not func.scopes:
                _learn_handed_on(ev, node, func)
    ev.forget_guesses()


def _learn(ev: Evaluator, node: ast.Call, scope: Scope, *, instance: bool) -> None:
    if scope.is_class and not instance:
        for binding in scope.names.get("__init__", ()):
            if binding.how == "scope":
                _learn(ev, node, binding.detail, instance=True)
        return
    if not scope.is_function:
        return
    if id(node) in ev.outline.looped:
        ev.repeated.add(id(scope))
    given: dict[str, Value] = dict(zip(scope.arguments(), calls.positional(ev, node), strict=False))
    _told(ev, scope, given | calls.keywords(ev, node))


def _told(ev: Evaluator, scope: Scope, given: Mapping[str, Value]) -> None:
    for name, value in given.items():
        known = ev.arguments.setdefault((id(scope), name), [])
        if len(known) < _MAX_CALLS:
            known.append(value)


def _last_name(node: ast.Call, func: Value) -> str:
    if isinstance(node.func, ast.Attribute | ast.Name):
        return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    return func.owner[0] if func.owner is not None else func.names[0].rpartition(".")[2] if func.names else ""


def _functions(value: Value) -> list[Scope]:
    return [scope for scope, _ in value.scopes if scope.is_function]


def _learn_handed_on(ev: Evaluator, node: ast.Call, func: Value) -> None:
    """Learn from a function that is given to others to call: `submit(f, x)`, `Thread(target=f, args=(x,))`."""
    given = (*node.args, *(keyword.value for keyword in node.keywords))
    for arg in given:
        if type(arg) not in _NO_FUNCTIONS and ev.value(arg).scopes:
            break
    else:
        return
    args, keywords = calls.positional(ev, node), calls.keywords(ev, node)
    for place, value in enumerate((*args, *keywords.values())):
        for scope in _functions(value):
            last = _last_name(node, func)
            beside = [*args[place + 1 :], *keywords.get("args", NOTHING).items_values()]
            if last in _FOR_EACH or id(node) in ev.outline.looped:
                ev.repeated.add(id(scope))
            if value is keywords.get("key") and args:
                # What things are sorted or chosen by is asked of each of them.
                beside = [elements(args[0])]
            elif last in _FOR_EACH:
                beside = [elements(one) for one in beside]
            elif len(beside) == 1 and beside[0].items is not None:
                beside = beside[0].items_values()
            _told(ev, scope, dict(zip(scope.arguments(), beside, strict=False)))
