"""Who: people, workspaces, roles, API keys, access tokens, audit."""
