"""Rows of the keys that sign workload identity tokens."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class IdentityKey(models.Model):
    """A key pair of this installation's issuer; its id is the thumbprint of its public half.

    `private` is encrypted under a key outside of the database. It signs from `signs_from` on, until a newer one does,
    and is published from the start until `published_until`: so whoever checks a token finds its key.
    """

    id = models.CharField(max_length=64, primary_key=True, editable=False)
    public = models.JSONField(editable=False)
    private = models.TextField(editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    signs_from = models.DateTimeField(editable=False)
    published_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("-signs_from", "id")

    def __str__(self) -> str:
        return self.id
