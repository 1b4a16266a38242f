/* Names to anything: the one hash table of the project. */
#ifndef EHAP_IR_NAMES_H
#define EHAP_IR_NAMES_H

#include "ir/arena.h"

typedef struct Names Names;

Names *names_new(Arena *a);
/* What was put under that name; NULL if nothing was. */
void *names_get(const Names *names, const char *name);
/* Puts something (not NULL) under a name that has nothing yet; the name is borrowed. */
void names_put(Names *names, const char *name, void *what);

#endif
