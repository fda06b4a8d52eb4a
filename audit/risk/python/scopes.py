"""Which names a Python file binds, where, and to what: gathered once, before anything is judged."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audit.risk.python.exhaustion import counts_for_ever

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Varying = (*_Function.__args__, *_Comprehension.__args__)
_CONDITIONS = frozenset(
    {ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match, ast.ExceptHandler, ast.match_case}
)
# Nothing is inside these, and nothing is told by them alone.
_LEAVES = frozenset({ast.Constant, ast.alias, ast.Pass, ast.Break, ast.Continue, ast.MatchSingleton, type(None)})
# Fields that hold text, numbers, operators or other things that are no code.
_PLAIN_FIELDS = frozenset(
    {"id", "attr", "ctx", "op", "ops", "arg", "name", "names", "asname", "module", "level", "kind", "conversion"}
    | {"type_comment", "simple", "is_async", "kwd_attrs", "rest", "type_ignores", "tag"}
)
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: tuple(name for name in kind._fields if name not in _PLAIN_FIELDS)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
# The fields of a definition that are evaluated outside of it.
_OUTSIDE: dict[type[ast.AST], tuple[str, ...]] = {
    ast.ClassDef: ("decorator_list", "bases", "keywords"),
    ast.FunctionDef: ("decorator_list", "returns", "args"),
    ast.AsyncFunctionDef: ("decorator_list", "returns", "args"),
    ast.Lambda: ("args",),
}
_LOOPS = frozenset({ast.For, ast.AsyncFor, ast.While, *_Comprehension.__args__})
_FILLING = frozenset(
    {"append", "extend", "add", "update", "insert", "appendleft", "setdefault", "put", "write", "join"}
)
_LOOKING = frozenset(
    {"getattr", "setattr", "hasattr", "vars", "dir", "isinstance", "print", "help", "type", "repr", "str"}
)


@dataclass(eq=False, slots=True)
class Binding:
    """One way in which a name gets a value."""

    how: str  # value, walrus, item, part, attribute, aug, import, scope, param, content, other
    node: ast.AST | None
    place: tuple[int, int]
    certain: bool
    # What else belongs to this way: an operator, a key, an index, a module, a scope.
    detail: Any = None


@dataclass(eq=False, slots=True)
class Scope:
    """A module, class, function or comprehension with the names that it binds."""

    node: ast.AST
    parent: Scope | None
    names: dict[str, list[Binding]] = field(default_factory=dict)
    returns: list[ast.expr] = field(default_factory=list)
    borrowed: dict[str, Scope] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    # Methods inside cannot see its names.
    is_class: bool = False
    # It can be called.
    is_function: bool = False
    # It binds names anew each time: parameters, or the variables of a comprehension.
    may_vary: bool = False

    def __post_init__(self) -> None:
        """Tell what kind it is once, because that is asked for often."""
        self.is_class = isinstance(self.node, ast.ClassDef)
        self.is_function = isinstance(self.node, _Function)
        self.may_vary = isinstance(self.node, _Varying)

    def arguments(self) -> list[str]:
        """Return the names that positional arguments of a call go to: a method gets its object without being told."""
        names = self.parameters()
        method = self.parent is not None and self.parent.is_class and names[:1] in (["self"], ["cls"])
        return names[1:] if method else names

    def parameters(self) -> list[str]:
        """Return the names of a function's positional parameters."""
        if not isinstance(self.node, _Function):
            return []
        return [arg.arg for arg in (*self.node.args.posonlyargs, *self.node.args.args)]

    def annotation(self, name: str) -> ast.expr | None:
        """Return what a function says about the type of a parameter."""
        if not isinstance(self.node, _Function):
            return None
        arguments = self.node.args
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        return next((arg.annotation for arg in named if arg.arg == name), None)


# The scope, whether what is bound is bound for certain, and whether it stands in a loop.
_Around = tuple[Scope, bool, bool]


