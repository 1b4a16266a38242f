/* Functions of the names of CUDA's, cuDNN's, cuBLAS's and NVRTC's that write down what they are
 * asked (stub_cuda.c, stub_libraries.c), for the tests that link them in place of the real ones. */
#ifndef EHAP_TESTS_CUDA_STUBS_H
#define EHAP_TESTS_CUDA_STUBS_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/cuda/real.h"

extern char log_text[16384]; /* a line per call since the last forget() */
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);
void forget(void);
void must_say(const char *text); /* fails the test unless the log has it */

/* Calls are counted; the one of number `failing` fails, if that is not 0. */
extern int calls, failing;
bool fails(void);
/* Runs f once for each call that it makes, at_least so many, with that call failing. Every time it
 * must trap and name the node. */
void every_call_fails(void (*f)(void), int at_least);

extern cudaError_t next_status; /* of the next call of CUDA, once */
extern size_t left;             /* bytes of the device that are free */
extern bool no_memory;          /* for measuring algorithms */
extern bool lost;               /* errors of CUDA stay */
extern int refused;             /* algorithm that works in no math; -1 */
extern int known_archs[3];      /* of NVRTC */

#endif
