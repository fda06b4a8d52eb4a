"""Programs that take all there is: loops that only grow or start something, and numbers that nobody needs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import rules
from audit.risk.python.texts import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.scopes import Outline

_ENDLESS_ITERATORS = frozenset({"itertools.count", "itertools.cycle"})
_CROSSING = frozenset({"itertools.product"})
_MAX_REPEAT = 1000
_COLLECTING = frozenset({"list", "tuple", "set", "frozenset", "sorted", "sum", "deque"})
_ENORMOUS = 1 << 32
_ENDLESS_POWER = 1 << 28
_EXITS = (ast.Break, ast.Return, ast.Raise, ast.Yield, ast.YieldFrom, ast.Await)
_ENDLESS = frozenset({"count", "cycle", "repeat"})
# What may end a recursion: a choice, or whoever asks for the next element.
_CHOOSING = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.Try, ast.For, ast.While, ast.Raise, ast.Assert, ast.With),
    *(ast.Yield, ast.YieldFrom, ast.Await, ast.Lambda, ast.comprehension),
)
# Calls that take their time, so that a loop around them is no flood.
_WAITING = frozenset(
    {"sleep", "wait", "recv", "recvfrom", "recv_into", "receive", "accept", "poll", "select", "input", "join", "read"}
    | {
        "readline",
        "get_message",
        "listen",
        "run_forever",
        "handle_request",
        "getch",
        "result",
        "run_pending",
        "consume",
    }
)
_GROWING = frozenset({"append", "appendleft", "extend", "insert", "add", "update", "write", "writelines"})
# What takes a thread or starts a program each time; forks have a rule of their own.
_STARTING = frozenset({"Thread", "Timer", "Popen", "start_new_thread", "start", "submit"})
_SHOWN = frozenset({"stdout", "stderr", "__stdout__", "__stderr__"})
# Calls without arguments that never give anything else.
_CONSTANT_MAKERS = frozenset({"int", "str", "float", "bool", "bytes", "list", "dict", "tuple", "set", "object"})
# What makes things without waiting for anybody: a loop that calls anything else may be a server.
_MAKING = frozenset(
    {"bytes", "bytearray", "str", "list", "dict", "set", "tuple", "object", "range", "len", "print", "urandom"}
    | {"zeros", "ones", "empty", "full", "copy", "chr", "deepcopy", "token_bytes", "token_hex", "array"}
    | {"open", "socket", "urandom", "randbytes", "format", "encode", "append", "pipe", "socketpair", "dup"}
    | {"getattr", "attrgetter", "__getattribute__", "__import__"}
    | {"TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"}
)


def places(outline: Outline, ev: Evaluator) -> Iterator[ast.AST]:
    """Yield the loops that only grow, and the multiplications that make something enormous."""
    for loop in (*outline.endless, *outline.counted):
        if _only_grows(loop, ev):
            yield loop
    for call in outline.calls:
        given = call.args[0] if len(call.args) == 1 and _name(call) in _COLLECTING else None
        if isinstance(given, ast.Call) and (_is_endless(ev, given) or _is_vast(ev, given)):
            yield call
    for comprehension in outline.gathered:
        source = comprehension.generators[0].iter
        if isinstance(source, ast.Call) and _is_endless(ev, source):
            yield comprehension
    for product in outline.products:
        if isinstance(product.op, ast.Pow):
            if _is_endless_power(ev, product):
                yield product
            continue
        sizes = [size for side in (product.left, product.right) for size in ev.value(side).consts]
        if any(isinstance(size, int) and size >= _ENORMOUS for size in sizes):
            yield product


def floods(outline: Outline, ev: Evaluator) -> Iterator[ast.AST]:
    """Yield the loops that send without ever waiting, and without an end."""
    for loop in outline.endless:
        sends = False
        for part in _inside(loop.body, ev):
            if isinstance(part, _EXITS) or (isinstance(part, ast.Call) and _name(part) in _WAITING):
                break
            sends = sends or (isinstance(part, ast.Call) and _speaks(ev, part))
        else:
            if sends:
                yield loop


def _speaks(ev: Evaluator, call: ast.Call) -> bool:
    found = [rules.rule_of(name) or "" for name in ev.value(call.func).names]
    return any(rule.startswith(("py.net.client", "py.net.socket", "py.net.dns", "py.net.mail")) for rule in found)


def recursions(outline: Outline) -> Iterator[ast.AST]:
    """Yield the functions that call themselves whatever happens, where Python's own limit of that is changed."""
    if not any(_name(call) == "setrecursionlimit" for call in outline.calls):
        return
    called = {call.func.id for call in outline.calls if isinstance(call.func, ast.Name)}
    for scope in outline.scopes:
        node = scope.node
        if not isinstance(node, ast.FunctionDef) or node.name not in called or node.name in scope.names:
            continue
        # A method may call a function of the same name.
        method = scope.parent is not None and scope.parent.is_class
        other = node.name in outline.module.names or node.name in rules.BUILTINS or outline.starred
        if not (method and other) and _only_recurs(node):
            yield node


