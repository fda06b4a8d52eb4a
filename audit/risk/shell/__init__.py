"""Judge shell scripts and commands: which programs they start, on what, and where the results go."""

from audit.risk.shell.analysis import analyse, analyse_argv, is_plain

__all__ = ["analyse", "analyse_argv", "is_plain"]
