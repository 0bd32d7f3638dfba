"""Accounts of people: how django-allauth signs them up and in under our rules, with our forms."""
