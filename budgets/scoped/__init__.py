"""Budgets on one scope: everything about them besides their model. Raises and adjustments are those of all budgets."""
