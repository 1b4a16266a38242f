/* The model's bytes, in memory or as files that appear whole or not at all (ir/outfile.h). */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/emit.h"
#include "ir/digest.h"
#include "ir/outfile.h"

/* ---- one file ----------------------------------------------------------------------- */

typedef struct Stream {
    ProtobufCBuffer base;
    OutFile *f;
} Stream;

static void stream_append(ProtobufCBuffer *buffer, size_t n, const uint8_t *p)
{
    outfile_write(((Stream *)buffer)->f, p, n);
}

static int write_model(const Onnx__ModelProto *m, OutFile *f, Diag *d)
{
    Stream s = {{stream_append}, f};
    onnx__model_proto__pack_to_buffer(m, &s.base);
    return outfile_close(f, d);
}

/* ---- external data ------------------------------------------------------------------ */

/* The data file of PATH is PATH.<digest of its content>.data: it can take its place beside the one
 * that the old model refers to, and then the new model takes over by one rename. So the model under
 * PATH has its own data at every moment. What the old one referred to is removed last. */
enum { DIGITS = 16 };
static const char suffix[] = ".data";

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The location that tensors refer to, with the digest left open. */
static char *open_location(Arena *a, const char *path)
{
    return arena_printf(a, "%s.%0*d%s", base_name(path), DIGITS, 0, suffix);
}

static void write_digest(Emit *e)
{
    char digits[DIGITS + 1];
    uint64_t h = DIGEST_START;
    for (size_t i = 0; i < e->nexternal; i++) {
        h = digest(h, &e->external[i].offset, sizeof e->external[i].offset);
        h = digest(h, e->external[i].v->data, (size_t)type_bytes(&e->external[i].v->type));
    }
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)h);
    memcpy(e->location + strlen(e->location) - sizeof suffix + 1 - DIGITS, digits, DIGITS);
}

static int write_data(const Emit *e, OutFile *f)
{
    static const char zeros[4096];
    size_t at = 0;
    for (size_t i = 0; i < e->nexternal; i++) {
        size_t n = (size_t)type_bytes(&e->external[i].v->type);
        outfile_write(f, zeros, e->external[i].offset - at);
        outfile_write(f, e->external[i].v->data, n);
        at = e->external[i].offset + n;
    }
    TRY(outfile_close(f, e->d));
    return outfile_publish(f, e->d);
}

static bool is_data_of(const char *name, const char *base)
{
    size_t n = strlen(base);
    return strncmp(name, base, n) == 0 && name[n] == '.' &&
           strspn(name + n + 1, "0123456789abcdef") == DIGITS &&
           strcmp(name + n + 1 + DIGITS, suffix) == 0;
}

static void close_folder(void *dir) { closedir(dir); }

/* Removes the data files of models that were at PATH before. */
static void remove_stale(const Emit *e, const char *dir, const char *path)
{
    DIR *folder = opendir(dir);
    if (!folder) return;
    Arena *a = arena_holding(close_folder, folder);
    for (struct dirent *f; (f = readdir(folder));)
        if (is_data_of(f->d_name, base_name(path)) &&
            !(e->nexternal && strcmp(f->d_name, e->location) == 0))
            unlink(arena_printf(a, "%s%s", dir, f->d_name));
    arena_free(a);
}

/* The data goes first: until the model has its name, nobody reads it. */
static int publish(const Emit *e, OutFile *data, OutFile *model)
{
    bool fresh = data && access(data->path, F_OK) != 0;
    if (data) TRY(write_data(e, data));
    int status = outfile_publish(model, e->d);
    if (status < 0 && fresh) unlink(data->path);
    return status;
}

/* ---- the model ---------------------------------------------------------------------- */

static bool fits(const Emit *e, const Onnx__ModelProto *m)
{
    const size_t most = e->o->largest ? e->o->largest : INT_MAX;
    return onnx__model_proto__get_packed_size(m) <= most;
}

static int build_model(Emit *e, Onnx__ModelProto **m)
{
    TRY(onnx_check(e->g, e->o, e->d));
    TRY(emit_model(e, m));
    if (fits(e, *m)) return 0;
    return diag_error(e->d,
                      "the model is %zu bytes and protobuf ends at 2 GiB: keep the weights in "
                      "external data",
                      onnx__model_proto__get_packed_size(*m));
}

/* Weights go beside the model where they were, and where they are too many for one protobuf. */
static int build_file(Emit *e, const char *path, Onnx__ModelProto **m)
{
    TRY(onnx_check(e->g, e->o, e->d));
    if (!e->o->external_data && !e->g->info.external_data) {
        TRY(emit_model(e, m));
        if (fits(e, *m)) return 0;
        diag_remark(e->d,
                    "the model is %zu bytes and protobuf ends at 2 GiB: its weights go to a "
                    "file beside it",
                    onnx__model_proto__get_packed_size(*m));
    }
    *e = emit_begin(e->g, e->o, e->a, e->d);
    e->location = open_location(e->a, path);
    return build_model(e, m);
}

static int write_files(Emit *e, const char *path)
{
    Onnx__ModelProto *m;
    const char *dir = arena_printf(e->a, "%.*s", (int)(base_name(path) - path), path);
    TRY(build_file(e, path, &m));
    OutFile *data = NULL, *model = outfile_new(e->a, path, e->d);
    if (!model) return -1;
    if (e->nexternal) {
        write_digest(e);
        data = outfile_new(e->a, arena_printf(e->a, "%s%s", dir, e->location), e->d);
        if (!data) return -1;
    }
    TRY(write_model(m, model, e->d));
    TRY(publish(e, data, model));
    remove_stale(e, *dir ? dir : "./", path);
    if (e->o->written)
        *e->o->written = (int64_t)(onnx__model_proto__get_packed_size(m) + e->data_size);
    return 0;
}

int onnx_write(const Graph *g, const char *path, const EmitOptions *o, Diag *d)
{
    Arena *a = arena_new();
    Emit e = emit_begin(g, o, a, d);
    int status = write_files(&e, path);
    arena_free(a);
    return status;
}

static int serialize(Emit *e, void **bytes, size_t *n)
{
    Onnx__ModelProto *m;
    TRY(build_model(e, &m));
    *n = onnx__model_proto__get_packed_size(m);
    *bytes = malloc(*n);
    if (!*bytes) return diag_error(e->d, "out of memory: %zu bytes wanted", *n);
    onnx__model_proto__pack(m, *bytes);
    return 0;
}

int onnx_serialize(const Graph *g, const EmitOptions *o, void **bytes, size_t *n, Diag *d)
{
    Arena *a = arena_new();
    Emit e = emit_begin(g, o, a, d);
    int status = serialize(&e, bytes, n);
    arena_free(a);
    return status;
}
