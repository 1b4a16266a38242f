#!/bin/bash
# `ehapc requantize`: for the same target the same bytes, for another what `quantize --target`
# writes from the same ranges; and what it says where ranges are missing.
# Usage: requantize.sh EHAPC SOURCE_DIR
set -euo pipefail
ehapc=$(realpath "$1"); model=$(realpath "$2")/examples/fashion_resnet.onnx
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
targets="ort tensorrt openvino qnn portable"
fail() { echo "FAIL $*"; exit 1; }
quiet() { "$ehapc" "$@" >out 2>err || { cat err; fail "ehapc $*"; }; }

# 64 images of what looks like noise; the training set would say no more here.
printf '\0\0\10\3\0\0\0\100\0\0\0\34\0\0\0\34' > x-ubyte
{ tail -c +20000 "$model" | head -c 50176 || true; } >> x-ubyte
data="--data x-ubyte --preprocess scale=1/255"

# Weights of one width, so that those of one target are as exact as those of another.
for t in $targets; do
  quiet quantize "$model" -o "$t.onnx" --target "$t" --steps 0 --calibration min-max \
    --weight-bits 7 $data
done
for from in $targets; do
  for to in $targets; do
    quiet requantize "$from.onnx" -o "$from.$to.onnx" --target "$to" --weight-bits 7
    "$ehapc" lint "$from.$to.onnx" --target "$to" >out ||
      { cat out; fail "$from.$to.onnx breaks a rule"; }
    # TensorRT keeps the stem in float, which elsewhere has been integers; and one symmetric scale
    # is of a grid whose zero had been rounded.
    [ $to = tensorrt ] && [ $from != tensorrt ] && continue
    cmp "$from.$to.onnx" "$to.onnx" || fail "$from to $to is not what --target $to writes"
  done
done
# There and back again.
for t in ort openvino qnn portable; do
  quiet requantize "openvino.$t.onnx" -o back.onnx --target openvino --weight-bits 7
  cmp back.onnx openvino.onnx || fail "openvino to $t and back"
done

# After training, with the widths of each target: ranges are learned ones, weights stay on their
# grid.
quiet quantize "$model" -o trained.onnx --steps 4 --batch 16 $data
quiet requantize trained.onnx -o again.onnx
cmp trained.onnx again.onnx || fail "the same target, trained"
quiet requantize trained.onnx -o trt.onnx --target tensorrt
"$ehapc" lint trt.onnx --target tensorrt >out || fail "trained, for tensorrt"
quiet requantize trt.onnx -o trt2.onnx --target tensorrt --verify --threads 1
cmp trt.onnx trt2.onnx || fail "tensorrt, again"

# A layer that is kept in float stays so.
quiet quantize "$model" -o kept.onnx --steps 0 --exclude /fc/Gemm $data
quiet requantize kept.onnx -o kept2.onnx --target qnn
"$ehapc" lint kept2.onnx --target qnn >out && fail "the excluded node was quantized"
grep -q "'/fc/Gemm' (Gemm): float" out || { cat out; fail "the excluded node was quantized"; }

# A float model has nothing to lay out; a file without the record lacks what its grids do not say.
status=0; "$ehapc" requantize "$model" -o none.onnx 2>err >out || status=$?
[ $status = 3 ] && grep -q "no QuantizeLinear" err && [ ! -e none.onnx ] ||
  { cat err; fail "a float model: $status"; }
"$ehapc" tensorrt.onnx --passes requantize --target tensorrt -o same.onnx >out 2>err ||
  fail "as a pass"
cmp same.onnx tensorrt.onnx || fail "as a pass"
sed 's/ehapc\.ranges/other.ranges/' tensorrt.onnx > foreign.onnx
status=0; "$ehapc" requantize foreign.onnx -o none.onnx --target ort 2>err >out || status=$?
[ $status = 1 ] && grep -q "need ranges that the model does not hold" err &&
  grep -q -- "--data measures them" err || { cat err; fail "missing ranges: $status"; }
quiet requantize foreign.onnx -o measured.onnx --target ort $data
status=0; sed 's/1\ntarget tensorrt/2\ntarget tensorrt/' -z tensorrt.onnx > newer.onnx
"$ehapc" requantize newer.onnx -o none.onnx 2>err >out || status=$?
[ $status = 1 ] && grep -q "a version that this ehapc does not know" err ||
  { cat err; fail "a newer record: $status"; }
status=0; sed 's/\ngrid 0/\ngrid x/' -z ort.onnx > damaged.onnx
"$ehapc" requantize damaged.onnx -o none.onnx 2>err >out || status=$?
[ $status = 1 ] && grep -q "cannot be understood" err ||
  { cat err; fail "a damaged record: $status"; }
echo "requantize: all as it should be"
