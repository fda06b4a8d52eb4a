"""Match the rules against every node of a file."""

from __future__ import annotations

import ast
import functools
import re
import unicodedata
from typing import TYPE_CHECKING

from audit.risk.python import exhaustion, folding, rules, statements
from audit.risk.python.calls import LOOKED_UP, Call, call_of
from audit.risk.python.commands import by_shell
from audit.risk.python.correlate import Facts, correlate
from audit.risk.python.evaluate import CLIMBS, is_own_class
from audit.risk.python.lookups import is_shouted
from audit.risk.python.meaning import rule_for
from audit.risk.python.sinks import Sinks
from audit.risk.python.values import UNKNOWN, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.report import Report
    from audit.risk.python.scopes import Outline, Scope

_ALWAYS_FINE = frozenset(
    {"sys.stdout", "sys.stderr", "sys.stdin", "sys.argv", "sys.path", "sys.displayhook", "sys.excepthook", "sys.ps1"}
)
_INERT = frozenset(
    {
        "getattr",
        "vars",
        "dir",
        "hasattr",
        "isinstance",
        "help",
        "print",
        "importlib.reload",
        "id",
        "type",
        "repr",
        "str",
    }
)
_KEEPS = frozenset(
    {"dict", "list", "sorted", "os.environ.copy", "len", "copy.copy", "isinstance", "bool", "collections.ChainMap"}
)
_FOREIGN = frozenset({"input", "net"})
_LISTED = frozenset({"file", "guess"})
_PASSWORD = re.compile(r"(?i)pass|pwd|\bpin\b|otp|\bcode\b")
_DEFERRING = frozenset({"signal.signal", "weakref.finalize"})
_CHOICES = (ast.IfExp, ast.BoolOp, ast.NamedExpr)
_STARTING = ("py.proc.argv", "py.proc.shell", "py.proc.pty", "py.dyn.", "py.native")
_PLAIN = frozenset({"L0", "L1", "L2"})
_LONG = 400
_EXAMPLE = re.compile(r"^[ \t]*((?:>>>|\.\.\.) .*)", re.MULTILINE)
_CALLERS = frozenset(
    {"map", "filter", "functools.partial", "functools.reduce", "atexit.register", "signal.signal", "itertools.starmap"}
)
_BY_TEXT = frozenset({"getattr", "__import__", "importlib.import_module", "pkgutil.resolve_name"})
_LOOKUPS = frozenset(
    {
        "getattr",
        "hasattr",
        "operator.attrgetter",
        "operator.attrgetter()",
        "operator.itemgetter()",
        "operator.methodcaller",
        "object.__getattribute__",
    }
)


