"""docs/operators.md names every operator of ONNX up to the opset that it speaks of, and no others.
Usage: operators.py DOCUMENT"""
import re
import sys

import onnx

text = open(sys.argv[1]).read()
newest = int(re.search(r"up to opset (\d+)", text).group(1))
named = {name for name in re.findall(r"^\| (\w\S*) \|", text, re.M)} - {"operator"}
named = {name for name in named if not name.startswith("ehap.")}
known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
due = {
    s.name
    for s in onnx.defs.get_all_schemas_with_history()
    if s.domain =="" and s.since_version <= newest
}
newer = onnx.defs.onnx_opset_version() >= newest
print(f"opset {newest} (this package: {onnx.defs.onnx_opset_version()}), {len(named)} operators")
assert due <= named, f"not in the document: {sorted(due - named)}"
assert not newer or named <= known, f"not of ONNX: {sorted(named - known)}"
