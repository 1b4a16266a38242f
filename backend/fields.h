/* Protobuf fields that the IR carries as bytes. */
#ifndef EHAP_BACKEND_FIELDS_H
#define EHAP_BACKEND_FIELDS_H

#include <protobuf-c/protobuf-c.h>

#include "ir/ir.h"

typedef struct WireField {
    uint32_t id;
    unsigned wire;
    Bytes whole; /* with its tag */
    Bytes raw;   /* without */
    Bytes value; /* without its length prefix either */
} WireField;

/* Takes the first field off `rest`: 1, 0 at the end, -1 if the bytes are broken. */
int fields_next(Bytes *rest, WireField *f);

/* Makes m end with the fields of a serialized message, as they are. */
int fields_append(Arena *a, ProtobufCMessage *m, Bytes extra, Diag *d);
/* Makes m end with one field of bytes. */
void fields_append_bytes(Arena *a, ProtobufCMessage *m, uint32_t id, Bytes value);

/* Bytes that grow in an arena. */
typedef struct WireOut {
    Arena *arena;
    uint8_t *p;
    size_t n, cap;
} WireOut;
void wire_put(WireOut *w, Bytes b);
void wire_put_bytes_field(WireOut *w, uint32_t id, Bytes value);

#endif