class Scan:
    """One pass over the nodes of a file."""

    def __init__(self, outline: Outline, evaluator: Evaluator, report: Report) -> None:
        self.outline = outline
        self.ev = evaluator
        self.report = report
        self.facts = Facts(outline)
        self.shells: list[tuple[ast.AST, str]] = []
        self.sinks = Sinks(evaluator, report, self.facts)

    def run(self) -> None:
        """Match everything, and then what only the combination tells."""
        text = self.report.source.text
        odd = not text.isascii() and unicodedata.normalize("NFKC", text) != text
        for node in self.outline.nodes:
            _HANDLERS[type(node)](self, node)
            if odd and isinstance(node, ast.Name | ast.Attribute):
                self._letters(node)
        if self.ev.too_deep is not None:
            self.report.add("py.limit.depth", self.ev.too_deep)
        # A shell that is only named counts unless its lines have been seen.
        for node, name in self.shells:
            if self.report.rules.isdisjoint({"py.proc.shell", "py.proc.shell.plain"}):
                self.report.add("py.proc.shell", node, name)
        self.sinks.settle()
        for node in exhaustion.places(self.outline, self.ev):
            self.report.add("py.exhaust", node)
        for node in exhaustion.recursions(self.outline):
            self.report.add("py.exhaust", node)
        for node in exhaustion.floods(self.outline, self.ev):
            self.report.add("py.net.flood", node)
        correlate(self.facts, self.report, self.ev)
        self.report.settle()

    def _letters(self, node: ast.Name | ast.Attribute) -> None:
        span = self.report.source.span(node)
        if span is None:
            return
        written = re.split(r"\W+", self.report.source.text[span.offset : span.end_offset])[-1]
        name = node.id if isinstance(node, ast.Name) else node.attr
        if written != name and name.isascii() and unicodedata.normalize("NFKC", written) == name:
            self.report.add("py.evade.letters", node)

    # Calls

    def _call(self, node: ast.Call) -> None:
        func = self.ev.value(node.func)
        call = call_of(self.ev, node, func)
        names = self._callee(node, func, call.base)
        if func.dynamic and not any(map(rules.rule_of, names)):
            self.report.add("py.dyn.unresolved", node, chain=(node.func,))
            self.facts.sink("code", node, call.reaching)
        elif (call.attr in LOOKED_UP or not _BY_TEXT.isdisjoint(names)) and self.ev.value(node).dynamic:
            self.report.add("py.dyn.unresolved", node)
        for name in names:
            self._called(call, name, func)
        if "operator.methodcaller()" in names and call.args:
            self._called_later(call, func)
        looks_up = call.attr in LOOKED_UP or not _LOOKUPS.isdisjoint(names)
        if looks_up and id(node) not in self.outline.consumed:
            # What is looked up and not called at once is handed on, like a name that is written.
            self._used(node, self.ev.value(node))
        self._known_danger(call, looks_up=looks_up)
        if call.args and (call.attr in rules.STATEMENT_METHODS or any(map(_is_statement, names))):
            statements.judge(self.sinks, node, call.args[0])
        if not folding.DECODERS.keys().isdisjoint(names) and _is_long(call.args):
            self.report.add("py.text.payload", node)
        if not rules.DOCTESTS.isdisjoint(names):
            self._doctests(node)
        if "typing.get_type_hints" in names or "inspect.get_annotations" in names:
            self._annotations(node)
        if "env" in call.given and not func.scopes and not any(name in _KEEPS for name in names):
            self.report.add("py.env.all", node)
        if call.args or call.keywords:
            self._handed_on(call, names)
            if any(map(_is_foreign, names)):
                self.sinks.foreign(node, [*call.args, *call.keywords.values()])

    def _callee(self, node: ast.Call, func: Value, base: Value) -> tuple[str, ...]:
        names = func.names
        if type(node.func) is ast.Attribute:
            attr = node.func.attr
        else:
            # A method that was looked up; a function that is called by its name is no method.
            attr = names[0].rpartition(".")[2] if names and type(node.func) is not ast.Name else ""
        if attr not in rules.DISTINCT or func.scopes or base.scopes or base.consts:
            return names
        told = any(map(rules.rule_of, names)) and f"?.{attr}" not in rules.ALWAYS_JUDGED
        return names if told else (*names, f"?.{attr}")

    def _called(self, call: Call, name: str, func: Value) -> None:
        node, args = call.node, call.args
        if name in rules.IMPORTED_BY_TEXT and args:
            self.facts.imported.update(re.split(r"[.:]", text)[0] for text in args[0].texts())
        rule = rule_for(name, args, call.keywords)
        does = self.sinks.roles(node, name, args, call.keywords, call.base)
        if rule == "py.proc.shell" and does in _PLAIN:
            # `shell=True` is what people write for a pipe; who calls a shell by name wants more.
            asked = by_shell(call.keywords) and not func.built
            rule = "py.proc.shell.known" if asked else "py.proc.shell.plain"
        if rule is None and func.built and name.rpartition(".")[0] in rules.POWERFUL:
            # A name in pieces that no rule knows: nobody hides what is harmless.
            self.report.add("py.dyn.unresolved", node, name)
        if rule is None:
            return
        self.report.add(rule, node, name)
        if type(node.func) in _CHOICES and rule.startswith(_STARTING):
            # Who starts programs chooses the function by a statement, where it is seen.
            self.report.add("py.evade.name", node.func, name)
        if rule.startswith("py.net") and self.ev.repeats(node) and any(map(_is_guess, call.keywords.values())):
            self.report.add("py.net.scan", node)
        if func.built and rules.RULES_BY_ID[rule].tier >= "L2":
            self.report.add("py.evade.name", node.func, name)
        if rule == "py.reflect.import":
            wanted = [str(const) for value in args[:1] for const in value.consts]
            self.facts.imported.update(wanted)
            odd = bool(node.args) and _is_odd(node.args[0]) and any(module in rules.POWERFUL for module in wanted)
            if odd or any(rules.import_rule(module) == "py.import.native" for module in wanted):
                self.report.add("py.evade.name", node, name)
        if rule.startswith(_STARTING[:3]) and rules.roles_of(name):
            self.facts.starts.append(node)
        if name in _DEFERRING:
            self.facts.handlers.update(id(scope) for arg in args for scope, _ in arg.scopes if _is_hidden(name, scope))
        if rule == "py.proc.fork":
            self.facts.forks.append(node)
        for group in rules.SINKS_OF.get(rule, ()):
            self.facts.sink(group, node, call.reaching, args[0] if args else UNKNOWN)

    def _called_later(self, call: Call, caller: Value) -> None:
        """What `operator.methodcaller` made calls a method of what it is given."""
        base = call.args[0]
        wanted, *args = caller.items_values() or [UNKNOWN]
        for const in wanted.consts:
            method = self.ev.attribute(base, str(const))
            for name in method.names:
                self._called(call.instead(args), name, method)

    def _known_danger(self, call: Call, *, looks_up: bool) -> None:
        """Names in text: attributes that are looked up, and format strings that walk."""
        node, args = call.node, call.args
        if looks_up:
            for arg in args:
                for const in arg.consts:
                    for part in const.split(".") if isinstance(const, str) else ():
                        if part in rules.ATTRIBUTES:
                            self.report.add(rules.ATTRIBUTES[part], node)
            if (
                len(args) > 1
                and _is_foreign_name(args[1])
                and not is_own_class(args[0])
                and not is_shouted(node.args[1:2])
            ):
                self.report.add("py.dyn.named", node)
        if call.attr in {"format", "format_map", "vformat"}:
            base = call.base
            self.sinks.template(node, [*base.consts, *(const for arg in args for const in arg.consts)])
            if base.built and not base.consts:
                # A template that was computed may walk anywhere.
                self.report.add("py.dyn.unresolved", node)
            elif _is_foreign_name(base) and any(not arg.consts for arg in args):
                self.report.add("py.dyn.named", node)
            elif base.built and "py.reflect.format" in self.report.rules:
                self.report.add("py.evade.name", node, call.attr)

    def _handed_on(self, call: Call, names: Sequence[str]) -> None:
        """A function given to another to be called: judge its arguments as far as they stand beside it."""
        node, args, keywords = call.node, call.args, call.keywords
        for place, value in enumerate([*args, *keywords.values()]):
            for name in value.names:
                if not rules.roles_of(name) or name.endswith(")"):
                    continue
                if value.owner is not None:
                    # A method takes its object with it.
                    self.sinks.roles(node, name, (), {}, value.owner[1])
                rest = [*args[place + 1 :], *keywords.get("args", UNKNOWN).items_values()]
                if "functools.partial" in names:
                    does = [self.sinks.roles(node, name, rest, keywords, UNKNOWN)]
                elif any(caller in _CALLERS or caller.endswith(".map") for caller in names):
                    rest = [part for arg in rest for part in (arg.items_values() or [arg])]
                    does = [self.sinks.roles(node, name, [part], {}, UNKNOWN) for part in rest]
                else:
                    does = [self.sinks.roles(node, name, rest, {}, UNKNOWN)] if rest else []
                if does and (rules.rule_of(name) == "py.proc.shell" or by_shell(keywords)):
                    plain = all(tier in _PLAIN for tier in does)
                    self.report.add("py.proc.shell.plain" if plain else "py.proc.shell", node, name)

    def _doctests(self, node: ast.Call) -> None:
        """Judge the examples in texts, which are run."""
        for text in (part for part in ast.walk(self.outline.module.node) if isinstance(part, ast.Constant)):
            if isinstance(text.value, str) and (lines := _EXAMPLE.findall(text.value)):
                self.report.nested("\n".join(line[4:] for line in lines), "python", text)

    def _annotations(self, node: ast.Call) -> None:
        """Judge annotations in text, which are evaluated."""
        for part in ast.walk(self.outline.module.node):
            note = part.annotation if isinstance(part, ast.AnnAssign | ast.arg) else None
            for text in self.ev.value(note).texts() if note is not None else ():
                if "(" in text:
                    self.report.add("py.dyn.code", node, "typing.get_type_hints")
                    self.report.nested(text, "python", part)

    # References

    def _name(self, node: ast.Name) -> None:
        if node.id == "__builtins__":
            self.report.add("py.reflect.builtins", node, node.id)
        if id(node) not in self.outline.consumed and type(node.ctx) is ast.Load:
            self._used(node, self.ev.value(node))

    def _used(self, node: ast.expr, value: Value) -> None:
        for name in value.names:
            if name in rules.BUILTINS and name not in rules.POWERFUL_BUILTINS:
                continue
            if name.endswith(("()", "[]")) or name == "?.?":
                continue
            if name in rules.POWERFUL or name in {"builtins", "__builtins__"}:
                if id(node) not in self.outline.harmless:
                    self.report.add("py.reflect.module", node, name)
                continue
            rule = rules.rule_of(name)
            if rule is None or name in _ALWAYS_FINE:
                continue
            row = rules.RULES_BY_ID[rule]
            if rule == "py.proc.shell":
                self.shells.append((node, name))
            else:
                self.report.add(rule, node, name)
            if value.built and row.tier >= "L2":
                self.report.add("py.evade.name", node, name)

    def _attribute(self, node: ast.Attribute) -> None:
        if type(node.ctx) is ast.Store:
            self._stored(node, self.ev.value(node.value), node.attr)
        elif node.attr in rules.ATTRIBUTES and not (node.attr in CLIMBS and is_own_class(self.ev.value(node.value))):
            self.report.add(rules.ATTRIBUTES[node.attr], node)
        if id(node) not in self.outline.consumed and type(node.ctx) is ast.Load:
            self._used(node, self.ev.value(node))

    def _item(self, node: ast.Subscript) -> None:
        base, key = self.ev.value(node.value), self.ev.value(node.slice)
        if type(node.ctx) is ast.Store:
            self._stored_item(node, base, key)
            return
        self._looked_into(node, base, key)
        if id(node) not in self.outline.consumed and type(node.ctx) is ast.Load:
            self._used(node, self.ev.value(node))

    def _looked_into(self, node: ast.Subscript, base: Value, key: Value) -> None:
        for const in key.consts:
            if isinstance(const, str) and const in rules.ATTRIBUTES:
                self.report.add(rules.ATTRIBUTES[const], node)
            if const == "__builtins__":
                self.report.add("py.reflect.builtins", node, const)
        if not key.consts and any(map(_is_table, base.names)):
            # Whatever is made of it: a function is taken out by a name that only running would tell.
            self.report.add("py.dyn.unresolved", node)
        if "sys.modules" in base.names and "__main__" not in key.consts:
            self.report.add("py.reflect.builtins", node, "sys.modules")
        if "os.environ" in base.names or "os.environb" in base.names:
            self.report.add("py.env.named", node, "os.environ")
            self.sinks.variable(node, key)

    def _pattern(self, node: ast.MatchClass) -> None:
        for attr in node.kwd_attrs:
            if attr in rules.ATTRIBUTES:
                self.report.add(rules.ATTRIBUTES[attr], node)

    def _stored(self, node: ast.expr, base: Value, attr: str) -> None:
        for name in base.names:
            full = rules.canonical(f"{name}.{attr}")
            if rules.rule_of(full) == "py.net.unverified":
                self.report.add("py.net.unverified", node, full)
            elif (name in rules.POWERFUL or name == "builtins") and full not in _ALWAYS_FINE:
                self.report.add("py.reflect.hook", node, full)
            elif "(" not in name and _is_worth_replacing(name, full):
                # What others call to reach the network or programs now goes through this file.
                bindings = self.outline.fields.get(attr, ())
                if any(self.ev.value(each.node).scopes for each in bindings if each.how == "value"):
                    self.report.add("py.reflect.hook", node, full)

    def _stored_item(self, node: ast.expr, base: Value, key: Value) -> None:
        for name in base.names:
            if name in {"os.environ", "os.environb"}:
                self.sinks.set_variable(node, key, self.ev.value(self.outline.assigned.get(id(node))))
            elif name == "sys.modules" or name.removesuffix(".__dict__") in {*rules.POWERFUL, "builtins"}:
                self.report.add("py.reflect.hook", node, name)

    # Definitions

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if isinstance(node, ast.ClassDef) or node.name not in {"__reduce__", "__reduce_ex__"}:
            return
        for value in map(self.ev.value, self.outline.scope_of[id(node)].returns):
            first = value.items_values()[:1]
            if any(rules.rule_of(name) for part in first for name in part.names):
                self.report.add("py.deser.reduce", node, node.name)

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imported(node, alias.name)

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.level:
            self.report.add("py.import.unknown", node, "." * node.level + (node.module or ""))
            return
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self._imported(node, full if rules.import_rule(full) is None else str(node.module))

    def _imported(self, node: ast.stmt, module: str) -> None:
        rule = rules.import_rule(module)
        self.facts.imported.add(module.partition(".")[0])
        if rule is not None:
            self.report.add(rule, node, module)


