"""What the double says no with."""


class ShopError(Exception):
    """Something that was asked and is not done. `status` is that of an API's answer, `title` its heading."""

    status = 422
    title = "Unprocessable Entity"

    def __init__(self, detail: str, attribute: str = "") -> None:
        super().__init__(detail)
        self.attribute = attribute
        """Where an API's answer points to within the attributes, as `name` or `name/name`; empty: nowhere."""


class NotFound(ShopError):
    """404: there is no such thing."""

    status = 404
    title = "Not Found"


class Refused(ShopError):
    """422: understood, and not possible with this or in this state."""


class PaymentDeclined(Refused):
    """422: the card was turned down, and nothing was bought."""


class LinkRefused(ShopError):
    """403: a link whose signature is wrong, or whose time is over."""

    status = 403
    title = "Forbidden"
