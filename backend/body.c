/* Opaque attributes on their way out: a recursive copy of the wire format that replaces
 * "ehap:capture:K" by the name of the node's K-th captured input. Which fields hold
 * messages and names on the way is the table below; everything else is copied as it is. */
#include <stdlib.h>
#include <string.h>

#include "backend/emit.h"
#include "backend/fields.h"

enum { MAX_DEPTH = 64 };

typedef enum Part { COPY, NAME, ATTR, GRAPH, NODE, VALUE } Part;

static const struct {
    Part in;
    uint32_t field;
    Part part;
} children[] = {
    {ATTR, 6, GRAPH},   /* g */
    {ATTR, 11, GRAPH},  /* graphs */
    {GRAPH, 1, NODE},   /* node */
    {GRAPH, 12, VALUE}, /* output */
    {NODE, 1, NAME},    /* input */
    {NODE, 5, ATTR},    /* attribute */
    {VALUE, 1, NAME},   /* name */
};

enum { ATTR_NAME = 1, NODE_OP_TYPE = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };

static Part part_of(Part in, const WireField *f)
{
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        if (children[i].in == in && children[i].field == f->id &&
            f->wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
            return children[i].part;
    return COPY;
}

static int put_name(const Node *n, Bytes *name)
{
    static const char prefix[] = "ehap:capture:";
    size_t len = sizeof prefix - 1;
    char digits[16] = "", *end;
    if (name->n <= len || memcmp(name->p, prefix, len) != 0) return 0;
    if (name->n - len >= sizeof digits) return -1;
    memcpy(digits, (const char *)name->p + len, name->n - len);
    long k = strtol(digits, &end, 10);
    if (*end || k < 0 || k >= n->ncapture) return -1;
    const char *s = n->in[n->nin - n->ncapture + (int)k]->name;
    *name = (Bytes){s, strlen(s)};
    return 0;
}

static bool text_is(Bytes b, const char *s) { return b.n == strlen(s) && memcmp(b.p, s, b.n) == 0; }

/* Whether a serialized NodeProto has an attribute of that name. */
static bool body_has_attr(const void *ctx, const char *attr)
{
    Bytes node = *(const Bytes *)ctx;
    for (WireField f; fields_next(&node, &f) > 0;)
        if (f.id == NODE_ATTRIBUTE)
            for (WireField g; fields_next(&f.value, &g) > 0;)
                if (g.id == ATTR_NAME && text_is(g.value, attr)) return true;
    return false;
}

static int check_body_node(Emit *e, const Node *n, Bytes node)
{
    Bytes rest = node, op = {0}, domain = {"", 0};
    for (WireField f; fields_next(&rest, &f) > 0;) {
        if (f.id == NODE_OP_TYPE) op = f.value;
        if (f.id == NODE_DOMAIN) domain = f.value;
    }
    if (domain.n && !text_is(domain, "ai.onnx")) return 0;
    const char *name =
        arena_printf(e->a, "%.*s", (int)(op.n < 256 ? op.n : 256), (const char *)op.p);
    return check_carried(e, n, name, body_has_attr, &node);
}

static int copy(Emit *e, const Node *n, Part in, Bytes message, Bytes *out, int depth)
{
    WireOut w = {.arena = e->a};
    WireField f;
    int status = depth > MAX_DEPTH ? -1 : 0;
    if (in == NODE && status == 0) TRY(check_body_node(e, n, message));
    while (status == 0 && (status = fields_next(&message, &f)) > 0) {
        Part part = part_of(in, &f);
        status = 0;
        if (part == COPY) {
            wire_put(&w, f.whole);
            continue;
        }
        if (part == NAME)
            status = put_name(n, &f.value);
        else
            TRY(copy(e, n, part, f.value, &f.value, depth + 1));
        wire_put_bytes_field(&w, f.id, f.value);
    }
    *out = (Bytes){w.p, w.n};
    return status < 0 ? node_error(e->d, n, "an attribute's bytes are damaged") : 0;
}

int emit_body(Emit *e, const Node *n, Bytes attr, Bytes *out)
{
    return copy(e, n, ATTR, attr, out, 0);
}
