from django.contrib.admin.apps import AdminConfig


class OperatorsConfig(AdminConfig):
    """Stands in INSTALLED_APPS for `django.contrib.admin`: every registration goes to our site."""

    default_site = "opsmeter_site.operators.site.OperatorsSite"
