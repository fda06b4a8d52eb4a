"""Which rule a call matches where what it is given decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.risk.python import rules
from audit.risk.python.commands import by_shell
from audit.risk.python.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audit.risk.python.values import Value


def rule_for(name: str, args: Sequence[Value], keywords: Mapping[str, Value]) -> str | None:
    """Return the rule that a call matches; some calls are harmless with the right arguments."""
    rule = rules.rule_of(name)
    if name == "yaml.load" or name == "yaml.load_all":
        loader = keywords.get("Loader", args[1] if len(args) > 1 else UNKNOWN)
        return None if any("SafeLoader" in used or "BaseLoader" in used for used in loader.names) else rule
    if name == "numpy.load" and True not in keywords.get("allow_pickle", UNKNOWN).consts:
        return "py.fs.read"
    if name == "torch.load" and True in keywords.get("weights_only", UNKNOWN).consts:
        return "py.fs.read"
    if rule == "py.proc.argv" and by_shell(keywords):
        return "py.proc.shell"
    if name == "cv2.VideoCapture" and args and args[0].texts():
        return "py.fs.read"
    if name == "logging.config.dictConfig" and args and args[0].items is not None:
        return None
    return None if name == "compile" and len(args) < 2 and not keywords else rule