def _only_recurs(node: ast.FunctionDef) -> bool:
    again = False
    for part in ast.walk(node):
        if isinstance(part, _CHOOSING):
            return False
        again = again or (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == node.name)
    return again


def _is_endless(ev: Evaluator, call: ast.Call) -> bool:
    return not _ENDLESS_ITERATORS.isdisjoint(ev.value(call.func).names)


def _is_vast(ev: Evaluator, call: ast.Call) -> bool:
    """Return whether an iterator over combinations gives more than anybody can hold."""
    if _CROSSING.isdisjoint(ev.value(call.func).names):
        return False
    repeat = next((ev.value(keyword.value).consts for keyword in call.keywords if keyword.arg == "repeat"), ())
    times = max((number for number in repeat if isinstance(number, int)), default=1)
    total = 1
    for arg in call.args:
        total *= max(1, len(parts(ev.value(arg)) or ()))
    return 0 < times < _MAX_REPEAT and total**times >= _ENORMOUS


def counts_for_ever(loop: ast.For | ast.AsyncFor) -> bool:
    """Return whether a loop goes over something without an end."""
    call = loop.iter
    if not isinstance(call, ast.Call):
        return False
    if _name(call) == "iter" and len(call.args) == 2:
        # `iter(read, b"")` ends when there is no more; `iter(int, 1)` never does.
        maker = call.args[0]
        if isinstance(maker, ast.Lambda):
            return not any(isinstance(part, ast.Call) for part in ast.walk(maker.body))
        return isinstance(maker, ast.Name) and maker.id in _CONSTANT_MAKERS
    return _name(call) in _ENDLESS


def _is_endless_power(ev: Evaluator, power: ast.BinOp) -> bool:
    bases, exponents = ev.value(power.left).consts, ev.value(power.right).consts
    return any(
        isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent >= _ENDLESS_POWER
        for base in bases
        for exponent in exponents
    )


def _only_grows(loop: ast.While | ast.For | ast.AsyncFor, ev: Evaluator) -> bool:
    # One that does nothing takes a processor for as long as it may run, which is what time limits are for.
    grows = False
    for part in _inside(loop.body, ev):
        if isinstance(part, _EXITS):
            return False
        if isinstance(part, ast.Call):
            name = _name(part) or _looked_up(part, ev)
            if name in _STARTING or (name in _GROWING and not _is_shown(part)):
                grows = True
            elif name not in _MAKING:
                return False
        elif isinstance(part, ast.AugAssign | ast.Assign):
            grows = grows or _is_growth(part)
    return grows


def _inside(body: list[ast.stmt], ev: Evaluator) -> Iterator[ast.AST]:
    """Yield everything in a loop but calls that only make a constant, and what is in them."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Call) and ev.value(part).consts:
            continue
        yield part
        waiting += ast.iter_child_nodes(part)


def _looked_up(call: ast.Call, ev: Evaluator) -> str:
    """Return the name of a method that is called by what a look-up gave."""
    found = ev.value(call.func)
    if found.owner is not None:
        return found.owner[0]
    return found.names[0].rpartition(".")[2].removesuffix("()") if found.names else ""


def _is_shown(call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(owner, ast.Attribute) and owner.attr in _SHOWN


def _is_growth(node: ast.AugAssign | ast.Assign) -> bool:
    """Return whether an assignment makes its target longer: a counter or a sum of numbers does not."""
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    value = node.value
    if isinstance(node, ast.Assign):
        if isinstance(target, ast.Subscript):
            return isinstance(value, ast.BinOp | ast.Call)
        if not isinstance(value, ast.BinOp) or not isinstance(value.op, ast.Add):
            return False
        return _same(value.left, target) and (_same(value.right, target) or _is_long(value.right))
    return isinstance(node.op, ast.Add) and (_same(value, target) or _is_long(value))


def _same(one: ast.expr, other: ast.expr) -> bool:
    return isinstance(one, ast.Name) and isinstance(other, ast.Name) and one.id == other.id


def _is_long(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _is_long(node.left) or _is_long(node.right)
    return isinstance(node, ast.List | ast.Tuple) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _name(call: ast.Call) -> str:
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
