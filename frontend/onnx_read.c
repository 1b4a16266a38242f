/* ONNX files to graphs: the model around the graph, and the way in.
 *
 * bytes -> wire_read (pre-scan, zero-copy tree in a scratch arena) -> import_graph (names, order,
 * nodes, types). The tree dies with the scratch arena; the graph keeps only weights that point
 * into the file's bytes. */
#include <string.h>

#include "frontend/file.h"
#include "frontend/frontend.h"
#include "frontend/onnx_functions.h"
#include "frontend/onnx_graph.h"
#include "frontend/wire.h"

enum { MOST_ROUNDS = 3 }; /* of reading a model; in the last one all calls of functions stay */

static const char *kept(const Import *im, const char *s)
{
    return s && *s ? arena_strdup(im->g->arena, s) : NULL;
}

/* What the IR does not model, as one partial message. */
static Bytes model_extra(Import *im, const Onnx__ModelProto *m)
{
    Onnx__ModelProto rest = ONNX__MODEL_PROTO__INIT;
    rest.base.n_unknown_fields = m->base.n_unknown_fields;
    rest.base.unknown_fields = m->base.unknown_fields;
    rest.n_functions = m->n_functions;
    rest.functions = m->functions;
    rest.n_training_info = m->n_training_info;
    rest.training_info = m->training_info;
    return wire_pack(im->g->arena, &rest.base);
}

static Bytes graph_extra(Import *im, const Onnx__GraphProto *p)
{
    Onnx__GraphProto rest = ONNX__GRAPH_PROTO__INIT;
    rest.base.n_unknown_fields = p->base.n_unknown_fields;
    rest.base.unknown_fields = p->base.unknown_fields;
    rest.n_quantization_annotation = p->n_quantization_annotation;
    rest.quantization_annotation = p->quantization_annotation;
    return wire_pack(im->g->arena, &rest.base);
}

static int import_opsets(Import *im, const Onnx__ModelProto *m)
{
    ModelInfo *info = &im->g->info;
    info->opsets = NEW_ARRAY(im->g->arena, OpsetImport, m->n_opset_import);
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const char *domain = m->opset_import[i]->domain;
        if (!domain || strcmp(domain, "ai.onnx") == 0) domain = "";
        int64_t version = m->opset_import[i]->version;
        if (!*domain && version < 1)
            return diag_error(im->d, "opset %lld is imported", (long long)version);
        if (!*domain && im->opset && im->opset != version)
            return diag_error(im->d, "opset %lld and opset %lld are both imported",
                              (long long)im->opset, (long long)version);
        if (!*domain && im->opset) continue;
        if (!*domain) im->opset = version;
        info->opsets[info->nopsets++] = (OpsetImport){arena_strdup(im->g->arena, domain), version};
    }
    /* Before IR 3 there was no list, and opset 1. */
    if (m->n_opset_import == 0) im->opset = 1;
    if (im->opset && im->opset < OLDEST_OPSET) {
        diag_error(im->d, "opset %lld; the oldest that is read is %d", (long long)im->opset,
                   (int)OLDEST_OPSET);
        diag_note(im->d, "onnx.version_converter.convert_version() can raise it");
        return -1;
    }
    if (im->opset > NEWEST_OPSET)
        return diag_error(im->d, "opset %lld; the newest known is %d", (long long)im->opset,
                          (int)NEWEST_OPSET);
    im->file_opset = im->opset;
    return 0;
}

static void import_props(Import *im, const Onnx__ModelProto *m)
{
    ModelInfo *info = &im->g->info;
    info->props = NEW_ARRAY(im->g->arena, KeyValue, m->n_metadata_props);
    for (size_t i = 0; i < m->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *p = m->metadata_props[i];
        info->props[info->nprops++] =
            (KeyValue){arena_strdup(im->g->arena, p->key ? p->key : ""),
                       arena_strdup(im->g->arena, p->value ? p->value : "")};
    }
}

static int internalize(void *ctx, ProtobufCMessage *t)
{
    return tensor_internalize(ctx, (Onnx__TensorProto *)t);
}

static int import_info(Import *im, Onnx__ModelProto *m)
{
    ModelInfo *info = &im->g->info;
    info->ir_version = m->ir_version;
    info->model_version = m->model_version;
    info->producer_name = kept(im, m->producer_name);
    info->producer_version = kept(im, m->producer_version);
    info->domain = kept(im, m->domain);
    info->doc = kept(im, m->doc_string);
    im->g->doc = kept(im, m->graph->doc_string);
    TRY(import_opsets(im, m));
    import_props(im, m);
    TRY(inline_functions(im, m));
    for (size_t i = 0; i < m->n_functions; i++)
        TRY(wire_each(&m->functions[i]->base, &onnx__tensor_proto__descriptor, internalize,
                      &im->files));
    info->extra = model_extra(im, m);
    info->graph_extra = graph_extra(im, m->graph);
    return 0;
}

