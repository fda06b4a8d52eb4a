"""What a Python expression may be: names it may stand for, constants it may hold, and where its data came from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping

    from audit.risk.python.scopes import Scope

Constant = str | bytes | int | float | bool | None
# Stands in a constant for the part that is not known.
HOLE = "\ufffc"
MAX_ALTERNATIVES = 48
# Stands for one word of a shell line that is not known.
QUOTED = f'"{HOLE}"'
# Stands for the path of the program itself.
OWN_FILE = "__main__.py"
# A range too long to be written out.
COUNTED = "range()"
MAX_NAME = 200
_MAX_ITEMS = 192


# Not frozen: there are thousands of these for each file, and frozen ones take three times as long to make.
@dataclass(eq=False, slots=True)
class Value:
    """All that is known of an expression, over all the ways in which it may come about; never changed once made."""

    names: tuple[str, ...] = ()
    consts: tuple[Constant, ...] = ()
    # Labels of where data came from, each with the node that brought it in.
    taints: Mapping[str, ast.AST] | None = None
    # Parts of a literal container; the key is None where it is not known.
    items: tuple[tuple[Constant, Value], ...] | None = None
    # Functions and classes of this file, and whether this is an instance of the class.
    scopes: tuple[tuple[Scope, bool], ...] = ()
    # The text was put together from pieces, or decoded.
    built: bool = False
    # The name was looked up while running and could not be told.
    dynamic: bool = False
    # Other values are possible than those listed.
    open: bool = False
    # A method of a known value, taken without being called: its name and the value.
    owner: tuple[str, Value] | None = None
    # The origins of the parts, once they have been asked for.
    inside: Mapping[str, ast.AST] | None = None

    def origins_inside(self) -> Mapping[str, ast.AST] | None:
        """Return the origins of the parts of a container."""
        if self.inside is None and self.items:
            self.inside = merged_taints(part for _, part in self.items)
        return self.inside

    def is_hidden_module(self) -> bool:
        """Return whether it is a module, or a part of one, that was reached by a name in pieces."""
        return (
            self.built
            and bool(self.names)
            and not self.consts
            and not any(set("([") & set(name) for name in self.names)
        )

    def texts(self) -> list[str]:
        """Return the texts that it may be."""
        if not self.consts:
            return []
        found = [const.decode("utf-8", "replace") if type(const) is bytes else const for const in self.consts]
        return [text for text in found if type(text) is str]

    def signature(self) -> tuple[object, ...]:
        """Return what two values share that mean the same; parts are compared by which they are."""
        origins = frozenset(self.taints) if self.taints else None
        kinds = tuple(map(type, self.consts))
        flags = (self.built, self.dynamic, self.open)
        return (self.names, self.consts, kinds, origins, self.scopes, flags, self.items, self.owner)

    def items_values(self) -> list[Value]:
        """Return the parts of a container."""
        return [part for _, part in self.items or ()]


UNKNOWN = Value(open=True)
NOTHING = Value()


def constant(value: Constant, *, built: bool = False) -> Value:
    """Return the value of a constant."""
    return Value(consts=(value,), built=built)


def named(*names: str) -> Value:
    """Return the value of something outside this file."""
    if len(names) == 1:
        return _named(names[0])
    return Value(names=tuple(name for name in names if len(name) <= MAX_NAME), open=not names)


# The same few names come again and again, in one file and in the next.
@functools.lru_cache(maxsize=4096)
def _named(name: str) -> Value:
    return Value(names=(name,) if len(name) <= MAX_NAME else ())


def replace(value: Value, **changes: Any) -> Value:
    """Return the same but for some fields; the origins of the parts stay, whatever parts are taken out."""
    made = _copied(value)
    for name, change in changes.items():
        setattr(made, name, change)
    return made


def _copied(value: Value) -> Value:
    return Value(
        value.names,
        value.consts,
        value.taints,
        value.items,
        value.scopes,
        value.built,
        value.dynamic,
        value.open,
        value.owner,
        value.origins_inside(),
    )


def tainted(value: Value, taints: Mapping[str, ast.AST] | None) -> Value:
    """Return the value with more origins."""
    if not taints:
        return value
    made = _copied(value)
    made.taints = {**taints, **value.taints} if value.taints else taints
    return made


def merge(values: Iterable[Value]) -> Value:
    """Return the value of what may be any of these."""
    present = [value for value in values if value is not NOTHING]
    if len(present) > 2 or (len(present) == 2 and present[0] is present[1]):
        present = list({id(value): value for value in present}.values())
    if len(present) < 2:
        return present[0] if present else NOTHING
    names: dict[str, None] = {}
    consts: dict[tuple[type, Constant], Constant] = {}
    items: list[tuple[Constant, Value]] | None = None
    scopes: dict[tuple[Scope, bool], None] = {}
    built = dynamic = opened = False
    taints = inside = None
    for value in present:
        for name in value.names:
            names[name] = None
        for const in value.consts:
            # 1, True and 1.0 are equal, but not the same.
            consts.setdefault((type(const), const), const)
        if value.items is not None:
            items = [*(items or ()), *value.items[:_MAX_ITEMS]]
        if value.scopes:
            scopes.update(dict.fromkeys(value.scopes))
        built = built or value.built
        dynamic = dynamic or value.dynamic
        opened = opened or value.open
        taints = _joined(taints, value.taints)
        inside = _joined(inside, value.origins_inside())
    return Value(
        names=tuple(names)[:MAX_ALTERNATIVES],
        consts=tuple(consts.values())[:MAX_ALTERNATIVES],
        taints=taints,
        items=None if items is None else tuple(items[:_MAX_ITEMS]),
        scopes=tuple(scopes),
        built=built,
        dynamic=dynamic,
        owner=next((value.owner for value in present if value.owner is not None), None),
        open=opened or len(consts) > MAX_ALTERNATIVES,
        inside=inside,
    )


def merged_taints(values: Iterable[Value]) -> Mapping[str, ast.AST] | None:
    """Return the origins of all of these, with those of their parts."""
    joined: Mapping[str, ast.AST] | None = None
    for value in values:
        if value.taints:
            joined = _joined(joined, value.taints)
        if value.items:
            joined = _joined(joined, value.origins_inside())
    return joined


def _joined(one: Mapping[str, ast.AST] | None, other: Mapping[str, ast.AST] | None) -> Mapping[str, ast.AST] | None:
    if not one or one is other:
        return other or one
    return {**other, **one} if other and not other.keys() <= one.keys() else one


def elements(value: Value) -> Value:
    """Return what iterating or indexing with an unknown key may give."""
    if value.items is not None:
        return tainted(merge(part for _, part in value.items), value.taints)
    if COUNTED in value.names:
        return tainted(named(f"{COUNTED}[]"), value.taints)
    letters: list[Value] = []
    for const in value.consts:
        if isinstance(const, str | bytes) and len(const) <= MAX_ALTERNATIVES:
            letters += [constant(letter) for letter in const]
    return tainted(replace(merge([*letters, UNKNOWN]), open=True, dynamic=value.dynamic), value.taints)
