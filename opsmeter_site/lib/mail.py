"""What goes wrong with mail."""

from anymail.exceptions import AnymailError

# The mail was not taken, whichever way it goes: by SMTP (whose errors are `OSError`) or by a provider's API.
NOT_MAILED: tuple[type[Exception], ...] = (AnymailError, OSError)