def _is_long(args: Sequence[Value]) -> bool:
    return any(isinstance(const, str | bytes) and len(const) > _LONG for arg in args for const in arg.consts)


def _is_worth_replacing(module: str, name: str) -> bool:
    """Return whether others hand what matters to a function: to reach the network or programs, or to be read."""
    rule = rules.rule_of(name)
    return (rule is not None and rules.RULES_BY_ID[rule].tier >= "L2") or module in rules.TRUSTED


def _is_foreign_name(value: Value) -> bool:
    """Return whether a name or a template is somebody else's, as a whole."""
    return not value.consts and bool(value.taints) and not _FOREIGN.isdisjoint(value.taints or ())


def _is_hidden(deferring: str, scope: Scope) -> bool:
    return deferring != "signal.signal" or isinstance(scope.node, ast.Lambda)


def _is_guess(value: Value) -> bool:
    """Return whether a password is one of many that come from a list or are counted through."""
    for key, part in value.items or ():
        guessed = isinstance(key, str) and _PASSWORD.search(key) is not None
        if guessed and part.open and not _LISTED.isdisjoint(part.taints or ()):
            return True
    return False


def _is_odd(key: ast.expr) -> bool:
    """Return whether a name that is known is nevertheless given by an expression that nobody needs."""
    made = isinstance(key, ast.Subscript) and isinstance(key.value, ast.Dict | ast.List | ast.Tuple | ast.Constant)
    called = isinstance(key, ast.Call) and isinstance(key.func, ast.Lambda)
    return made or called or isinstance(key, ast.IfExp | ast.NamedExpr | ast.BoolOp)


def _is_table(name: str) -> bool:
    """Return whether a name is that of a table of all that a powerful module holds."""
    return name == "builtins" or (name.endswith(".__dict__") and name[:-9] in {*rules.POWERFUL, "builtins"})


def _is_statement(name: str) -> bool:
    return name.rpartition(".")[2] in rules.STATEMENT_METHODS


@functools.lru_cache(maxsize=4096)
def _is_foreign(name: str) -> bool:
    module = name.partition(".")[0].partition("(")[0]
    return module not in rules.BUILTINS and rules.import_rule(module) in {"py.import.unknown", "py.import.library"}


_HANDLERS: dict[type[ast.AST], Callable[..., None]] = {
    ast.Call: Scan._call,
    ast.Name: Scan._name,
    ast.Attribute: Scan._attribute,
    ast.Subscript: Scan._item,
    ast.MatchClass: Scan._pattern,
    ast.FunctionDef: Scan._definition,
    ast.AsyncFunctionDef: Scan._definition,
    ast.ClassDef: Scan._definition,
    ast.Import: Scan._import,
    ast.ImportFrom: Scan._import_from,
}
