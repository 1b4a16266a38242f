/* What must hold for every case. Each check returns 0, or -1 after saying what is wrong; 1 means
 * that it does not apply. */
#ifndef EHAP_TESTS_OPS_CHECKS_H
#define EHAP_TESTS_OPS_CHECKS_H

#include "tests/ops/case.h"

/* Compared with ref instead of the CPU's devices; NULL: those. */
extern const char *checks_device;
bool has_device(const char *name); /* whether this machine has it */

typedef int Check(const Case *c, Arena *a, Diag *d);

Check check_devices; /* every device gives what ref gives, whatever is constant */
Check check_half;    /* the same with F16 and BF16 storage, to their accuracy */
Check check_jvp;     /* against central differences on ref */
Check check_vjp;     /* <dy, J v> = <J' dy, v> */
Check check_second;  /* the tangent of the gradient, against differences of the gradient */
Check check_lanes;   /* with channels removed around it: as with these channels at zero */
Check check_onnx;    /* written and read again: the same results */

#endif
