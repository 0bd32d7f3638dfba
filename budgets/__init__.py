"""How much is too much: the USD limits of a workspace and where it stands."""
