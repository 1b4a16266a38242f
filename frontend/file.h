/* Whole files as bytes. */
#ifndef EHAP_FRONTEND_FILE_H
#define EHAP_FRONTEND_FILE_H

#include "ir/ir.h"

/* The bytes of a regular file, valid as long as `a`: read into it when small (a file that
 * shrinks under a mapping raises SIGBUS), mapped when large. Aligned to 64. */
int file_bytes(Bytes *out, Arena *a, const char *path, Diag *d);
/* The same for the file `name` below folder `dir`: no absolute path, no "..", no symbolic
 * link on the way. */
int file_bytes_below(Bytes *out, Arena *a, const char *dir, const char *name, Diag *d);
/* Continues a digest (ir/digest.h) over the size of a file and the time of its last change, which
 * tell contents apart without reading them; over nothing where there is no such file. */
uint64_t file_stamp(uint64_t h, const char *path);

#endif
