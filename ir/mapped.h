/* Files mapped into memory: their pages can be given back while they are not needed. */
#ifndef EHAP_IR_MAPPED_H
#define EHAP_IR_MAPPED_H

#include <stddef.h>

/* A private mapping that nobody writes to, until it is removed. Without memory for the note it is
 * just not known. */
void mapped_add(const void *p, size_t n);
void mapped_remove(const void *p);
/* If the n bytes at p lie in a mapped file, those of their pages that nothing else shares leave the
 * resident set; they are read again when somebody looks at them. Otherwise nothing happens. */
void mapped_forget(const void *p, size_t n);
/* The same after n bytes at p have been looked at in passing, wherever they lie: what the look
 * brought in around them goes too, and comes back where somebody else still needs it. */
void mapped_passed(const void *p, size_t n);

#endif
