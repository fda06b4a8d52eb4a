"""Find out what expressions mean without running them: on demand, each once, whatever the order of the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import calls, folding, rules, texts
from audit.risk.python.memo import Memo
from audit.risk.python.values import (
    HOLE,
    NOTHING,
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
    from collections.abc import Callable, Mapping

    from audit.risk.python.scopes import Binding, Outline, Scope
    from audit.risk.python.values import Constant

_MAX_DEPTH = 90
_MAX_STEPS = 60_000
_MAX_FRAMES = 3
# Steps spent on following single calls; after that, a function gives what it gives over all its calls.
_MAX_ASSUMED = 1_500
_NAMESPACES = ("__dict__", "globals()", "locals()", "vars()", "sys.modules", "__builtins__", "builtins")
_SAME_OBJECT = frozenset({"__call__", "__func__", "__wrapped__", "__get__", "__await__", "__enter__", "__iter__"})
_ENVIRONMENT = frozenset({"os.environ", "os.environb"})
_FRAME_TABLES = frozenset({"__globals__", "f_globals", "f_locals", "f_builtins", "func_globals"})
# What leads from a class of this file to those above it: harmless, as long as it ends there.
CLIMBS = frozenset({"__bases__", "__base__", "__mro__", "mro"})
_MODULE_NAMES = {"__name__": "__main__", "__file__": "main.py"}


class Evaluator:
    """What is known of each expression of a file."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.too_deep: ast.AST | None = None
        # Calls with what they are given, as soon as that is known for good.
        self.calls: dict[int, calls.Call] = {}
        self._all_known = False
        self.arguments: dict[tuple[int, str], list[Value]] = {}
        self._memo = Memo()
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
            self._memo.forget_guesses()

    @property
    def settled(self) -> bool:
        """Return whether all calls are known, and nothing is assumed."""
        return self._all_known and not self._memo.frames

    def value(self, node: ast.AST | None) -> Value:
        """Return all that is known of an expression."""
        if node is None:
            return UNKNOWN
        known = self._memo.get(id(node))
        if known is not None:
            return known
        if isinstance(node, ast.Constant):
            return self._memo.keep(id(node), _constant(node))
        handler = _HANDLERS.get(type(node))
        if handler is None:
            return UNKNOWN
        self._steps += 1
        self._assumed += bool(self._memo.frames)
        if self._depth >= _MAX_DEPTH or self._steps > _MAX_STEPS:
            self.too_deep = self.too_deep or node
            return UNKNOWN
        self._depth += 1
        mark = self._memo.mark()
        try:
            found = handler(self, node)
        finally:
            self._depth -= 1
        self._memo.put(id(node), found, mark)
        return found

    # Names

    def _name(self, node: ast.Name) -> Value:
        return self.lookup(node.id, self.outline.scope_of[id(node)], (node.lineno, node.col_offset))

    def lookup(self, name: str, scope: Scope, place: tuple[int, int]) -> Value:
        """Return what a name may stand for where it is used."""
        start: Scope | None = scope
        where = start
        while where is not None:
            bindings = where.names.get(name)
            if bindings and (where is start or not where.is_class):
                break
            where = where.parent
        found: list[Value] = []
        if where is not None:
            found.append(self._bindings(where, name))
            shadowed = where.is_function or any(
                binding.certain and binding.place < place for binding in where.names[name]
            )
            if shadowed or name not in rules.LOOPHOLES:
                return found[0]
        return merge([*found, self._outside(name, scope)])

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
        if scope.may_vary:
            assumed = self._memo.assumed(key)
            if assumed is not None:
                return assumed
        known = self._memo.get(key)
        if known is not None:
            return known
        if key in self._looking:
            # A name that depends on itself: what it was before.
            self._circles += 1
            self._memo.guess()
            return merge(self._looking[key]) if self._looking[key] else UNKNOWN
        return self._gathered(key, scope.names[name], scope)

    def _gathered(self, key: tuple[int, str], bindings: list[Binding], scope: Scope) -> Value:
        found = self._looking[key] = []
        circles, mark = self._circles, self._memo.mark()
        try:
            for binding in bindings:
                found.append(self._binding(binding, scope, key[1], found))
        finally:
            del self._looking[key]
        merged = merge(found)
        # What was found on the way round a circle is only part of the truth.
        if circles == self._circles or not self._looking:
            self._memo.put(key, merged, mark)
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
                self._memo.guess()
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
        if parent is not None and parent.is_class and scope.parameters()[:1] == [name]:
            return Value(scopes=((parent, True),))
        self._memo.guess()
        given = self.arguments.get((id(scope), name), [])
        told = [calls.instance_of(self.value(scope.annotation(name)))]
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
        if attr in _SAME_OBJECT:
            return base
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
        known = self._memo.get(key)
        if known is not None:
            return known
        if key in self._looking:
            self._circles += 1
            self._memo.guess()
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
                found.append(calls.variable(text, self.outline.module.node))
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

    def _binop(self, node: ast.BinOp) -> Value:
        # Long sums lean to the left: no recursion for them.
        spine: list[ast.BinOp] = [node]
        while isinstance(spine[-1].left, ast.BinOp) and self._memo.get(id(spine[-1].left)) is None:
            spine.append(spine[-1].left)
        found = self.value(spine[-1].left)
        for part in reversed(spine):
            found = texts.combine(part.op, found, self.value(part.right))
        return found

    def _joined(self, node: ast.JoinedStr) -> Value:
        parts: list[Value] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                spec = constant("") if part.format_spec is None else self.value(part.format_spec)
                parts.append(texts.shown(self.value(part.value), spec, part.conversion))
            else:
                parts.append(self.value(part))
        return texts.interpolated(parts)

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        items: list[tuple[Constant, Value]] = []
        for element in node.elts[:512]:
            if isinstance(element, ast.Starred):
                inner = self.value(element.value)
                items += list(inner.items) if inner.items is not None else [(None, elements(inner))]
            else:
                items.append((len(items), self.value(element)))
        if len(node.elts) > 512:
            items.append((None, UNKNOWN))
        return Value(items=tuple(items))

    def _dict(self, node: ast.Dict) -> Value:
        items: list[tuple[Constant, Value]] = []
        for key, element in zip(node.keys[:512], node.values[:512], strict=True):
            value = self.value(element)
            if key is None:
                items += list(value.items) if value.items is not None else [(None, value)]
                continue
            keys = self.value(key).consts or (None,)
            items += [(const, value) for const in keys]
        return Value(items=tuple(items))

    def _either(self, node: ast.IfExp | ast.BoolOp) -> Value:
        options = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
        return merge([self.value(option) for option in options])

    def _inner(self, node: ast.Await | ast.NamedExpr | ast.Starred | ast.FormattedValue | ast.YieldFrom) -> Value:
        return self.value(node.value)

    def _unary(self, node: ast.UnaryOp) -> Value:
        if not isinstance(node.op, ast.USub):
            return UNKNOWN
        numbers = [const for const in self.value(node.operand).consts if isinstance(const, int | float)]
        return Value(consts=tuple(-number for number in numbers), open=not numbers)

    def _lambda(self, node: ast.Lambda) -> Value:
        return Value(scopes=((self.outline.scope_of[id(node)], False),))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
        scope = self.outline.scope_of[id(node)]
        generator = node.generators[0]
        if len(node.generators) == 1 and not generator.ifs and isinstance(generator.target, ast.Name):
            parts = texts.parts(self.value(generator.iter))
            if parts is not None and len(parts) <= 4096 and len(self._memo.frames) < _MAX_FRAMES:
                made = self._each((id(scope), generator.target.id), parts, node.elt)
                return Value(items=tuple(enumerate(made)), built=True)
        return Value(items=((None, self.value(node.elt)),))

    def _dict_comprehension(self, node: ast.DictComp) -> Value:
        return Value(items=((None, self.value(node.value)), (None, replace(self.value(node.key), consts=()))))

    def _each(self, name: tuple[int, str], parts: list[Value], wanted: ast.expr) -> list[Value]:
        """Return what an expression is for each value of a name; once that took too long, what it may be at all."""
        made: list[Value] = []
        for part in parts:
            if self._assumed >= _MAX_ASSUMED:
                return [*made, replace(self.value(wanted), open=True)]
            made.append(self._memo.under({name: part}, lambda: self.value(wanted)))
        return made

    def returned(self, scope: Scope, args: Mapping[str, Value]) -> Value:
        """Return what one of this file's functions gives back for arguments."""
        if not scope.returns or scope in self._running:
            self._memo.guess()
            return UNKNOWN
        told = any(value.consts or value.names or value.items for value in args.values())
        if not told or len(self._memo.frames) >= _MAX_FRAMES or self._assumed > _MAX_ASSUMED:
            return self._results(scope)
        # Calls that are given the same give back the same.
        key = (id(scope), *((name, value.signature()) for name, value in args.items()))
        known = self._memo.get(key)
        if known is None:
            mark = self._memo.mark()
            frame = {(id(scope), name): value for name, value in args.items()}
            known = self._memo.under(frame, lambda: self._results(scope))
            self._memo.put(key, known, mark)
        return known

    def _results(self, scope: Scope) -> Value:
        self._running.append(scope)
        try:
            return merge([self.value(node) for node in scope.returns])
        finally:
            self._running.pop()


