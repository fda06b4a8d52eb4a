"""What this file's functions are called with, gathered before anything is judged."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import calls

if TYPE_CHECKING:
    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.scopes import Scope
    from audit.risk.python.values import Value

_MAX_CALLS = 64


def learn(ev: Evaluator) -> None:
    """Tell this file's functions what they are called with, and forget what was found out without it."""
    for node in ev.outline.nodes:
        if isinstance(node, ast.Call):
            for scope, instance in ev.value(node.func).scopes:
                _learn(ev, node, scope, instance=instance)
    ev.forget_guesses()


def _learn(ev: Evaluator, node: ast.Call, scope: Scope, *, instance: bool) -> None:
    if scope.is_class and not instance:
        for binding in scope.names.get("__init__", ()):
            if binding.how == "scope":
                _learn(ev, node, binding.detail, instance=True)
        return
    if not scope.is_function:
        return
    given: dict[str, Value] = dict(zip(scope.arguments(), calls.positional(ev, node), strict=False))
    for name, value in (given | calls.keywords(ev, node)).items():
        known = ev.arguments.setdefault((id(scope), name), [])
        if len(known) < _MAX_CALLS:
            known.append(value)
