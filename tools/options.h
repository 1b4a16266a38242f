/* The table of options, for the command line's own use. */
#ifndef EHAP_TOOLS_OPTIONS_H
#define EHAP_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

void options_help(FILE *to);
/* Whether the flag takes a value; *known: whether there is such a flag. */
bool option_takes_value(const char *name, bool *known);

/* The name of the k-th option that takes a number, with a unit or without; NULL: there are no more.
 */
const char *option_of_number(int k);

#endif
