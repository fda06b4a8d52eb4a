"""`manage.py up`: starts all processes of one machine, each as its own user, and starts again what dies.

Standard library only. Run as root with `python -m sandboxes.node.supervisor`.
"""


class SetupError(Exception):
    """What keeps Gatehouse from starting. Its text is one sentence that says what to do."""
