#!/bin/sh
# Installs the Debian packages that ehapc is built and tested with, if any is missing.
set -e
packages="cmake ninja-build gcc pkg-config libdnnl-dev libprotobuf-c-dev protobuf-c-compiler
libonnx-dev libonnx-testdata liblapack-dev libzip-dev libcjson-dev zlib1g-dev
libturbojpeg0-dev libpng-dev libcmocka-dev
libopenmpi-dev openmpi-bin dataset-fashion-mnist python3-venv clang-format"

missing=
for p in $packages; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo "installing:$missing"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
