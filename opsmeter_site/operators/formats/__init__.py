"""How moments and dates are written where nothing else is asked for: FORMAT_MODULE_PATH."""
