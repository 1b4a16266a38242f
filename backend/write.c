/* Files that appear whole or not at all: everything goes to a temporary file in the target's
 * folder, is flushed to the disk, and takes the target's name last. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/emit.h"

/* ---- one file ----------------------------------------------------------------------- */

typedef struct File {
    const char *path;
    char *temporary; /* NULL: nothing there */
    FILE *f;
} File;

static int file_error(Diag *d, const char *path)
{
    return diag_error(d, "cannot write '%s': %s", path, strerror(errno));
}

static int file_create(Arena *a, File *f, const char *path, Diag *d)
{
    struct stat st;
    *f = (File){.path = path};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return diag_error(d, "cannot write '%s': it is not a regular file", path);
    for (int k = 0; k < 100; k++) {
        char *name = arena_printf(a, "%s.%ld-%d.tmp", path, (long)getpid(), k);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0) return file_error(d, path);
        f->temporary = name;
        f->f = fdopen(fd, "wb");
        if (f->f) return 0;
        close(fd);
        return file_error(d, path);
    }
    return file_error(d, path);
}

static int file_finish(File *f, Diag *d)
{
    bool ok = !ferror(f->f) && fflush(f->f) == 0 && fsync(fileno(f->f)) == 0;
    int why = errno;
    bool closed = fclose(f->f) == 0;
    f->f = NULL;
    if (!ok) errno = why;
    return ok && closed ? 0 : file_error(d, f->path);
}

static int file_publish(File *f, Diag *d)
{
    if (rename(f->temporary, f->path) < 0) return file_error(d, f->path);
    f->temporary = NULL;
    return 0;
}

static void file_discard(File *f)
{
    if (f->f) fclose(f->f);
    if (f->temporary) unlink(f->temporary);
    *f = (File){0};
}

/* ---- the model ---------------------------------------------------------------------- */

typedef struct Stream {
    ProtobufCBuffer base;
    FILE *f;
    int why; /* errno of the first failure */
} Stream;

static void stream_append(ProtobufCBuffer *buffer, size_t n, const uint8_t *p)
{
    Stream *s = (Stream *)buffer;
    if (n && !s->why && fwrite(p, 1, n, s->f) != n) s->why = errno ? errno : EIO;
}

static int write_model(const Onnx__ModelProto *m, File *f, Diag *d)
{
    Stream s = {{stream_append}, f->f, 0};
    onnx__model_proto__pack_to_buffer(m, &s.base);
    errno = s.why;
    return s.why ? file_error(d, f->path) : file_finish(f, d);
}

static int write_data(const Emit *e, File *f)
{
    static const char zeros[4096];
    size_t at = 0;
    for (size_t i = 0; i < e->nexternal; i++) {
        size_t pad = e->external[i].offset - at;
        size_t n = (size_t)type_bytes(&e->external[i].v->type);
        if (fwrite(zeros, 1, pad, f->f) != pad || fwrite(e->external[i].v->data, 1, n, f->f) != n)
            return file_error(e->d, f->path);
        at = e->external[i].offset + n;
    }
    return file_finish(f, e->d);
}

static int check_size(const Emit *e, const Onnx__ModelProto *m)
{
    size_t n = onnx__model_proto__get_packed_size(m);
    if (n <= INT_MAX) return 0;
    return diag_error(e->d,
                      "the model is %zu bytes and protobuf ends at 2 GiB: keep the weights in "
                      "external data",
                      n);
}

static int build_model(Emit *e, Onnx__ModelProto **m)
{
    TRY(onnx_check(e->g, e->o, e->d));
    TRY(emit_model(e, m));
    return check_size(e, *m);
}

static int write_files(Emit *e, const char *path, File *model, File *data)
{
    Onnx__ModelProto *m;
    bool external = e->o->external_data || e->g->info.external_data;
    const char *slash = strrchr(path, '/');
    const char *data_path = arena_printf(e->a, "%s.data", path);
    if (external) e->location = arena_printf(e->a, "%s.data", slash ? slash + 1 : path);
    TRY(build_model(e, &m));
    TRY(file_create(e->a, model, path, e->d));
    if (e->nexternal) {
        TRY(file_create(e->a, data, data_path, e->d));
        TRY(write_data(e, data));
    }
    TRY(write_model(m, model, e->d));
    if (e->nexternal) TRY(file_publish(data, e->d));
    return file_publish(model, e->d);
}

int onnx_write(const Graph *g, const char *path, const EmitOptions *o, Diag *d)
{
    Arena *a = arena_new();
    File *files = NEW_ARRAY(a, File, 2);
    Trap t;
    if (trap_enter(&t) == 0) {
        Emit e = emit_begin(g, o, a, d);
        int status = write_files(&e, path, &files[0], &files[1]);
        trap_leave(&t);
        file_discard(&files[0]);
        file_discard(&files[1]);
        arena_free(a);
        return status;
    }
    file_discard(&files[0]);
    file_discard(&files[1]);
    arena_free(a);
    trap(t.kind, "%s", t.message);
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
    Trap t;
    if (trap_enter(&t) == 0) {
        Emit e = emit_begin(g, o, a, d);
        int status = serialize(&e, bytes, n);
        trap_leave(&t);
        arena_free(a);
        return status;
    }
    arena_free(a);
    trap(t.kind, "%s", t.message);
}
