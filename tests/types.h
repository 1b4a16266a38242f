/* Short forms for shapes in tests. */
#ifndef EHAP_TESTS_TYPES_H
#define EHAP_TESTS_TYPES_H

#include "ir/ir.h"

#define DIMS(...)                                                                                  \
    (int64_t[]) { __VA_ARGS__ }
#define TYPE(dt, ...)                                                                              \
    type_of((dt), (int)(sizeof(DIMS(__VA_ARGS__)) / sizeof(int64_t)), DIMS(__VA_ARGS__))

#endif