def _constant(node: ast.Constant) -> Value:
    return Value(consts=(node.value,)) if isinstance(node.value, str | bytes | int | float | None) else UNKNOWN


def is_own_class(value: Value) -> bool:
    """Return whether a value can be nothing but a class of this file."""
    return bool(value.scopes) and not value.names and not value.consts and not value.dynamic


def _holed(const: Constant) -> bool:
    return isinstance(const, str) and HOLE in const


_HANDLERS: dict[type[ast.AST], Callable[..., Value]] = {
    ast.Name: Evaluator._name,
    ast.Attribute: Evaluator._attribute,
    ast.Subscript: Evaluator._subscript,
    ast.BinOp: Evaluator._binop,
    ast.JoinedStr: Evaluator._joined,
    ast.List: Evaluator._sequence,
    ast.Tuple: Evaluator._sequence,
    ast.Set: Evaluator._sequence,
    ast.Dict: Evaluator._dict,
    ast.IfExp: Evaluator._either,
    ast.BoolOp: Evaluator._either,
    ast.Await: Evaluator._inner,
    ast.NamedExpr: Evaluator._inner,
    ast.Starred: Evaluator._inner,
    ast.FormattedValue: Evaluator._inner,
    ast.YieldFrom: Evaluator._inner,
    ast.UnaryOp: Evaluator._unary,
    ast.Lambda: Evaluator._lambda,
    ast.ListComp: Evaluator._comprehension,
    ast.SetComp: Evaluator._comprehension,
    ast.GeneratorExp: Evaluator._comprehension,
    ast.DictComp: Evaluator._dict_comprehension,
    ast.Call: calls.result,
}
