/* The text form in files: PATH, and PATH.bin with the constants that are too long to read. */
#include <string.h>

#include "ir/outfile.h"
#include "ir/text.h"

int ir_save(const Graph *g, const char *path, Diag *d)
{
    Arena *a = arena_new();
    Text side = {.arena = a};
    const char *slash = strrchr(path, '/');
    const char *bin = arena_printf(a, "%s.bin", path);
    PrintOptions o = {.side_name = arena_printf(a, "%s.bin", slash ? slash + 1 : path),
                      .side = &side};
    const char *text = ir_print(g, a, &o);
    int status = side.n ? outfile_whole(bin, side.p, side.n, d) : 0;
    if (status == 0) status = outfile_whole(path, text, strlen(text), d);
    arena_free(a);
    return status;
}

int ir_load(Graph **out, Arena *a, const char *path, Diag *d)
{
    Bytes text;
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? arena_printf(a, "%.*s", (int)(slash - path) + 1, path) : ".";
    TRY(file_read(&text, a, path, d));
    TRY(ir_parse(out, a, text.p, text.n, dir, d));
    return graph_verify(*out, d);
}
