#!/usr/bin/env bash
# Against a running server: loads demo data and shows that the budget flags trip as docs/budgets.md
# says, and that the answers are those that the developer docs show.
# ./verify-local.sh --help lists the options. Needs Python 3.11 or newer and nothing else.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

for python in "$root/.venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    # -P: the caller's folder is not a place to import from; it stays the current folder for relative paths.
    PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m opsmeter_site.embedded.verify "$@"
  fi
done

echo "verify-local: Python 3.11 or newer is needed and was not found" >&2
exit 1
