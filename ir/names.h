/* The set of value names of a graph. */
#ifndef EHAP_IR_NAMES_H
#define EHAP_IR_NAMES_H

#include "ir/arena.h"

typedef struct NameSet NameSet;

NameSet *names_new(Arena *a);
bool names_has(const NameSet *set, const char *name);
void names_add(NameSet *set, const char *name); /* borrowed */

#endif
