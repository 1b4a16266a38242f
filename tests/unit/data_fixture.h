/* What tests of sample files share: a folder that goes away, files in it, and the last error. */
#ifndef EHAP_TESTS_UNIT_DATA_FIXTURE_H
#define EHAP_TESTS_UNIT_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/frontend.h"
#include "ir/samples.h"

typedef struct Fixture {
    Arena *a;
    Graph *g; /* with the input float[N,2,2,3] */
    char dir[64], message[2048];
    Diag d;
} Fixture;

static void keep_message(void *ctx, Severity sev, const char *text)
{
    Fixture *f = ctx;
    if (sev == SEV_ERROR) snprintf(f->message, sizeof f->message, "%s", text);
}

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    f->a = arena_new();
    f->g = graph_new(f->a, "m");
    graph_add_input(f->g, "x", type_of(DT_F32, 4, (int64_t[]){graph_symbol(f->g, "N"), 2, 2, 3}));
    strcpy(f->dir, "/tmp/ehapc_data_XXXXXX");
    f->d = (Diag){.sink = keep_message, .ctx = f};
    *state = f;
    return mkdtemp(f->dir) ? 0 : -1;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    arena_free(f->a);
    int status = system(command);
    free(f);
    return status;
}

static const char *put(Fixture *f, const char *name, const void *bytes, size_t n)
{
    const char *path = arena_printf(f->a, "%s/%s", f->dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

#endif