static int import_model(Import *im, Bytes bytes)
{
    ProtobufCMessage *root;
    TRY(wire_read(&root, im->tmp, &onnx__model_proto__descriptor, bytes, im->d));
    Onnx__ModelProto *m = (Onnx__ModelProto *)root;
    if (!m->graph) return diag_error(im->d, "not an ONNX model: it holds no graph");
    if (m->ir_version < 1 || m->ir_version > 1000)
        return diag_error(im->d, "not an ONNX model: its IR version is %lld",
                          (long long)m->ir_version);
    if (m->n_functions && !im->kept) im->kept = NEW_ARRAY(im->files.arena, bool, m->n_functions);
    if (m->n_functions && im->round == MOST_ROUNDS) memset(im->kept, true, m->n_functions);
    im->proto = m->graph;
    im->g = graph_new(im->files.arena, m->graph->name);
    im->names = table_new(im->tmp);
    TRY(import_info(im, m));
    TRY(import_graph(im));
    if (im->again) return 0;
    im->g->info.external_data = im->files.used;
    im->g->info.external_bytes = tensor_files_bytes(&im->files);
    im->g->info.external_stamp = im->files.stamp;
    if (im->ncalls)
        diag_remark(im->d, "%d calls of local functions are replaced by the functions' nodes",
                    im->ncalls);
    if (im->nconstants && im->g->info.ir_version >= 4)
        diag_remark(im->d, "%d initializers that are also inputs are taken as constants",
                    im->nconstants);
    return 0;
}

int onnx_read_memory(Graph **out, Arena *a, const void *bytes, size_t n, const char *dir, Diag *d)
{
    bool *kept = NULL, again = true;
    int status = 0;
    for (int round = 0; again && status == 0; round++) {
        Import im = {.tmp = arena_new(), .d = d, .function = -1, .kept = kept, .round = round};
        im.files = (TensorFiles){.arena = a, .dir = dir, .d = d};
        status = import_model(&im, (Bytes){bytes, n});
        kept = im.kept;
        again = im.again;
        if (status == 0) *out = im.g;
        arena_free(im.tmp);
    }
    return status;
}

static const char *folder_of(Arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return arena_printf(a, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int onnx_read(Graph **out, Arena *a, const char *path, Diag *d)
{
    const char *outer = d->file;
    Bytes bytes;
    d->file = path;
    int status = file_bytes(&bytes, a, path, d);
    if (status == 0 && bytes.n == 0) status = diag_error(d, "the file is empty");
    if (status == 0) status = onnx_read_memory(out, a, bytes.p, bytes.n, folder_of(a, path), d);
    d->file = outer;
    return status;
}

static int import_tensor(Value **out, Graph *g, Arena *tmp, Bytes bytes, const char *dir, Diag *d)
{
    ProtobufCMessage *root;
    TensorFiles files = {.arena = g->arena, .dir = dir, .d = d};
    Type type = {0};
    const void *data;
    TRY(wire_read(&root, tmp, &onnx__tensor_proto__descriptor, bytes, d));
    const Onnx__TensorProto *t = (const Onnx__TensorProto *)root;
    int status = tensor_read(&files, t, "the tensor", &type, &data);
    if (status > 0)
        return diag_error(d, "the tensor's type %d or rank %zu is not supported", (int)t->data_type,
                          t->n_dims);
    if (status == 0) *out = value_const(g, t->name, type, data);
    return status;
}

int onnx_read_tensor(Value **out, Graph *g, const char *path, Diag *d)
{
    const char *outer = d->file; /* stands again after a trap, which may free `path` */
    Arena *tmp = arena_new();
    Trap t;
    if (trap_enter(&t) == 0) {
        Bytes bytes;
        d->file = path;
        int status = file_bytes(&bytes, g->arena, path, d);
        if (status == 0) status = import_tensor(out, g, tmp, bytes, folder_of(g->arena, path), d);
        d->file = outer;
        trap_leave(&t);
        arena_free(tmp);
        return status;
    }
    d->file = outer;
    arena_free(tmp);
    trap(t.kind, "%s", t.message);
}
