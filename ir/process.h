/* What the process knows of itself: the time, and the memory that it holds. */
#ifndef EHAP_IR_PROCESS_H
#define EHAP_IR_PROCESS_H

#include <stddef.h>

/* Of a clock that only goes forward; for differences. */
double process_seconds(void);
/* Bytes of the resident set, after free memory has been handed back to the system; 0: unknown. */
size_t process_resident(void);
/* The largest it has been. */
size_t process_peak_resident(void);
/* The memory there is: the machine's, or less where a control group or a limit on the address
 * space says so; SIZE_MAX: unknown. */
size_t process_memory(void);

/* The same as far as it is not taken by others: what the process holds, and what is free. */
size_t process_memory_free(void);

#endif
