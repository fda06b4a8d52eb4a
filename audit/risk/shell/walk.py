"""Follows a shell script from statement to statement, as the shell would, without running anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import tree_sitter
import tree_sitter_bash

from audit.risk.places import normal_path, path_classes
from audit.risk.shell import table
from audit.risk.shell.builtins import run_index
from audit.risk.shell.context import Context, Exhausted
from audit.risk.shell.judge import Judge
from audit.risk.shell.loops import is_endless, watch_bomb, watch_burners, watch_loop
from audit.risk.shell.state import Function, State
from audit.risk.shell.trees import assigned_in, is_broken
from audit.risk.shell.values import EMPTY, MYSTERY, UNKNOWN, Value, Word, joined
from audit.risk.shell.words import Expander

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tree_sitter import Node

_LANGUAGE = tree_sitter.Language(tree_sitter_bash.language())
_BRACED_COMMAND = re.compile(
    rb"(?:^|[;&|({\n]|\b(?:then|do|else|elif|if|while|until|time)\s|!\s)[ \t\n]{0,32}"
    rb"(?=\{(?:[^\s{}'\",]|'[^']{0,400}'|\"[^\"]{0,400}\"){0,200},(?:[^\s{}'\"]|'[^']{0,400}'|\"[^\"]{0,400}\"){0,200}\})"
)
# A block behind one of these is no block to the grammar, without an error.
_STRANGE_BLOCK = re.compile(rb"(?:!|\bcoproc)[ \t]+(?:\w+[ \t]+)?\{\s")
_DESCRIPTOR = Value(UNKNOWN, frozenset({"descriptor"}))
_MAX_ITEMS = 32
_PATTERN = re.compile(r"\[[^\]/]*\]|[*?]+")
_KEYED = re.compile(r"\[([^\]]+)\]=(.*)", re.DOTALL)
_ORDINARY = frozenset({"workspace", "system"})
_MAX_CALLS = 6
# Short functions, which others are called through, may be followed for each call; long ones for the first few.
_MIN_FOLLOWED = 3
_FOLLOWED_BYTES = 3000
_MAX_NESTED = 1
_BRANCHES = frozenset({"if_statement", "elif_clause", "else_clause", "case_statement", "case_item"})
_WORDS = frozenset(
    {"word", "string", "raw_string", "ansi_c_string", "concatenation", "number", "simple_expansion", "expansion"}
)
_REDIRECTS = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})


class Walker:
    """One shell: its memory, the source it reads, and where findings go."""

    def __init__(self, context: Context, state: State, *, calls: int = 0) -> None:
        self._context = context
        self.state = state
        self._calls = calls
        self._expander = Expander(state, self._substitution, self._late)
        self._judge = Judge(context, self)

    def script(self, source: str) -> Value:
        """Follow a whole script and return what it writes."""
        data = source.encode("utf-8", "surrogateescape")
        root = tree_sitter.Parser(_LANGUAGE).parse(data).root_node
        strange = root.has_error or _STRANGE_BLOCK.search(data)
        if strange and (plainer := _BRACED_COMMAND.sub(rb"\g<0>''", data)) != data:
            # The grammar takes the brace for that of a block; behind an empty string it is part of a word.
            root = tree_sitter.Parser(_LANGUAGE).parse(plainer).root_node
        if root.has_error and is_broken(root):
            self._context.report.add("sh.code.parse", None)
        written = self._all(root.named_children, EMPTY)
        self._uncalled()
        return written

    def _uncalled(self, known: Iterable[str] = ()) -> None:
        """Follow the functions that nothing here calls; those are not of this shell that were known before it."""
        functions = self.state.functions
        while names := [name for name in functions if name not in known and not functions[name].called]:
            for name in names:
                self.call(name, None, EMPTY, None)

    def start(self, argv: list[Word]) -> Value:
        """Follow one command whose words are known."""
        return self._judge.run(argv, EMPTY, [], None)

    def call(self, name: str, arguments: list[Word] | None, stdin: Value, node: Node | None) -> Value:
        """Follow a function's body. Arguments are None where nothing calls it that can be seen."""
        function = self.state.functions[name]
        function.called += 1
        most = max(_MIN_FOLLOWED, _FOLLOWED_BYTES // (function.body.end_byte - function.body.start_byte + 1))
        if self._calls >= _MAX_CALLS or function.called > most or function.active > _MAX_NESTED:
            # It was followed often enough, at last with arguments that nobody knows: only what it sets is open.
            if function.assigned is None:
                function.assigned = assigned_in(function.body)
            for variable in function.assigned:
                self.state.set(variable, MYSTERY)
            return MYSTERY
        if function.called == most:
            arguments = None
        before, self.state.positional = self.state.positional, None if arguments is None else list(arguments)
        self._calls += 1
        function.active += 1
        try:
            with self._context.report.anchored(node):
                return self._statement(function.body, stdin)
        finally:
            self._calls -= 1
            function.active -= 1
            self.state.positional = before

    def inner(self, source: str, *, own: bool, arguments: list[Word] | None = None) -> Value:
        """Follow a script that stands in a string: in this shell (`eval`) or in a new one (`sh -c`)."""
        walker = Walker(self._context, self.state if own else self.state.copy(), calls=self._calls)
        if arguments is not None:
            # The word after the script is `$0`.
            walker.state.variables["0"] = [arguments[0] if arguments else Value("bash")]
            walker.state.positional = list(arguments[1:])
        return walker.script(source)

    def foresee(self, source: str, node: Node | None) -> None:
        """Report what of a script's doings is dangerous, where it is written down for later and not run here."""
        if not self._context.enter():
            return
        apart = Context(self._context.ask, depth=self._context.depth + 1)
        try:
            Walker(apart, State(positional=[Word(MYSTERY.text)])).script(source)
        except Exhausted:
            apart.report.add("sh.dyn.depth", None)
        if any(found.tier == "L3" for found in apart.report.findings):
            for found in apart.report.findings:
                self._context.report.add(found.rule, node)

    def _late(self, source: str, node: Node) -> Value:
        with self._context.report.anchored(node):
            return self.inner(source, own=False)

    def _all(self, nodes: list[Node], stdin: Value) -> Value:
        outputs = [self._statement(node, stdin) for node in nodes]
        written = [output for output in outputs if output.text or output.taints]
        return written[0] if len(written) == 1 else joined(written)

    def _statement(self, node: Node, stdin: Value) -> Value:
        self._context.spend()
        kind = node.type
        follow = _STATEMENTS.get(kind)
        if follow is not None:
            return follow(self, node, stdin)
        if kind in _BRANCHES:
            return self._unsure(lambda: self._all(node.named_children, stdin))
        return self._all(node.named_children, stdin) if node.child_count else EMPTY

    def _while(self, node: Node, stdin: Value) -> Value:
        watch_loop(self._judge, node)
        report = self._context.report
        before = report.count("sh.corr.download-run")
        output = self._unsure(lambda: self._all(node.named_children, stdin))
        if report.count("sh.corr.download-run") > before and is_endless(node):
            report.add("sh.corr.beacon", node)
        return output

    def _unsure(self, work: Callable[[], Value]) -> Value:
        self.state.unsure += 1
        try:
            return work()
        finally:
            self.state.unsure -= 1

    def _list(self, node: Node, stdin: Value) -> Value:
        first, *rest = node.named_children or [node]
        output = self._statement(first, stdin)
        return joined([output, self._unsure(lambda: self._all(rest, stdin))])

    def _subshell(self, node: Node, stdin: Value) -> Value:
        walker = Walker(self._context, self.state.copy(), calls=self._calls)
        output = walker._all(node.named_children, stdin)
        walker._uncalled(self.state.functions)
        return output

    def _pipeline(self, node: Node, stdin: Value) -> Value:
        return self._pipe([child for child in node.children if child.is_named], stdin)

    def _pipe(self, stages: list[Node], stdin: Value) -> Value:
        value = stdin
        roles = []
        for place, stage in enumerate(stages):
            self._judge.piped = place > 0 or stdin != EMPTY
            self._judge.role = ""
            value = self._statement(stage, value)
            roles.append(self._judge.role)
        self._judge.piped = False
        if "shell" in roles and any(role in {"network", "listener"} for role in roles[roles.index("shell") + 1 :]):
            self._context.report.add("sh.corr.network-shell", stages[0].parent)
        return value

    def _for(self, node: Node, stdin: Value) -> Value:
        name = node.child_by_field_name("variable")
        body = node.child_by_field_name("body")
        watch_burners(self._judge, node)
        items = [child for child in node.children_by_field_name("value") if child != name]
        words: list[Value] = [word for item in items for word in self._expander.words(item)]
        outputs = []
        if name is None or body is None:
            return self._all(node.named_children, stdin)
        if any(word.pattern or not word.known for word in words if isinstance(word, Word)) or not words:
            words = _found(words, joined(words).taints | (frozenset({"name"}) if items else frozenset()))
        if not self._context.repeat(len(words)):
            words = [Value(UNKNOWN, joined(words).taints)]
        for word in words[:_MAX_ITEMS]:
            self.state.set((name.text or b"").decode(), Value(word.text, word.taints))
            outputs.append(self._statement(body, stdin))
        return joined(outputs)

    def _function(self, node: Node, stdin: Value) -> Value:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            text = (name.text or b"").decode("utf-8", "replace")
            self.state.functions[text] = Function(body)
            if text in table.WATCHED:
                self._judge.shadowed(text, body.text or b"", node)
            watch_bomb(self._judge, text, body, node)
        return EMPTY

    def _assignment(self, node: Node, stdin: Value) -> Value:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None:
            return EMPTY
        plus = any(child.type == "+=" for child in node.children)
        if name.type == "subscript":
            self._element(name, self._expander.value(value) if value is not None else EMPTY)
            return EMPTY
        text = (name.text or b"").decode("utf-8", "replace")
        if value is not None and value.type == "array":
            words = [word for child in value.named_children for word in self._expander.words(child)]
            earlier = self.state.arrays.get(text, []) if plus else []
            self.state.set_array(text, [*earlier, *(self._member(text, word) for word in words)])
            return EMPTY
        assigned = self._expander.value(value) if value is not None else EMPTY
        if plus:
            assigned = joined([self.state.get(text) or EMPTY, assigned])
        self.state.set(text, assigned)
        self._judge.assigned(text, assigned, node)
        return EMPTY

    def _member(self, array: str, word: Word) -> Value:
        """Return an array's member; one that names its key is kept under it as well."""
        found = _KEYED.match(word.text)
        value = Value(found[2] if found else word.text, word.taints)
        if found:
            self.state.variables[f"{array}[{found[1]}]"] = [value]
        return value

    def _element(self, name: Node, value: Value) -> None:
        array = (name.children[0].text or b"").decode("utf-8", "replace")
        values = list(self.state.arrays.get(array, []))
        index = self._expander.value(name.children[2]).text if name.child_count > 2 else ""
        place = int(index) if index.isdigit() and len(index) < 4 else len(values)
        values += [EMPTY] * (place + 1 - len(values))
        values[place] = value
        self.state.set_array(array, values)
        self.state.variables[f"{array}[{index}]"] = [value]

    def _declaration(self, node: Node, stdin: Value) -> Value:
        words = []
        for child in node.named_children:
            if child.type in {"variable_assignment", "variable_assignments"}:
                self._statement(child, stdin)
                words.append(Word("assigned", node=child))
            else:
                words += self._expander.words(child)
        name = (node.children[0].text or b"").decode()
        return self._judge.run([Word(name, node=node), *words], stdin, [], node)

    def _command(self, node: Node, stdin: Value) -> Value:
        return self._simple(node, [], stdin)

    def _error(self, node: Node, stdin: Value) -> Value:
        """Follow what the grammar doesn't know: a command whose name begins with a brace expansion."""
        names = [child for child in node.children if child.type == "command_name"]
        if not names:
            return self._all(node.named_children, stdin)
        brace = "{" if node.children[0].type == "{" else ""
        argv = self._expander.words(names[0], brace)
        for child in node.children:
            if child.is_named and child.type in _WORDS:
                argv += self._expander.words(child)
        return joined([self._judge.run(argv, stdin, [], node), self._all(node.named_children, stdin)])

    def _simple(self, node: Node, redirects: list[Node], stdin: Value) -> Value:
        """Follow one command, for each value that the variables in it may have."""
        output = EMPTY
        pick, widest = 0, 1
        judged: list[list[str]] = []
        children, expand = node.named_children, self._expander.words
        while pick < widest:
            self._expander.pick, self._expander.widest = pick, 1
            argv: list[Word] = []
            lost = False
            given = stdin
            targets = []
            for child in children:
                kind = child.type
                if kind == "variable_assignment":
                    self._assignment(child, stdin)
                elif kind in _REDIRECTS:
                    redirects = [*redirects, child]
                elif kind != "comment":
                    words = expand(child)
                    if not words:
                        value = self._expander.value(child)
                        lost = lost or "unset" in value.taints
                        if kind == "command_name":
                            self._judge.missing(value, node)
                    argv += words
            for redirect in redirects:
                given, target = self._redirect(redirect, given)
                targets += target
            widest = self._expander.widest
            self._expander.pick = 0
            pick += 1
            if widest > 1:
                texts = [word.text for word in argv]
                if texts in judged:
                    continue
                judged.append(texts)
            piped = self._judge.piped
            self._judge.piped = piped or given is not stdin
            self._judge.lost = lost
            if redirects and argv and argv[0].text == "exec" and all(word.text.isdigit() for word in argv[1:]):
                # The grammar takes the number of a descriptor for a word.
                argv = argv[:1]
                # From here on this shell, and each that it starts, may read from there.
                self._context.fed |= "descriptor" in given.taints
            output = self._judge.run(argv, given, targets, node)
            self._judge.piped = piped
        return output

    def _redirected(self, node: Node, stdin: Value) -> Value:
        body, *redirects = node.children
        if body.type in _REDIRECTS:
            body, redirects = node, node.children
        # After the word of a here-document the tree hides the rest of the line inside it.
        rest = [
            inner
            for redirect in redirects
            if redirect.type == "heredoc_redirect"
            for inner in redirect.named_children
            if inner.type not in {"heredoc_start", "heredoc_body", "heredoc_end", "file_descriptor"}
        ]
        output = self._with_redirects(body, [node for node in redirects if node.type in _REDIRECTS], stdin, node)
        extra = [inner for inner in rest if inner.type in _REDIRECTS]
        for redirect in extra:
            _, targets = self._redirect(redirect, stdin)
            self._judge.write(targets, output, redirect)
        for inner in rest:
            if inner.type == "pipeline":
                output = self._pipe([child for child in inner.children if child.is_named], output)
            elif inner not in extra and inner.type in {"command", "list", "redirected_statement"}:
                output = self._statement(inner, stdin)
        return output

    def _with_redirects(self, body: Node, redirects: list[Node], stdin: Value, node: Node) -> Value:
        if body.type == "command":
            return self._simple(body, redirects, stdin)
        given, targets = stdin, []
        for redirect in redirects:
            given, target = self._redirect(redirect, given)
            targets += target
        if body is node:
            self._judge.write(targets, EMPTY, node)
            return EMPTY
        piped = self._judge.piped
        self._judge.piped = piped or given is not stdin
        output = self._statement(body, given)
        self._judge.piped = piped
        return self._judge.write(targets, output, node)

    def _redirect(self, node: Node, stdin: Value) -> tuple[Value, list[Word]]:
        """Return what a command then reads, and the files it writes."""
        if node.type == "file_redirect" and b"<<<" in (node.text or b"")[:8]:
            # The grammar knows no descriptor before a here-string.
            content = joined([self._expander.value(child) for child in node.children_by_field_name("destination")])
            self.state.files[f"/dev/fd/{(node.text or b'')[:1].decode()}"] = content
            return stdin, []
        if node.type == "herestring_redirect":
            return joined([self._expander.value(child) for child in node.named_children]), []
        if node.type == "heredoc_redirect":
            start = next((child for child in node.children if child.type == "heredoc_start"), None)
            body = next((child for child in node.children if child.type == "heredoc_body"), None)
            quoted = start is not None and any(mark in (start.text or b"") for mark in (b"'", b'"', b"\\"))
            return (self._expander.here_document(body, quoted=quoted) if body is not None else EMPTY), []
        operator = next((child.type for child in node.children if not child.is_named), ">")
        words = [word for child in node.children_by_field_name("destination") for word in self._expander.words(child)]
        if operator in {"<", "<>", "<&"}:
            # Who knows what an open descriptor leads to.
            if operator == "<&" and any(word.text not in {"0", "-"} for word in words):
                return _DESCRIPTOR, []
            read = [self._judge.read(word, node) for word in words if not _is_descriptor(word)]
            value = joined(read)
            opened = [word for word in words if operator == "<>" and not _is_descriptor(word)]
            return (value if words else stdin), opened
        descriptor = next((child for child in node.children if child.type == "file_descriptor"), None)
        if operator == ">&" and descriptor is not None and descriptor.text == b"0":
            # `0>&3` reads from it as `<&3` does; `0>&1` reads from wherever the output goes.
            return (stdin if any(word.text == "1" for word in words) else _DESCRIPTOR), []
        written = [word for word in words if not _is_descriptor(word)]
        if descriptor is not None and descriptor.text != b"1":
            # The output itself still goes on.
            self._judge.write(written, EMPTY, node)
            return stdin, []
        return stdin, written

    def _substitution(self, node: Node) -> Value:
        """Follow `$(...)`, backquotes and `<(...)`."""
        judge, walker = self._judge, Walker(self._context, self.state.copy(), calls=self._calls)
        children = [child for child in node.children if child.is_named]
        if len(children) == 1 and children[0].type == "file_redirect":
            words = self._expander.words(children[0].named_children[-1])
            output = joined(judge.read(word, node) for word in words)
        elif (node.text or b"").startswith(b">"):
            # Who knows what will be written to it.
            walker._judge.piped = True
            output = walker._all(children, MYSTERY)
        else:
            output = walker._all(children, EMPTY)
            walker._uncalled(self.state.functions)
        if node.type == "process_substitution":
            path = f"/dev/fd/{63 + len(self.state.files)}"
            self.state.files[normal_path(path)] = output
            return Value(path, output.taints)
        return Value(output.text.rstrip("\n") if output.known else output.text, output.taints | {"output"})

    def _test(self, node: Node, stdin: Value) -> Value:
        for child in node.named_children:
            if child.type in {"binary_expression", "unary_expression", "parenthesized_expression"}:
                self._test(child, stdin)
            elif child.type not in {"test_operator", "regex", "extglob_pattern"}:
                for word in self._expander.words(child):
                    run_index(self._judge, word, node)
        return EMPTY


def _found(words: list[Value], taints: frozenset[str]) -> list[Value]:
    """Return what a loop over patterns and unknown words goes through: what is known, and a name that is not."""
    known = []
    last = Value(UNKNOWN, taints)
    for word in words:
        if isinstance(word, Word) and word.pattern and path_classes(word.text) <= _ORDINARY:
            # Where the pattern leads is nowhere special: one name that nobody knows stands for all.
            last = Value(_PATTERN.sub(UNKNOWN, word.text) if len(words) == 1 else UNKNOWN, taints)
        elif word.known:
            known.append(word)
    return [*known, last]


def _is_descriptor(word: Word) -> bool:
    return word.text.isdigit() or word.text in {"-", "&1", "&2"}


_STATEMENTS: dict[str, Callable[[Walker, Node, Value], Value]] = {
    "command": Walker._command,
    "ERROR": Walker._error,
    "pipeline": Walker._pipeline,
    "list": Walker._list,
    "redirected_statement": Walker._redirected,
    "subshell": Walker._subshell,
    "for_statement": Walker._for,
    "while_statement": Walker._while,
    "c_style_for_statement": Walker._while,
    "function_definition": Walker._function,
    "variable_assignment": Walker._assignment,
    "declaration_command": Walker._declaration,
    "unset_command": Walker._declaration,
    "test_command": Walker._test,
    "comment": lambda walker, node, stdin: EMPTY,
    "command_substitution": lambda walker, node, stdin: walker._substitution(node),
    "heredoc_body": lambda walker, node, stdin: EMPTY,
}
