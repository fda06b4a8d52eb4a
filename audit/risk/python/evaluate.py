"""Find out what expressions mean without running them: on demand, each once, whatever the order of the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import calls, expressions, folding, rules, texts
from audit.risk.python.lookups import variable
from audit.risk.python.memo import MAX_FRAMES, Memo
from audit.risk.python.values import (
    HOLE,
    NOTHING,
    OWN_FILE,
    UNKNOWN,
    Value,
    constant,
    elements,
    merge,
    merged_taints,
    named,
    replace,
    tainted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from audit.risk.python.scopes import Binding, Outline, Scope
    from audit.risk.python.values import Constant

_MAX_DEPTH = 90
_MAX_STEPS = 60_000
# Steps spent on following single calls; after that, a function gives what it gives over all its calls.
_MAX_ASSUMED = 600
_NAMESPACES = ("__dict__", "globals()", "locals()", "vars()", "sys.modules", "__builtins__", "builtins")
_SAME_OBJECT = frozenset({"__call__", "__func__", "__wrapped__", "__get__", "__await__", "__enter__", "__iter__"})
_ENVIRONMENT = frozenset({"os.environ", "os.environb"})
_FRAME_TABLES = frozenset({"__globals__", "f_globals", "f_locals", "f_builtins", "func_globals"})
# What leads from a class of this file to those above it: harmless, as long as it ends there.
CLIMBS = frozenset({"__bases__", "__base__", "__mro__", "mro"})
_SPECIAL_ATTRIBUTES = _FRAME_TABLES | CLIMBS | {"parent", "name", "__dict__"}
_MODULE_NAMES = {"__name__": "__main__", "__file__": OWN_FILE}


class Evaluator:
    """What is known of each expression of a file."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.too_deep: ast.AST | None = None
        # Calls with what they are given, as soon as that is known for good.
        self.calls: dict[int, calls.Call] = {}
        # Those that are the same whatever is assumed.
        self.fixed_calls: dict[int, calls.Call] = {}
        self._all_known = False
        self.arguments: dict[tuple[int, str], list[Value]] = {}
        # Functions that are called in a loop, or once for each of many.
        self.repeated: set[int] = set()
        self.memo = Memo()
        self._settled = self.memo.settled
        # Names that no scope binds.
        self._unbound: dict[str, Value] = {}
        self._circles = 0
        self._looking: dict[tuple[int, str], list[Value]] = {}
        self._depth = 0
        self._steps = 0
        self._assumed = 0
        self._running: list[Scope] = []
        self._climbing: list[Scope] = []

    def forget_guesses(self) -> None:
        """Find out again what was only guessed as long as nobody knew all calls."""
        self._all_known = True
        if self.arguments:
            self.memo.forget_guesses()

    @property
    def settled(self) -> bool:
        """Return whether all calls are known, and nothing is assumed."""
        return self._all_known and not self.memo.frames

    def texts(self) -> Iterator[str]:
        """Yield the texts that are known to stand or to come about in the file."""
        for value in self._settled.values():
            for const in value.consts:
                if type(const) is str:
                    yield const

    def repeats(self, node: ast.AST) -> bool:
        """Return whether a call is done again and again, in a loop of its own or in a function that is."""
        if id(node) in self.outline.looped:
            return True
        scope: Scope | None = self.outline.scope_of.get(id(node))
        while scope is not None and not scope.is_function:
            scope = scope.parent
        return scope is not None and id(scope) in self.repeated

    def value(self, node: ast.AST | None) -> Value:
        """Return all that is known of an expression."""
        if node is None:
            return UNKNOWN
        key = id(node)
        known = self._settled.get(key)
        if known is not None:
            return known
        if type(node) is ast.Constant:
            known = self._settled[key] = expressions.literal(node)
            return known
        handler = _HANDLERS.get(type(node))
        if handler is None:
            return UNKNOWN
        memo = self.memo
        known = memo.unsettled(key)
        if known is not None:
            return known
        self._steps += 1
        self._assumed += bool(memo.frames)
        if self._depth >= _MAX_DEPTH or self._steps > _MAX_STEPS:
            self.too_deep = self.too_deep or node
            return UNKNOWN
        self._depth += 1
        mark = memo.met
        try:
            found = handler(self, node)
        finally:
            self._depth -= 1
        memo.put(key, found, mark)
        return found

    # Names

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        start: Scope = self.outline.scope_of[id(node)]
        where: Scope | None = start
        while where is not None:
            if where.names.get(name) and (where is start or not where.is_class):
                if name in rules.LOOPHOLES:
                    break
                return self._bindings(where, name)
            where = where.parent
        return self.lookup(name, start, (node.lineno, node.col_offset))

    def lookup(self, name: str, scope: Scope, place: tuple[int, int]) -> Value:
        """Return what a name may stand for where it is used."""
        start: Scope | None = scope
        where = start
        while where is not None:
            bindings = where.names.get(name)
            if bindings and (where is start or not where.is_class):
                break
            where = where.parent
        if where is not None:
            bound = self._bindings(where, name)
            if name not in rules.LOOPHOLES or where.is_function:
                return bound
            if any(binding.certain and binding.place < place for binding in where.names[name]):
                return bound
            return merge([bound, self._outside(name, scope)])
        if name not in rules.BUILTINS and (around := _class_around(scope, name)) is not None:
            return self._bindings(around, name)
        if self.outline.starred:
            return self._outside(name, scope)
        known = self._unbound.get(name)
        if known is None:
            known = self._unbound[name] = self._outside(name, scope)
        return known

    def _outside(self, name: str, scope: Scope | None) -> Value:
        names: list[str] = []
        while scope is not None:
            for module in scope.stars:
                full = rules.canonical(f"{module}.{name}")
                if name not in rules.BUILTINS or rules.is_listed(full):
                    names.append(full)
            scope = scope.parent
        if name in _MODULE_NAMES:
            return constant(_MODULE_NAMES[name])
        if name == "__builtins__":
            names.append("builtins")
        elif name in rules.BUILTINS or name == "get_ipython":
            names.append(name)
        unbound = Value(dynamic=True, open=True) if self.outline.binds_anything else UNKNOWN
        return named(*names) if names else unbound

    def _bindings(self, scope: Scope, name: str) -> Value:
        key = (id(scope), name)
        if scope.may_vary and self.memo.frames:
            assumed = self.memo.assumed(key)
            if assumed is not None:
                return assumed
        known = self.memo.get(key)
        if known is not None:
            return known
        if key in self._looking:
            # A name that depends on itself: what it was before.
            self._circles += 1
            self.memo.guess()
            return merge(self._looking[key]) if self._looking[key] else UNKNOWN
        return self._gathered(key, scope.names[name], scope)

    def _gathered(self, key: tuple[int, str], bindings: list[Binding], scope: Scope) -> Value:
        found = self._looking[key] = []
        circles, mark = self._circles, self.memo.met
        try:
            for binding in bindings:
                found.append(self._binding(binding, scope, key[1], found))
        finally:
            del self._looking[key]
        merged = found[0] if len(found) == 1 else merge(found)
        # What was found on the way round a circle is only part of the truth.
        if circles == self._circles or not self._looking:
            self.memo.put(key, merged, mark)
        return merged

    def _binding(self, binding: Binding, scope: Scope, name: str, before: list[Value]) -> Value:
        how, detail = binding.how, binding.detail
        if how in {"value", "walrus"}:
            return self.value(binding.node)
        if how == "import":
            return named(rules.canonical(str(detail)))
        if how == "scope":
            return Value(scopes=((detail, False),))
        if how == "param":
            return self._parameter(scope, name, binding)
        if how == "item":
            if scope.may_vary:
                self.memo.guess()
            return elements(self.value(binding.node))
        if how == "part":
            found = self.value(binding.node)
            for index in detail:
                found = elements(found) if index is None else texts.item(found, index)
            return found
        if how == "aug":
            operator, looped = detail
            added = self.value(binding.node)
            return replace(texts.combine(operator, before[-1] if before else UNKNOWN, added), open=bool(looped))
        if how == "attribute":
            return self.attribute(self.value(binding.node), detail)
        if how == "content":
            inner, key = detail
            return Value(items=((key.value if key is not None else None, self._binding(inner, scope, name, before)),))
        return UNKNOWN

    def _parameter(self, scope: Scope, name: str, binding: Binding) -> Value:
        parent = scope.parent
        given = self.arguments.get((id(scope), name), [])
        if parent is not None and parent.is_class and scope.parameters()[:1] == [name]:
            own = Value(scopes=((parent, True),))
            if name in {"self", "cls"} or (self._all_known and not given):
                return own
            self.memo.guess()
            return merge([own, *given])
        self.memo.guess()
        kind = scope.annotation(name)
        told = [] if kind is None else [calls.instance_of(self.value(kind))]
        if binding.node is not None:
            told.append(self.value(binding.node))
        if name in rules.FIXTURES:
            told.append(named(rules.FIXTURES[name]))
        return merge([*(given or [UNKNOWN]), *told])

    # Expressions

    def _attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(self.value(node.value), node.attr)

    def attribute(self, base: Value, attr: str) -> Value:
        """Return what an attribute of a value may be."""
        if attr in _SAME_OBJECT or (base is UNKNOWN and attr not in _FRAME_TABLES and attr not in self.outline.fields):
            return base
        alone = len(base.names) == 1 and attr not in _SPECIAL_ATTRIBUTES and _is_plain(base)
        if alone and (attr not in self.outline.fields or self._is_module(base.names[0])):
            return self._outside_attribute(base.names[0], attr)
        found = [self._outside_attribute(name, attr) for name in base.names]
        for scope, instance in base.scopes:
            found.append(self._member(scope, attr, instance=instance))
        if attr in _FRAME_TABLES:
            found.append(named("module.__globals__"))
        if attr in self.outline.fields and not any(self._is_module(name) for name in base.names):
            found.append(self._field(attr))
        if "pathlib.Path()" in base.names and attr in {"parent", "name"}:
            consts = [folding.path_method(const, attr, ()) for const in base.consts]
            found.append(Value(names=("pathlib.Path()",), consts=tuple(const for const in consts if const)))
        if attr in CLIMBS and is_own_class(base):
            found.append(Value(names=("object",), items=((None, named("object")),), open=True))
        if attr == "__dict__":
            found.append(Value(scopes=base.scopes))
        result = tainted(merge(found) if found else UNKNOWN, merged_taints([base]))
        pieces, unknown = base.is_hidden_module(), base.dynamic and not result.names
        if pieces or unknown:
            result = replace(result, built=result.built or pieces, dynamic=result.dynamic or unknown)
        return replace(result, owner=(attr, base)) if base.consts or base.items is not None else result

    @staticmethod
    def _is_module(name: str) -> bool:
        return "(" not in name and name.partition(".")[0] in rules.STANDARD

    def _outside_attribute(self, name: str, attr: str) -> Value:
        if name == "sys" and attr in {"executable", "_base_executable"}:
            return constant("python3")
        if name.endswith(".__dict__"):
            return named(f"{name}.{attr}")
        if attr == "__file__" and "(" not in name and rules.import_rule(name) != "py.import.unknown":
            return constant(f"/usr/lib/python3/{name}.py")
        if attr == "__self__":
            return named(name.rpartition(".")[0] or "builtins")
        full = rules.canonical(f"{name}.{attr}")
        label = rules.source_of(full) if full in {"os.environ", "os.environb", "sys.argv"} else None
        if full == "os.sep":
            return constant("/")
        result = named(full)
        return tainted(result, {label: self.outline.module.node}) if label else result

    def _member(self, scope: Scope, attr: str, *, instance: bool) -> Value:
        if attr in scope.names and not scope.is_function:
            return self._bindings(scope, attr)
        # A class may be named as its own base, by way of others.
        nodes: list[ast.expr] = getattr(scope.node, "bases", []) if scope not in self._climbing else []
        self._climbing.append(scope)
        bases = [calls.instance_of(self.value(node)) if instance else self.value(node) for node in nodes]
        found = merge([self.attribute(base, attr) for base in bases])
        self._climbing.pop()
        return found

    def _field(self, attr: str) -> Value:
        key = (0, attr)
        known = self.memo.get(key)
        if known is not None:
            return known
        if key in self._looking:
            self._circles += 1
            self.memo.guess()
            return NOTHING
        return self._gathered(key, self.outline.fields[attr], self.outline.module)

    def _subscript(self, node: ast.Subscript) -> Value:
        base = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            parts = [self._bound(part) for part in (node.slice.lower, node.slice.upper, node.slice.step)]
            if any(part is UNKNOWN for part in parts):
                return tainted(UNKNOWN, merged_taints([base]))
            bounds = [part.consts[0] if part.consts else None for part in parts]
            consts = [folding.sliced(const, *bounds) for const in base.consts if not _holed(const)]
            kept = tuple(const for const in consts if const is not None)
            items = base.items
            if items is not None and all(bound is None or isinstance(bound, int) for bound in bounds):
                items = items[slice(*bounds)]  # type: ignore[arg-type]
            return replace(base, consts=kept, names=(), items=items, built=base.built or bool(kept))
        return self.subscript(base, self.value(node.slice))

    def _bound(self, node: ast.expr | None) -> Value:
        if node is None:
            return NOTHING
        found = self.value(node)
        return found if len(found.consts) == 1 and not found.open else UNKNOWN

    def subscript(self, base: Value, key: Value) -> Value:
        """Return what an element of a value may be."""
        found: list[Value] = []
        for name in base.names:
            found.append(self._outside_item(name, key))
        environment = not _ENVIRONMENT.isdisjoint(base.names)
        for const in () if environment else key.consts:
            if isinstance(const, str | int):
                found.append(texts.item(base, const))
            if isinstance(const, str):
                found += [self._member(scope, const, instance=False) for scope, _ in base.scopes]
        if not key.consts or (key.open and not environment):
            found.append(elements(base))
        result = merge(found) if found else UNKNOWN
        result = UNKNOWN if result is NOTHING else result
        if key.built and result.names:
            result = replace(result, built=True)
        taints = None if environment and key.consts else merged_taints([base])
        return tainted(result, taints)

    def _outside_item(self, name: str, key: Value) -> Value:
        """Return what a table of names, such as a module's `__dict__`, holds under a key."""
        texts = [const for const in key.consts if isinstance(const, str) and not _holed(const)]
        found: list[Value] = []
        if name == "sys.argv" and key.consts == (0,):
            return constant(OWN_FILE)
        for text in texts:
            if name == "sys.modules":
                found.append(named(rules.canonical(text)))
            elif name in {"globals()", "locals()", "vars()"}:
                found.append(self.lookup(text, self.outline.module, (1 << 30, 0)))
            elif name == "module.__globals__":
                found.append(self._from_frame(text))
            elif name == "builtins":
                found.append(named(text))
            elif name.endswith(".__dict__"):
                found.append(self._outside_attribute(name.removesuffix(".__dict__"), text))
            elif name in _ENVIRONMENT:
                found.append(variable(text, self.outline.module.node))
        if found and not key.open:
            return merge(found)
        if name.endswith(_NAMESPACES) or name == "module.__globals__":
            return merge([*found, Value(dynamic=True, open=True)])
        return merge([*found, named(f"{name}[]")])

    def _from_frame(self, text: str) -> Value:
        if text == "__builtins__":
            return named("builtins")
        if text in rules.STANDARD:
            return named(rules.canonical(text))
        return self.lookup(text, self.outline.module, (1 << 30, 0))

    def each(self, name: tuple[int, str], parts: list[Value], wanted: ast.expr) -> list[Value]:
        """Return what an expression is for each value of a name; once that took too long, what it may be at all."""
        made: list[Value] = []
        for part in parts:
            if self._assumed >= _MAX_ASSUMED:
                return [*made, replace(self.value(wanted), open=True)]
            made.append(self.memo.under({name: part}, lambda: self.value(wanted)))
        return made

    def returned(self, scope: Scope, args: Mapping[str, Value]) -> Value:
        """Return what one of this file's functions gives back for arguments."""
        if not scope.returns or scope in self._running:
            self.memo.guess()
            return UNKNOWN
        told = any(value.consts or value.names or value.items for value in args.values())
        if not told or len(self.memo.frames) >= MAX_FRAMES or self._assumed > _MAX_ASSUMED:
            return self._results(scope)
        # Calls that are given the same give back the same.
        key = (id(scope), *((name, value.signature()) for name, value in args.items()))
        known = self.memo.get(key)
        if known is None:
            mark = self.memo.met
            frame = {(id(scope), name): value for name, value in args.items()}
            known = self.memo.under(frame, lambda: self._results(scope))
            self.memo.put(key, known, mark)
        return known

    def applied(self, node: ast.Call, func: Value, args: Sequence[Value], keywords: dict[str, Value]) -> list[Value]:
        """Return what calling a value with arguments may give."""
        return calls.applied(self, node, func, args, keywords)

    def _results(self, scope: Scope) -> Value:
        self._running.append(scope)
        try:
            return merge([self.value(node) for node in scope.returns])
        finally:
            self._running.pop()


def _is_plain(value: Value) -> bool:
    """Return whether all that is known of a value are its names."""
    return not (
        value.consts
        or value.scopes
        or value.taints
        or value.inside
        or value.built
        or value.dynamic
        or value.items is not None
    )


def _class_around(scope: Scope, name: str) -> Scope | None:
    """Return the class around a function that binds a name: Python would not find it, but it is what was meant."""
    where: Scope | None = scope
    while where is not None and not (where.is_class and where.names.get(name)):
        where = where.parent
    return where


def is_own_class(value: Value) -> bool:
    """Return whether a value can be nothing but a class of this file."""
    return bool(value.scopes) and not value.names and not value.consts and not value.dynamic


def _holed(const: Constant) -> bool:
    return isinstance(const, str) and HOLE in const


_HANDLERS: dict[type[ast.AST], Callable[..., Value]] = {
    **expressions.HANDLERS,
    ast.Name: Evaluator._name,
    ast.Attribute: Evaluator._attribute,
    ast.Subscript: Evaluator._subscript,
    ast.Call: calls.result,
}
