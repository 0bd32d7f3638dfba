from django.apps import AppConfig


class OpsmeterSiteConfig(AppConfig):
    name = "opsmeter_site"

    def ready(self) -> None:
        from opsmeter_site import checks  # noqa: F401 (importing registers them; apps must be loaded first)
