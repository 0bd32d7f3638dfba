"""Forms of the recipients page."""

from django import forms

from workspaces.access import ROLE_ORDER


class RecipientForm(forms.Form):
    """A named address."""

    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        help_text="It is asked first, and gets mail once its reader has confirmed.",
    )


class RolesForm(forms.Form):
    """Whose members get mail. None of them is a choice, too: then only named addresses do."""

    roles = forms.MultipleChoiceField(
        label="Members with these roles",
        choices=[(role.value, role.label) for role in reversed(ROLE_ORDER)],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
