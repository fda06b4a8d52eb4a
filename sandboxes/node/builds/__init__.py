"""Templates: the root file systems that sandboxes start from, built once on this host and never changed."""


class BuildError(Exception):
    """A build that did not happen. Its text is one sentence that says what to do."""
