"""The forms of the audit's pages."""

from __future__ import annotations

from crispy_forms.helper import FormHelper
from django import forms


class OverrideForm(forms.Form):
    """Why a verdict does not hold."""

    note = forms.CharField(
        label="Why it does not hold",
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Everybody who reads this tenant's audit sees it.",
        error_messages={"required": "Say why: the note is what the next reader has."},
    )

    @property
    def helper(self) -> FormHelper:
        """Return how it is laid out: the page brings the form's tag and its buttons."""
        layout = FormHelper()
        layout.form_tag = False
        return layout
