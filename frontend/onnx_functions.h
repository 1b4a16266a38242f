/* onnx_functions.c: calls of local functions of known operators become those operators. */
#ifndef EHAP_FRONTEND_ONNX_FUNCTIONS_H
#define EHAP_FRONTEND_ONNX_FUNCTIONS_H

#include "frontend/onnx_import.h"

/* Rewrites m->graph->node, and takes functions out of m that nobody calls any more. im->opset is
 * known; what is new lives in im->tmp. */
int inline_functions(Import *im, Onnx__ModelProto *m);

#endif
