#!/bin/sh
# Every source is as clang-format would have it. Skipped where there is no clang-format.
cd "$1" || exit 1
command -v clang-format >/dev/null || { echo "skipped: no clang-format"; exit 77; }
find frontend ir passes runtime backend tools include tests -name '*.[ch]' -print |
  xargs clang-format --dry-run -Werror
