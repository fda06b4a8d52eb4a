"""Scoped tokens, the services that they are for, and their redemption. It knows sandboxes only by id and generation."""
