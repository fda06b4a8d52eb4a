"""The forms of the audit's pages."""

from __future__ import annotations

from crispy_forms.helper import FormHelper
from django import forms

from audit import actions


class Form(forms.Form):
    """Base of the forms: the page brings the form's tag and its buttons."""

    @property
    def helper(self) -> FormHelper:
        """Return how it is laid out."""
        layout = FormHelper()
        layout.form_tag = False
        return layout


class OverrideForm(Form):
    """Why a verdict does not hold."""

    note = forms.CharField(
        label="Why it does not hold",
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Everybody who reads this tenant's audit sees it.",
        error_messages={"required": "Say why: the note is what the next reader has."},
    )


class OpenForm(Form):
    """Why somebody needs to see the arguments of an act."""

    reason = forms.CharField(
        label="Why you need to see it",
        max_length=actions.MAX_REASON,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Your name and this reason become an event of the tenant before anything is shown.",
        error_messages={"required": "Say why: opening the arguments is on record with its reason."},
    )
