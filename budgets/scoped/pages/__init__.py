"""Pages of budgets: the list, one budget, its editor, and which budgets apply to a request."""
