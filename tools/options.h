/* The table of options, for the command line's own use. */
#ifndef EHAP_TOOLS_OPTIONS_H
#define EHAP_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

void options_help(FILE *to);
/* Whether there is such a flag and it takes a value. */
bool option_takes_value(const char *name);

/* The name of the k-th option that takes a number, with or without a unit; NULL: no more. */
const char *option_of_number(int k);

#endif
