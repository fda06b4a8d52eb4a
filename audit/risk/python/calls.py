"""What calls give back: built-in look-ups, decoders of constants, this file's functions, and all others."""

from __future__ import annotations

import ast
import copy
from typing import TYPE_CHECKING

from audit.risk.places import is_private
from audit.risk.python import results, rules, texts
from audit.risk.python.lookups import VARIABLES, fetched
from audit.risk.python.values import (
    HOLE,
    NOTHING,
    UNKNOWN,
    Value,
    elements,
    merge,
    merged_taints,
    replace,
    tainted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audit.risk.python.evaluate import Evaluator

_PASSED_ON = frozenset(
    {
        "list",
        "tuple",
        "iter",
        "dict",
        "set",
        "sorted",
        "copy.copy",
        "copy.deepcopy",
        "os.environ.copy",
        "itertools.chain",
        "zip",
        "enumerate",
        "filter",
        "typing.cast",
        "contextlib.closing",
        "io.StringIO",
        "io.BytesIO",
        "contextlib.ExitStack().enter_context",
        "frozenset",
    }
)
LOOKED_UP = frozenset({"__getattribute__", "__getattr__"})


def keywords(ev: Evaluator, node: ast.Call) -> dict[str, Value]:
    """Return the keyword arguments of a call, those of a literal dictionary included."""
    if not node.keywords:
        return {}
    given = {keyword.arg: ev.value(keyword.value) for keyword in node.keywords if keyword.arg}
    for spread in (ev.value(keyword.value) for keyword in node.keywords if not keyword.arg):
        given |= {key: part for key, part in spread.items or () if isinstance(key, str)} | {"**": spread}
    return given


def positional(ev: Evaluator, node: ast.Call) -> list[Value]:
    """Return the positional arguments of a call, starred ones unfolded."""
    args: list[Value] = []
    for arg in node.args:
        if type(arg) is ast.Starred:
            inner = ev.value(arg.value)
            args += [part for _, part in inner.items] if inner.items else [elements(inner)]
        else:
            args.append(ev.value(arg))
    return args


class Call:
    """One call with what it is given."""

    __slots__ = ("_names", "args", "attr", "base", "given", "keywords", "node")

    def __init__(self, ev: Evaluator, node: ast.Call, names: Sequence[str]) -> None:
        self.node = node
        self._names = names
        self.args = positional(ev, node)
        self.keywords = keywords(ev, node)
        # The method's name and its object.
        self.attr, self.base = receiver(ev, node)
        # Where the arguments come from. A child's own environment is not handed to anybody.
        own = self.keywords
        if "env" in own:
            own = {key: value for key, value in own.items() if key != "env"}
        self.given = sent(names, self.args, own) or {}

    @property
    def reaching(self) -> Mapping[str, ast.AST]:
        """Return where everything that the call gets to see comes from."""
        own = merged_taints((self.base,))
        if own and any("headers" in name for name in self._names):
            # What is already in the headers goes with the request, not with setting one more.
            own = {label: node for label, node in own.items() if label != "variable"}
        return {**self.given, **own} if own else self.given

    def instead(self, args: Sequence[Value]) -> Call:
        """Return the same call with other arguments."""
        other = copy.copy(self)
        other.args, other.keywords = list(args), {}
        return other


def call_of(ev: Evaluator, node: ast.Call, func: Value) -> Call:
    """Return a call with what it is given: always the same one once that rests on no guess and nothing is assumed."""
    known = ev.fixed_calls.get(id(node))
    if known is not None:
        return known
    settled = ev.settled
    if settled and (known := ev.calls.get(id(node))) is not None:
        return known
    mark = ev.memo.met
    known = Call(ev, node, func.names)
    if ev.memo.met == mark:
        ev.fixed_calls[id(node)] = known
    elif settled:
        ev.calls[id(node)] = known
    return known


def sent(names: Sequence[str], args: Sequence[Value], keywords: Mapping[str, Value]) -> Mapping[str, ast.AST] | None:
    """Return where what a call is given comes from, but for a credential that stands where one belongs."""
    taints = merged_taints((*args, *keywords.values()) if keywords else args)
    if not taints or "variable" not in taints:
        return taints
    logs_in = any(map(_logs_in, names))
    apart = [] if logs_in else [part for arg in args for part in _outside_headers(names, args, arg)]
    for key, value in keywords.items():
        if key in rules.CREDENTIAL_TABLES or (value.items and "grant_type" in [name for name, _ in value.items]):
            apart += [part for name, part in value.items or ((None, value),) if not rules.carries_credentials(name)]
        elif key not in rules.CREDENTIAL_ARGUMENTS:
            apart.append(value)
    if "variable" in (merged_taints(apart) or {}):
        return taints
    return {label: node for label, node in taints.items() if label != "variable"}


def _outside_headers(names: Sequence[str], args: Sequence[Value], arg: Value) -> list[Value]:
    """Return what of an argument does not stand in a header for credentials, as far as headers are set here."""
    if any(name.rpartition(".")[2] in rules.HEADER_SETTERS for name in names):
        return [] if any(map(rules.carries_credentials, args[0].consts)) else [arg]
    if arg.items and any("headers" in name for name in names):
        return [part for key, part in arg.items if not rules.carries_credentials(key)]
    return [arg]


def _logs_in(name: str) -> bool:
    """Return whether the arguments of a call say who is calling: a client that is made, or a log-in."""
    last = name.rpartition(".")[2]
    return last in rules.CREDENTIAL_CALLS or (last[:1].isupper() and not last.endswith("Request"))


def result(ev: Evaluator, node: ast.Call) -> Value:
    """Return what a call may give back."""
    func = ev.value(node.func)
    call = call_of(ev, node, func)
    attr, base, args = call.attr, call.base, call.args
    found = applied(ev, node, func, args, call.keywords)
    if attr in LOOKED_UP and args:
        found = [fetched(ev, base if len(args) == 1 else args[0], args[-1])]
    elif attr and texts.is_known(base):
        found += texts.method(ev, base, attr, args, call.keywords)
    given = merge(found) if found else UNKNOWN
    if given is NOTHING:
        given = UNKNOWN
    if func.dynamic and not given.names:
        given = replace(given, dynamic=True)
    if attr == "to_bytes" and not given.consts:
        given = tainted(given, {"decoded": node})
    if attr == "hex" and not given.consts:
        given = tainted(given, {"encoded": node})
    if not rules.KEEP_NOTHING.isdisjoint(func.names):
        return replace(given, taints=None) if given.taints else given
    if not VARIABLES.isdisjoint(func.names):
        return tainted(given, merged_taints(args[1:]))
    own = merged_taints((base, func))
    return tainted(given, {**own, **call.given} if own and call.given else own or call.given)


def receiver(ev: Evaluator, node: ast.Call) -> tuple[str, Value]:
    """Return the name and the object of the method that a call calls, or an empty name."""
    if type(node.func) is ast.Attribute:
        return node.func.attr, ev.value(node.func.value)
    return ev.value(node.func).owner or ("", NOTHING)


def applied(
    ev: Evaluator, node: ast.Call, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> list[Value]:
    """Return what calling a value with arguments may give."""
    found: list[Value] = []
    for name in func.names:
        found.append(_outside(ev, node, name, func, args, keywords))
    for scope, instance in func.scopes:
        if scope.is_class and not instance:
            found.append(Value(scopes=((scope, True),)))
        elif scope.is_function:
            bound = dict(zip(scope.arguments(), args, strict=False)) | keywords
            found.append(ev.returned(scope, bound))
    return found


def instance_of(value: Value) -> Value:
    """Return the value of an object of a class."""
    return Value(
        names=tuple(f"{name}()" for name in value.names), scopes=tuple((scope, True) for scope, _ in value.scopes)
    )


def _outside(
    ev: Evaluator, node: ast.Call, name: str, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> Value:
    first = args[0] if args else UNKNOWN
    known = results.special(ev, node, name, func, args, keywords)
    if known is not None:
        return known
    consts = results.folded(name, args)
    if name in _PASSED_ON and args:
        given = replace(first, names=(*first.names, f"{name}()"))
    elif name in {"pathlib.Path.home", "pathlib.Path.cwd"}:
        given = Value(("pathlib.Path()",), consts, built=bool(consts), open=not consts)
    else:
        given = Value(
            # A result that is known needs no name; a path keeps its methods.
            () if consts and not name.startswith("pathlib.") else (f"{name}()",),
            consts,
            built=bool(consts),
            open=not consts or any(arg.open for arg in args),
        )
    label = rules.source_of(name)
    if label == "file" and _reads_secret(first if args else receiver(ev, node)[1]):
        label = "secret"
    if label is not None and label != "env":
        given = tainted(given, {label: node})
    return given


def _reads_secret(path: Value) -> bool:
    return any(is_private(const.replace(HOLE, "*")) for const in path.consts if isinstance(const, str))
