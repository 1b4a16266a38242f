# Writes ${OUTPUT}, a C file that defines `const char NAME[]` with the text of FILE for every
# "NAME=FILE" of ${TEXTS}.
set(code "/* Generated. */\n#include \"runtime/cuda/sources.h\"\n")
foreach(text ${TEXTS})
  string(REGEX REPLACE "=.*" "" name "${text}")
  string(REGEX REPLACE "^[^=]*=" "" file "${text}")
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1', " bytes "${hex}")
  string(APPEND code "const char ${name}[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUTPUT} "${code}")
