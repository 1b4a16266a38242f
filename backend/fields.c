/* Reading and writing the protobuf wire format without descriptors. */
#include "backend/fields.h"

#include <string.h>

static int varint(Bytes *b, uint64_t *out)
{
    const uint8_t *p = b->p;
    *out = 0;
    for (size_t i = 0; i < b->n && i < 10; i++) {
        *out |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (p[i] < 0x80) {
            *b = (Bytes){p + i + 1, b->n - i - 1};
            return 0;
        }
    }
    return -1;
}

int fields_next(Bytes *rest, WireField *f)
{
    Bytes b = *rest;
    uint64_t tag, n;
    if (b.n == 0) return 0;
    TRY(varint(&b, &tag));
    *f = (WireField){.id = (uint32_t)(tag >> 3), .wire = tag & 7};
    f->raw = f->value = b;
    switch (f->wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        TRY(varint(&b, &n));
        n = 0;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        TRY(varint(&b, &n));
        f->value = b;
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        n = f->wire == PROTOBUF_C_WIRE_TYPE_64BIT ? 8 : 4;
        break;
    default:
        return -1;
    }
    if (n > b.n || tag >> 3 == 0 || tag > UINT32_MAX) return -1;
    const uint8_t *end = (const uint8_t *)b.p + n;
    f->value.n = (size_t)(end - (const uint8_t *)f->value.p);
    f->raw.n = (size_t)(end - (const uint8_t *)f->raw.p);
    f->whole = (Bytes){rest->p, (size_t)(end - (const uint8_t *)rest->p)};
    *rest = (Bytes){end, rest->n - f->whole.n};
    return 1;
}

static ProtobufCMessageUnknownField *more(Arena *a, ProtobufCMessage *m, size_t n)
{
    ProtobufCMessageUnknownField *u =
        NEW_ARRAY(a, ProtobufCMessageUnknownField, m->n_unknown_fields + n);
    if (m->n_unknown_fields) memcpy(u, m->unknown_fields, m->n_unknown_fields * sizeof *u);
    m->unknown_fields = u;
    return u;
}

int fields_append(Arena *a, ProtobufCMessage *m, Bytes extra, Diag *d)
{
    WireField f;
    size_t n = 0;
    int status;
    for (Bytes rest = extra; (status = fields_next(&rest, &f)) > 0;) n++;
    if (status < 0)
        return diag_error(d, "the extra fields of a %s are damaged", m->descriptor->name);
    if (n == 0) return 0;
    ProtobufCMessageUnknownField *u = more(a, m, n);
    while (fields_next(&extra, &f) > 0)
        u[m->n_unknown_fields++] = (ProtobufCMessageUnknownField){
            f.id, (ProtobufCWireType)f.wire, f.raw.n, (uint8_t *)(uintptr_t)f.raw.p};
    return 0;
}

static size_t put_varint(uint8_t *out, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

void fields_append_bytes(Arena *a, ProtobufCMessage *m, uint32_t id, Bytes value)
{
    uint8_t *p = arena_alloc(a, value.n + 10);
    size_t n = put_varint(p, value.n);
    if (value.n) memcpy(p + n, value.p, value.n);
    more(a, m, 1)[m->n_unknown_fields++] =
        (ProtobufCMessageUnknownField){id, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, n + value.n, p};
}

void wire_put(WireOut *w, Bytes b)
{
    if (w->cap - w->n < b.n) {
        w->cap = 2 * w->cap + b.n + 256;
        uint8_t *p = arena_alloc(w->arena, w->cap);
        if (w->n) memcpy(p, w->p, w->n);
        w->p = p;
    }
    if (b.n) memcpy(w->p + w->n, b.p, b.n);
    w->n += b.n;
}

void wire_put_bytes_field(WireOut *w, uint32_t id, Bytes value)
{
    uint8_t head[20];
    size_t n = put_varint(head, (uint64_t)id << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
    n += put_varint(head + n, value.n);
    wire_put(w, (Bytes){head, n});
    wire_put(w, value);
}
