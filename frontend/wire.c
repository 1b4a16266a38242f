/* The pre-scan in front of protobuf-c, and zero-copy bytes.
 *
 * protobuf-c trusts its input: deep nesting overflows its stack, repeated singular messages merge
 * in quadratic time, and two bytes per empty message cost it 250. So the file is first scanned
 * against the generated descriptors, which bounds all of that and counts what decoding will
 * allocate. The scan writes a skeleton: the same message with every non-empty `bytes` field
 * replaced by a 16-byte token (offset, length). protobuf-c unpacks the skeleton into one arena
 * block of the counted size, and the tokens are then replaced by pointers into the original bytes.
 *
 * Fields that came after the oldest onnx.proto that we build with are unknown fields in every
 * build: the skeleton gives them numbers that no descriptor has.
 */
#include "frontend/wire.h"

#include <limits.h>
#include <string.h>

#include "ir/text.h"
#include "onnx.pb-c.h"

typedef ProtobufCMessageDescriptor Desc;
typedef ProtobufCFieldDescriptor Field;

/* Overloads, metadata, defaults of attributes, and what else came behind them. */
static const struct {
    const Desc *desc;
    uint32_t from;
} late[] = {
    {&onnx__node_proto__descriptor, 8},   {&onnx__value_info_proto__descriptor, 4},
    {&onnx__graph_proto__descriptor, 16}, {&onnx__function_proto__descriptor, 11},
    {&onnx__model_proto__descriptor, 26}, {&onnx__tensor_proto__descriptor, 16},
};
enum { HIDDEN = 1 << 24 }; /* added to their numbers */

enum { TOKEN = 16, ROUND = 16, MEMBER = 40, SLAB = 16 };

typedef struct Scan {
    const uint8_t *base;
    Diag *d;
    size_t heap, heap_max; /* bytes that unpacking will ask for */
    Text out;              /* the skeleton */
} Scan;

/* One field as it lies in the file. */
typedef struct Item {
    uint32_t id;
    unsigned wire;
    const uint8_t *start;         /* of the tag */
    const uint8_t *payload, *end; /* after the length prefix, if any */
} Item;

static int broken(const Scan *s, const Desc *desc, const uint8_t *at, const char *what)
{
    return diag_error(s->d, "not a valid ONNX file: %s in %s at byte %zu", what, desc->short_name,
                      (size_t)(at - s->base));
}

static int field_error(const Scan *s, const Desc *desc, const Field *f, const char *what)
{
    return diag_error(s->d, "not a valid ONNX file: field '%s' of %s %s", f->name, desc->short_name,
                      what);
}

static size_t rounded(size_t n) { return (n + ROUND - 1) & ~(size_t)(ROUND - 1); }

static int charge(Scan *s, size_t bytes)
{
    s->heap += bytes;
    if (s->heap <= s->heap_max) return 0;
    return diag_error(s->d,
                      "decoding would take more than %zu MiB, far beyond any model of this "
                      "size; the file is damaged or hostile",
                      s->heap_max >> 20);
}

/* A varint of at most 10 bytes; NULL if it does not end in time. */
static const uint8_t *varint(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < 10 && p < end; i++) {
        uint64_t b = *p++;
        *out |= (b & 0x7f) << (7 * i);
        if (b < 0x80) return p;
    }
    return NULL;
}

static int read_item(const Scan *s, const Desc *desc, const uint8_t *p, const uint8_t *end,
                     Item *it)
{
    uint64_t v;
    const uint8_t *q = varint(p, end, &v);
    if (!q || v > UINT32_MAX || q - p > 5 || v >> 3 == 0) return broken(s, desc, p, "a bad tag");
    *it = (Item){.id = (uint32_t)(v >> 3), .wire = v & 7, .start = p, .payload = q};
    size_t left = (size_t)(end - q), n = 0;
    if (it->wire == PROTOBUF_C_WIRE_TYPE_VARINT) {
        if (!(it->end = varint(q, end, &v))) return broken(s, desc, p, "an unfinished number");
        return 0;
    }
    if (it->wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
        const uint8_t *r = varint(q, end, &v);
        if (!r || r - q > 5 || v > INT_MAX || v > (size_t)(end - r))
            return broken(s, desc, p, "a field longer than what holds it");
        it->payload = r;
        it->end = r + v;
        return 0;
    }
    if (it->wire == PROTOBUF_C_WIRE_TYPE_64BIT) n = 8;
    if (it->wire == PROTOBUF_C_WIRE_TYPE_32BIT) n = 4;
    if (!n) return broken(s, desc, p, "an unknown wire type");
    if (left < n) return broken(s, desc, p, "a truncated number");
    it->end = q + n;
    return 0;
}

static unsigned wire_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* The elements of a packed field; each costs at most 8 bytes decoded. */
static int scan_packed(Scan *s, const Desc *desc, const Field *f, const Item *it)
{
    size_t n = (size_t)(it->end - it->payload), count = 0;
    unsigned wire = wire_of(f->type);
    if (wire == PROTOBUF_C_WIRE_TYPE_32BIT || wire == PROTOBUF_C_WIRE_TYPE_64BIT) {
        size_t size = wire == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
        if (n % size) return field_error(s, desc, f, "holds part of an element");
        return charge(s, n);
    }
    for (const uint8_t *p = it->payload; p < it->end; count++) {
        uint64_t v;
        if (!(p = varint(p, it->end, &v))) return field_error(s, desc, f, "holds a bad number");
    }
    return charge(s, count * 8);
}

