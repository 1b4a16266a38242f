#!/bin/sh
# Texts and scripts are at most 100 columns wide: the man page, scripts, build files, and pages but
# for their tables, headings and what programs print (indented). Usage: width.sh ROOT
cd "${1:?root}" || exit 2
export LC_ALL=C.UTF-8
wide=$(find . -path './build*' -prune -o -type f \( -name '*.md' -o -name '*.sh' -o -name '*.py' \
    -o -name '*.cmake' -o -name CMakeLists.txt -o -name Makefile -o -name ehapc.1 \) -print |
    sort | xargs grep -nHE '^.{101,}$' | grep -vE '^[^:]*\.md:[0-9]+:(\||#|    )')
[ -z "$wide" ] || { echo "$wide"; exit 1; }
