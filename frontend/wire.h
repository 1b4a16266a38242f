/* Protobuf messages read without trust and without copying their bytes. */
#ifndef EHAP_FRONTEND_WIRE_H
#define EHAP_FRONTEND_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "ir/ir.h"

enum { WIRE_MAX_DEPTH = 64 };

/* Decodes `bytes` as the message `desc`. The tree lives in `a` (never free it); its `bytes` fields
 * point into `bytes`, which must outlive it. Refused, with an error: a broken wire format, nesting
 * beyond WIRE_MAX_DEPTH, a singular field that occurs twice, a NUL inside a string, more
 * memory than a real model of this size would need. */
int wire_read(ProtobufCMessage **out, Arena *a, const ProtobufCMessageDescriptor *desc, Bytes bytes,
              Diag *d);

/* A message as bytes in `a`. */
Bytes wire_pack(Arena *a, const ProtobufCMessage *m);

/* Calls f on every message of type `desc` inside m, m included. -1 from f ends the walk. */
int wire_each(ProtobufCMessage *m, const ProtobufCMessageDescriptor *desc,
              int (*f)(void *ctx, ProtobufCMessage *m), void *ctx);

#endif