static int scan_message(Scan *s, const Desc *desc, const uint8_t *p, const uint8_t *end, int depth);

static int append_raw(Scan *s, const uint8_t *from, const uint8_t *to)
{
    text_put(&s->out, from, (size_t)(to - from));
    return 0;
}

/* The tag as it was, then a token of 16 bytes in place of the bytes. */
static int scan_bytes(Scan *s, const Item *it)
{
    uint64_t token[2] = {(uint64_t)(it->payload - s->base), (uint64_t)(it->end - it->payload)};
    uint8_t tag_len = 1, len = TOKEN;
    while (it->start[tag_len - 1] >= 0x80) tag_len++;
    TRY(charge(s, TOKEN));
    if (token[1] == 0) return append_raw(s, it->start, it->end);
    text_put(&s->out, it->start, tag_len);
    text_put(&s->out, &len, 1);
    text_put(&s->out, token, sizeof token);
    return 0;
}

/* A sub-message. Its length is known only afterwards, so the prefix is a varint padded to 5. */
static int scan_child(Scan *s, const Field *f, const Item *it, int depth)
{
    static const uint8_t room[5];
    uint8_t tag_len = 1;
    while (it->start[tag_len - 1] >= 0x80) tag_len++;
    text_put(&s->out, it->start, tag_len);
    text_put(&s->out, room, sizeof room);
    size_t from = s->out.n;
    TRY(scan_message(s, f->descriptor, it->payload, it->end, depth + 1));
    size_t len = s->out.n - from;
    if (len > INT_MAX) return diag_error(s->d, "the file is too large for protobuf");
    for (int i = 0; i < 5; i++)
        s->out.p[from - 5 + (size_t)i] = (char)((len >> (7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
    return 0;
}

static int scan_known(Scan *s, const Desc *desc, const Field *f, const Item *it, int depth)
{
    unsigned want = wire_of(f->type);
    bool repeated = f->label == PROTOBUF_C_LABEL_REPEATED;
    size_t n = (size_t)(it->end - it->payload);
    if (repeated) TRY(charge(s, f->type == PROTOBUF_C_TYPE_BYTES ? 16 : 8));
    if (it->wire != want) {
        if (!repeated || it->wire != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
            return field_error(s, desc, f, "has the wrong wire type");
        TRY(scan_packed(s, desc, f, it));
        return append_raw(s, it->start, it->end);
    }
    if (f->type == PROTOBUF_C_TYPE_BYTES) return scan_bytes(s, it);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) return scan_child(s, f, it, depth);
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        if (memchr(it->payload, 0, n)) return field_error(s, desc, f, "holds a NUL character");
        TRY(charge(s, rounded(n + 1)));
    }
    return append_raw(s, it->start, it->end);
}

static bool is_late(const Desc *desc, uint32_t id)
{
    for (size_t k = 0; k < sizeof late / sizeof *late; k++)
        if (late[k].desc == desc) return id >= late[k].from;
    return false;
}

/* A field that the descriptor does not know, or is not to know. */
static int scan_unknown(Scan *s, const Item *it, bool hide)
{
    const uint8_t *from = it->start;
    TRY(charge(s, sizeof(ProtobufCMessageUnknownField) + rounded((size_t)(it->end - it->start))));
    if (hide) {
        uint8_t tag[5];
        uint32_t v = (it->id + HIDDEN) << 3 | it->wire;
        for (int i = 0; i < 5; i++) tag[i] = (uint8_t)((v >> (7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
        text_put(&s->out, tag, sizeof tag);
        while (*from++ >= 0x80)
            ;
    }
    return append_raw(s, from, it->end);
}

static int scan_field(Scan *s, const Desc *desc, const Item *it, uint64_t *seen, int depth)
{
    const Field *f = protobuf_c_message_descriptor_get_field(desc, it->id);
    if (!f || is_late(desc, it->id)) return scan_unknown(s, it, f != NULL);
    uint64_t bit = 1ULL << ((f - desc->fields) & 63);
    if (!(*seen & bit)) TRY(charge(s, ROUND));
    if (*seen & bit && f->label != PROTOBUF_C_LABEL_REPEATED)
        return field_error(s, desc, f, "occurs twice");
    *seen |= bit;
    return scan_known(s, desc, f, it, depth);
}

static int scan_message(Scan *s, const Desc *desc, const uint8_t *p, const uint8_t *end, int depth)
{
    uint64_t seen = 0;
    size_t members = 0;
    if (depth > WIRE_MAX_DEPTH)
        return diag_error(s->d, "messages are nested deeper than %d", (int)WIRE_MAX_DEPTH);
    TRY(charge(s, rounded(desc->sizeof_message) + ROUND));
    while (p < end) {
        Item it = {0};
        TRY(read_item(s, desc, p, end, &it));
        TRY(scan_field(s, desc, &it, &seen, depth));
        p = it.end;
        /* protobuf-c notes members in slabs that double; the first is on its stack. */
        if (++members > SLAB) TRY(charge(s, 2 * MEMBER + (members == SLAB + 1 ? 4096 : 0)));
    }
    return 0;
}

/* ---- unpacking the skeleton --------------------------------------------------------- */

typedef struct Block {
    uint8_t *p;
    size_t n;
} Block;

static void *block_alloc(void *ctx, size_t n)
{
    Block *b = ctx;
    size_t need = rounded(n ? n : 1);
    if (need < n || need > b->n) return NULL;
    void *p = b->p;
    b->p += need;
    b->n -= need;
    return p;
}

static void block_free(void *ctx, void *p)
{
    (void)ctx;
    (void)p;
}

/* Calls visit on every element of a set field. */
static int each_element(ProtobufCMessage *m, const Field *f, int (*visit)(void *, void *),
                        void *ctx)
{
    char *member = (char *)m + f->offset, *quantifier = (char *)m + f->quantifier_offset;
    size_t size = f->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : sizeof(void *);
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(uint32_t *)(void *)quantifier != f->id)
        return 0;
    if (f->label != PROTOBUF_C_LABEL_REPEATED) return visit(ctx, member);
    size_t n = *(size_t *)(void *)quantifier;
    char *array = *(char **)(void *)member;
    for (size_t i = 0; i < n; i++) TRY(visit(ctx, array + i * size));
    return 0;
}

static int patch_message(void *ctx, void *element);

static int patch_bytes(void *ctx, void *element)
{
    ProtobufCBinaryData *b = element;
    uint64_t token[2];
    if (b->len != TOKEN) return 0; /* empty */
    memcpy(token, b->data, sizeof token);
    b->data = (uint8_t *)ctx + token[0];
    b->len = token[1];
    return 0;
}

static int patch_message(void *ctx, void *element)
{
    ProtobufCMessage *m = *(ProtobufCMessage **)element;
    for (unsigned i = 0; m && i < m->n_unknown_fields; i++) {
        const uint32_t id = m->unknown_fields[i].tag - HIDDEN;
        if (is_late(m->descriptor, id) &&
            protobuf_c_message_descriptor_get_field(m->descriptor, id))
            m->unknown_fields[i].tag = id;
    }
    for (unsigned i = 0; m && i < m->descriptor->n_fields; i++) {
        const Field *f = &m->descriptor->fields[i];
        if (f->type == PROTOBUF_C_TYPE_BYTES) each_element(m, f, patch_bytes, ctx);
        if (f->type == PROTOBUF_C_TYPE_MESSAGE) each_element(m, f, patch_message, ctx);
    }
    return 0;
}

static int unpack(ProtobufCMessage **out, Arena *a, const Desc *desc, const Scan *s)
{
    Block block = {arena_alloc(a, s->heap), s->heap};
    ProtobufCAllocator allocator = {block_alloc, block_free, &block};
    ProtobufCMessage *m =
        protobuf_c_message_unpack(desc, &allocator, s->out.n, (const uint8_t *)s->out.p);
    if (!m) return diag_error(s->d, "not a valid ONNX file: %s cannot be decoded", desc->name);
    *out = m;
    return patch_message((void *)(uintptr_t)s->base, out);
}

int wire_read(ProtobufCMessage **out, Arena *a, const Desc *desc, Bytes bytes, Diag *d)
{
    static const uint8_t nothing[1];
    const uint8_t *base = bytes.n ? bytes.p : nothing;
    if (bytes.n > INT_MAX)
        return diag_error(d,
                          "%zu bytes: protobuf ends at 2 GiB; larger models keep their weights "
                          "in external data",
                          bytes.n);
    Arena *scratch = arena_new();
    Scan s = {.base = base,
              .d = d,
              .heap_max = ((size_t)64 << 20) + 16 * bytes.n,
              .out = {.arena = scratch}};
    int status = scan_message(&s, desc, base, base + bytes.n, 1);
    if (status == 0) status = unpack(out, a, desc, &s);
    arena_free(scratch);
    return status;
}

/* ---- services on decoded messages --------------------------------------------------- */

Bytes wire_pack(Arena *a, const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = arena_alloc(a, n);
    protobuf_c_message_pack(m, p);
    return (Bytes){p, n};
}

typedef struct Walk {
    const Desc *desc;
    int (*f)(void *, ProtobufCMessage *);
    void *ctx;
} Walk;

static int walk_message(void *ctx, void *element)
{
    Walk *w = ctx;
    ProtobufCMessage *m = *(ProtobufCMessage **)element;
    if (!m) return 0;
    if (m->descriptor == w->desc) TRY(w->f(w->ctx, m));
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        if (m->descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            TRY(each_element(m, &m->descriptor->fields[i], walk_message, w));
    return 0;
}

int wire_each(ProtobufCMessage *m, const Desc *desc, int (*f)(void *, ProtobufCMessage *),
              void *ctx)
{
    Walk w = {desc, f, ctx};
    return walk_message(&w, &m);
}
