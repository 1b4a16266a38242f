/* One folder per process for what a target has to read from files; it goes when the process ends.
 */
#ifndef EHAP_TESTS_FOLDER_H
#define EHAP_TESTS_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static char scratch_name[] = "/tmp/ehapc-fuzz-XXXXXX";

static int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void scratch_clear(void) { nftw(scratch_name, scratch_remove, 16, FTW_DEPTH | FTW_PHYS); }

static inline const char *scratch_folder(void)
{
    static int made;
    if (!made && !mkdtemp(scratch_name)) abort();
    if (!made++) atexit(scratch_clear);
    return scratch_name;
}

#endif
