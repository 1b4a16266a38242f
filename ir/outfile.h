/* Files that appear whole or not at all: everything goes to a file in the target's folder that has
 * no name or a temporary one, is flushed to the disk, and takes the target's name last. */
#ifndef EHAP_IR_OUTFILE_H
#define EHAP_IR_OUTFILE_H

#include <stdio.h>

#include "ir/arena.h"
#include "ir/diag.h"

typedef struct OutFile {
    Arena *arena;
    const char *path;
    char *temporary; /* name it has meanwhile; NULL: none, or none any more */
    FILE *f;         /* NULL: closed */
    int error;       /* errno of the first failure */
    int slot;        /* in the table that outfiles_remove reads; < 0: none was free */
} OutFile;

/* A file that is to be `path`; NULL after an error. Unless it is published, it goes with the arena,
 * so also when a trap ends the work. Removes what killed processes have left of earlier ones. */
OutFile *outfile_new(Arena *a, const char *path, Diag *d);
void outfile_write(OutFile *f, const void *p, size_t n); /* an error shows in outfile_close */
/* All is on the disk, but not under its name; -1 after an error. */
int outfile_close(OutFile *f, Diag *d);
/* Gives the closed file its name. */
int outfile_publish(OutFile *f, Diag *d);
/* All of the above for n bytes. */
int outfile_whole(const char *path, const void *p, size_t n, Diag *d);

/* Removes the temporary files of all threads. For a signal handler that ends the process. */
void outfiles_remove(void);

#endif
