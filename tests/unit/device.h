/* Which device a test computes on: $EHAP_TEST_DEVICE, so that the suites of one run on another. */
#ifndef EHAP_TESTS_UNIT_DEVICE_H
#define EHAP_TESTS_UNIT_DEVICE_H

#include <stdlib.h>

static inline const char *test_device(const char *otherwise)
{
    const char *name = getenv("EHAP_TEST_DEVICE");
    return name && *name ? name : otherwise;
}

#endif
