"""The bundled PostgreSQL and Valkey, and the local commands that need them (`./opsmeter up`, `test`, `manage`, …)."""
