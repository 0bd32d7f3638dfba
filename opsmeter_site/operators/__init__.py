"""The operators' console at `/admin/`: the stock admin with our sign-in, the service's state, and a support view."""
