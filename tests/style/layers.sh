#!/bin/sh
# Who may include whom: each folder's sources name, in #include "…", only headers of the folders
# that its line allows. ir/ stands alone; nothing includes upwards. Usage: layers.sh ROOT
cd "${1:?root}" || exit 2
status=0

check() { # folder, allowed folders
    folder=$1
    shift
    [ -d "$folder" ] || return 0
    for file in $(find "$folder" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort); do
        for header in $(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file"); do
            allowed=no
            for prefix in "$@"; do
                case $header in "$prefix"*) allowed=yes ;; esac
            done
            [ $allowed = yes ] && continue
            echo "$file includes \"$header\"; $folder/ may include: $*"
            status=1
        done
    done
}

check ir ir/
check frontend frontend/ ir/ onnx.pb-c.h
check runtime runtime/ ir/
check backend backend/ ir/ onnx.pb-c.h
check passes passes/ ir/ runtime/runtime.h
check include ehap.h
check tools tools/ ehap.h include/ehap.h frontend/ backend/ passes/ runtime/ ir/
exit $status
