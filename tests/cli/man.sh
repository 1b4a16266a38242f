#!/bin/sh
# The man page has every option that --help prints, and no other. Usage: man.sh EHAPC PAGE
set -eu
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
"$1" --help | sed -n 's/^  --\([a-z0-9-]*\).*/\1/p' | sort -u >"$scratch/help"
tr -d '\\' <"$2" >"$scratch/page"
{ sed -n '/^prints them, are:/,/\.$/p' "$scratch/page" | sed 's/.*are://' | tr -d '.,' | tr ' ' '\n'
  sed -n 's/^\.BI --\([a-z0-9-]*\).*/\1/p' "$scratch/page"
} | sed '/^$/d' | sort -u >"$scratch/man"
diff "$scratch/help" "$scratch/man" || { echo "(< --help, > man page)"; exit 1; }