class Outline:
    """All scopes of a file, and the nodes that rules look at, in the order of the text."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope(tree, None)
        self.scope_of: dict[int, Scope] = {}
        self.fields: dict[str, list[Binding]] = {}
        self.nodes: list[ast.AST] = []
        # What is assigned to attributes and items.
        self.assigned: dict[int, ast.expr] = {}
        self.calls: list[ast.Call] = []
        self.consumed: set[int] = set()
        self.looped: set[int] = set()
        self.endless: list[ast.While] = []
        # Comprehensions, which are done only when there is no more.
        self.gathered: list[ast.ListComp | ast.SetComp | ast.DictComp] = []
        self.counted: list[ast.For | ast.AsyncFor] = []
        self.products: list[ast.BinOp] = []
        # Some module's names are all imported.
        self.starred = False
        # Some name is bound that only running would tell.
        self.binds_anything = False
        # Where a module may be named without being handed to anybody.
        self.harmless: set[int] = set()
        self.scopes: list[Scope] = [self.module]
        self._walk(tree)

    def _walk(self, tree: ast.Module) -> None:
        # A stack of our own: the text decides how deep it goes. What holds for a node's children is made once.
        stack: list[tuple[ast.AST, _Around]] = [(tree, (self.module, True, False))]
        push = stack.append
        while stack:
            node, around = stack.pop()
            handler, fields, plain = _KINDS[type(node)]
            inner = None if handler is None else handler(self, node, *around)
            outside = around
            if inner is not None or not plain:
                outside, around = _inside(node, inner, around)
            # Backwards, because what is pushed last comes first.
            for name, is_outside in fields:
                child = getattr(node, name)
                if type(child) is list:
                    where = outside if is_outside else around
                    for part in reversed(child):
                        if type(part) not in _LEAVES:
                            push((part, where))
                elif type(child) not in _LEAVES:
                    push((child, outside if is_outside else around))

    def bind(self, scope: Scope, name: str, binding: Binding) -> None:
        """Record that a scope gives a name a value."""
        if name in scope.borrowed:
            scope = scope.borrowed[name]
            binding.certain = False
        scope.names.setdefault(name, []).append(binding)

    def _target(self, target: ast.AST, scope: Scope, binding: Binding) -> None:
        """Bind what stands left of an assignment."""
        todo = [(target, binding)]
        while todo:
            target, binding = todo.pop()
            if isinstance(target, ast.Name):
                where = scope
                while isinstance(where.node, _Comprehension) and binding.how == "walrus" and where.parent:
                    where = where.parent
                self.bind(where, target.id, binding)
            elif isinstance(target, ast.Starred):
                todo.append((target.value, Binding("item", binding.node, binding.place, binding.certain)))
            elif isinstance(target, ast.Tuple | ast.List):
                for index, part in enumerate(target.elts):
                    detail = (*_path(binding), index)
                    todo.append((part, Binding("part", binding.node, binding.place, binding.certain, detail)))
            elif isinstance(target, ast.Attribute):
                self.fields.setdefault(target.attr, []).append(binding)
                self._content(target.value, scope, binding)
            elif isinstance(target, ast.Subscript):
                key = target.slice if isinstance(target.slice, ast.Constant) else None
                if _is_namespace(target.value):
                    self._bind_text(key, scope, binding)
                else:
                    self._content(target.value, scope, binding, key)

    def _bind_text(self, key: ast.AST | None, scope: Scope, binding: Binding) -> None:
        """Bind a name that is given as text, as in `globals()["name"] = value`."""
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            binding.certain = False
            for where in {scope, self.module}:
                self.bind(where, key.value, binding)
        else:
            self.binds_anything = True

    def _updated(self, node: ast.Call, scope: Scope) -> None:
        """Bind what `globals().update(...)` binds."""
        for keyword in node.keywords:
            key = ast.Constant(keyword.arg) if keyword.arg else None
            self._bind_text(key, scope, Binding("value", keyword.value, _place(node), certain=False))
        for arg in node.args:
            pairs = zip(arg.keys, arg.values, strict=True) if isinstance(arg, ast.Dict) else [(None, arg)]
            for given, value in pairs:
                self._bind_text(given, scope, Binding("value", value, _place(node), certain=False))

    def _content(self, base: ast.AST, scope: Scope, binding: Binding, key: ast.Constant | None = None) -> None:
        """Let a container know what was put into it."""
        while isinstance(base, ast.Subscript):
            base = base.value
        inside = Binding("content", binding.node, binding.place, certain=False, detail=(binding, key))
        if isinstance(base, ast.Name) and base.id not in {"self", "cls"}:
            owner = scope
            while base.id not in owner.names and owner.parent is not None:
                owner = owner.parent
            if base.id in owner.names:
                owner.names[base.id].append(inside)
        elif isinstance(base, ast.Attribute):
            self.fields.setdefault(base.attr, []).append(inside)

    # One method for each kind of node. Each returns the scope of the node's children, or None for the same.

    def _name(self, node: ast.Name, scope: Scope, *_: bool) -> None:
        self.scope_of[id(node)] = scope
        if type(node.ctx) is ast.Load:
            self.nodes.append(node)

    def _look(self, node: ast.Attribute | ast.Subscript, *_: object) -> None:
        self.nodes.append(node)
        self.consumed.add(id(node.value))

    def _call(self, node: ast.Call, scope: Scope, _certain: bool, looped: bool) -> None:  # noqa: FBT001
        self.nodes.append(node)
        self.calls.append(node)
        self.scope_of[id(node)] = scope
        func = node.func
        self.consumed.add(id(func))
        if looped:
            self.looped.add(id(node))
        if type(func) is ast.Name:
            if func.id in _LOOKING:
                self.harmless.update(map(id, node.args))
            if func.id in {"isinstance", "issubclass"}:
                # A kind of thing that is asked for is not used.
                self.consumed.update(id(part) for kinds in node.args[1:] for part in ast.walk(kinds))
        elif type(func) is ast.Attribute and func.attr in _FILLING:
            if func.attr in {"update", "setdefault"} and _is_namespace(func.value):
                self._updated(node, scope)
            else:
                for arg in node.args:
                    self._content(func.value, scope, Binding("value", arg, _place(node), certain=False))

    def _function(self, node: _Function, scope: Scope, certain: bool, looped: bool) -> Scope:  # noqa: FBT001
        inner = Scope(node, scope)
        self.scopes.append(inner)
        self.scope_of[id(node)] = inner
        if not isinstance(node, ast.Lambda):
            # Class members keep their certainty to themselves: they are looked up on the class.
            self.bind(scope, node.name, Binding("scope", node, _place(node), certain and not looped, inner))
            self.nodes.append(node)
        else:
            inner.returns.append(node.body)
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args]
        defaults: dict[str, ast.expr | None] = dict.fromkeys(arg.arg for arg in named)
        if arguments.defaults:
            defaults |= {
                arg.arg: value for arg, value in zip(named[-len(arguments.defaults) :], arguments.defaults, strict=True)
            }
        defaults |= {arg.arg: value for arg, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
        for extra in (arguments.vararg, arguments.kwarg):
            if extra is not None:
                defaults[extra.arg] = None
        for name, default in defaults.items():
            inner.names[name] = [Binding("param", default, _place(node), certain=True, detail=inner)]
        return inner

    def _class(self, node: ast.ClassDef, scope: Scope, certain: bool, looped: bool) -> Scope:  # noqa: FBT001
        inner = Scope(node, scope)
        self.scopes.append(inner)
        self.nodes.append(node)
        self.bind(scope, node.name, Binding("scope", node, _place(node), certain and not looped, inner))
        return inner

    def _comprehension(self, node: _Comprehension, scope: Scope, *_: bool) -> Scope:
        inner = Scope(node, scope)
        for generator in node.generators:
            self._target(generator.target, inner, Binding("item", generator.iter, _place(node), certain=True))
        self.scope_of[id(node)] = inner
        if not isinstance(node, ast.GeneratorExp):
            self.gathered.append(node)
        return inner

    def _assign(self, node: ast.Assign, scope: Scope, certain: bool, looped: bool) -> None:  # noqa: FBT001
        if isinstance(node.targets[0], ast.Name):
            self.harmless.add(id(node.value))
        for target in node.targets:
            self._target(target, scope, Binding("value", node.value, _place(node), certain and not looped))
            if isinstance(target, ast.Attribute | ast.Subscript):
                self.nodes.append(target)
                self.assigned[id(target)] = node.value

    def _annotated(self, node: ast.AnnAssign, scope: Scope, certain: bool, _looped: bool) -> None:  # noqa: FBT001
        if node.value is not None:
            self._target(node.target, scope, Binding("value", node.value, _place(node), certain))

    def _walrus(self, node: ast.NamedExpr, scope: Scope, *_: bool) -> None:
        self._target(node.target, scope, Binding("walrus", node.value, _place(node), certain=False))

    def _augmented(self, node: ast.AugAssign, scope: Scope, _certain: bool, looped: bool) -> None:  # noqa: FBT001
        self._target(
            node.target, scope, Binding("aug", node.value, _place(node), certain=False, detail=(node.op, looped))
        )

    def _while(self, node: ast.While, *_: object) -> None:
        if isinstance(node.test, ast.Constant):
            self.endless.append(node)

    def _product(self, node: ast.BinOp, *_: object) -> None:
        repeats = isinstance(node.op, ast.Mult) and any(
            isinstance(side, ast.List | ast.Tuple)
            or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
            for side in (node.left, node.right)
        )
        if repeats or isinstance(node.op, ast.Pow):
            self.products.append(node)

    def _membership(self, node: ast.Compare, *_: object) -> None:
        self.consumed.update(map(id, node.comparators))

    def _loop(self, node: ast.For | ast.AsyncFor, scope: Scope, *_: bool) -> None:
        self._target(node.target, scope, Binding("item", node.iter, _place(node), certain=False))
        if counts_for_ever(node):
            self.counted.append(node)

    def _with(self, node: ast.With | ast.AsyncWith, scope: Scope, certain: bool, _looped: bool) -> None:  # noqa: FBT001
        for item in node.items:
            if item.optional_vars is not None:
                self._target(item.optional_vars, scope, Binding("value", item.context_expr, _place(node), certain))

    def _import(self, node: ast.Import, scope: Scope, certain: bool, _looped: bool) -> None:  # noqa: FBT001
        self.nodes.append(node)
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            target = alias.name if alias.asname else name
            self.bind(scope, name, Binding("import", node, _place(node), certain, target))

    def _import_from(self, node: ast.ImportFrom, scope: Scope, certain: bool, _looped: bool) -> None:  # noqa: FBT001
        self.nodes.append(node)
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == "*":
                scope.stars.append(module)
                self.starred = True
            else:
                target = f"{module}.{alias.name}"
                self.bind(scope, alias.asname or alias.name, Binding("import", node, _place(node), certain, target))

    def _borrow(self, node: ast.Global | ast.Nonlocal, scope: Scope, *_: bool) -> None:
        for name in node.names:
            owner = self.module
            if isinstance(node, ast.Nonlocal) and scope.parent is not None:
                owner = scope.parent
                while name not in owner.names and owner.parent is not None:
                    owner = owner.parent
            scope.borrowed[name] = owner
            owner.names.setdefault(name, [])

    def _return(self, node: ast.Return | ast.Yield | ast.YieldFrom, scope: Scope, *_: bool) -> None:
        if node.value is not None:
            while isinstance(scope.node, _Comprehension) and scope.parent:
                scope = scope.parent
            scope.returns.append(node.value)

    def _except(self, node: ast.ExceptHandler, scope: Scope, *_: bool) -> None:
        if node.name:
            self.bind(scope, node.name, Binding("other", None, _place(node), certain=False))

    def _delete(self, node: ast.Delete, scope: Scope, *_: bool) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                for binding in scope.names.get(target.id, ()):
                    binding.certain = False

    def _match(self, node: ast.Match, scope: Scope, *_: bool) -> None:
        for case in node.cases:
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                    self.bind(scope, part.name, Binding("value", node.subject, _place(node), certain=False))
                    self.bind(scope, part.name, Binding("item", node.subject, _place(node), certain=False))
                if isinstance(part, ast.MatchClass):
                    self._match_class(part, node, scope)

    def _match_class(self, pattern: ast.MatchClass, node: ast.Match, scope: Scope) -> None:
        self.nodes.append(pattern)
        for attr, inner in zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True):
            if isinstance(inner, ast.MatchAs) and inner.name:
                self.bind(
                    scope, inner.name, Binding("attribute", node.subject, _place(node), certain=False, detail=attr)
                )


_HANDLERS: dict[type[ast.AST], Callable[..., Scope | None]] = {
    ast.Name: Outline._name,
    ast.Attribute: Outline._look,
    ast.Subscript: Outline._look,
    ast.Call: Outline._call,
    ast.FunctionDef: Outline._function,
    ast.AsyncFunctionDef: Outline._function,
    ast.Lambda: Outline._function,
    ast.ClassDef: Outline._class,
    ast.ListComp: Outline._comprehension,
    ast.SetComp: Outline._comprehension,
    ast.DictComp: Outline._comprehension,
    ast.GeneratorExp: Outline._comprehension,
    ast.Assign: Outline._assign,
    ast.AnnAssign: Outline._annotated,
    ast.NamedExpr: Outline._walrus,
    ast.AugAssign: Outline._augmented,
    ast.For: Outline._loop,
    ast.AsyncFor: Outline._loop,
    ast.While: Outline._while,
    ast.Compare: Outline._membership,
    ast.BinOp: Outline._product,
    ast.With: Outline._with,
    ast.AsyncWith: Outline._with,
    ast.Import: Outline._import,
    ast.ImportFrom: Outline._import_from,
    ast.Global: Outline._borrow,
    ast.Nonlocal: Outline._borrow,
    ast.Return: Outline._return,
    ast.Yield: Outline._return,
    ast.YieldFrom: Outline._return,
    ast.ExceptHandler: Outline._except,
    ast.Delete: Outline._delete,
    ast.Match: Outline._match,
}


# What each kind of node calls for: its handler, its fields and whether they are evaluated outside of it, and whether
# what holds around it holds for what is in it.
_KINDS: dict[type[ast.AST], tuple[Callable[..., Scope | None] | None, tuple[tuple[str, bool], ...], bool]] = {
    kind: (
        _HANDLERS.get(kind),
        tuple((name, name in _OUTSIDE.get(kind, ())) for name in reversed(fields)),
        kind not in _CONDITIONS and kind not in _LOOPS,
    )
    for kind, fields in _FIELDS.items()
}


def _inside(node: ast.AST, inner: Scope | None, around: _Around) -> tuple[_Around, _Around]:
    """Return what holds for the parts of a node that are evaluated around it, and for those in it."""
    kind = type(node)
    scope, certain, looped = around
    certain = certain and kind not in _CONDITIONS
    looped = (looped and inner is None) or kind in _LOOPS
    return (scope, certain, looped), (inner or scope, certain, looped)


def _is_namespace(node: ast.AST) -> bool:
    """Return whether this is a table of variables: `globals()`, `locals()` or `vars()`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"globals", "locals", "vars"}
        and not node.args
    )


def _place(node: ast.AST) -> tuple[int, int]:
    return (node.lineno, node.col_offset)  # type: ignore[attr-defined]


def _path(binding: Binding) -> tuple[int | None, ...]:
    if binding.how == "part":
        assert isinstance(binding.detail, tuple)  # noqa: S101 - only `_target` makes parts
        return binding.detail
    return (None,) if binding.how == "item" else ()
