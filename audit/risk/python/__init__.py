"""Judge Python code: parse its bytes, find out what names and constants mean, and match the rule tables."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from audit.risk.python.arguments import learn
from audit.risk.python.evaluate import Evaluator
from audit.risk.python.report import Report
from audit.risk.python.scan import Scan
from audit.risk.python.scopes import Outline
from audit.risk.python.source import Source, parse

if TYPE_CHECKING:
    from audit.risk.findings import Finding
    from audit.risk.python.report import Inner


def analyse(code: bytes, inner: Inner) -> list[Finding]:
    """Return the findings on Python code; `inner` judges code of other languages, or Python, that is found inside.

    Code that Python itself cannot read raises, unless its bytes alone are a reason.
    """
    with warnings.catch_warnings():
        # Parsing and decoding warn about the text; that is nobody's business here.
        warnings.simplefilter("ignore")
        return _findings(Source(code), inner)


def _findings(source: Source, inner: Inner) -> list[Finding]:
    report = Report(source, inner)
    for rule, span in source.oddities():
        report.add_at(rule, span)
    try:
        tree, escapes = parse(source)
    except (SyntaxError, ValueError):
        # Text that hides something needs no grammar to be suspicious.
        if report.findings:
            report.add("py.text.unparsed", None)
            return report.findings
        raise
    for language, text in escapes:
        report.escape(language, text)
    outline = Outline(tree)
    evaluator = Evaluator(outline)
    learn(evaluator)
    Scan(outline, evaluator, report).run()
    return report.findings
