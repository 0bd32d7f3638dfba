"""Pages of people and workspaces: below `/w/<slug>/`, and outside any workspace."""

from django.urls import URLPattern

page_urlpatterns: list[URLPattern] = []
site_urlpatterns: list[URLPattern] = []
