/* onnx_graph.c: GraphProto to Graph. */
#ifndef EHAP_FRONTEND_ONNX_GRAPH_H
#define EHAP_FRONTEND_ONNX_GRAPH_H

#include "frontend/onnx_import.h"

/* Names, values, nodes in topological order, types. im->g is empty but for its info. */
int import_graph(Import *im);
/* The same of a body without inputs, whose nodes are appended to im->g: im->names holds the outer
 * values that it reads. out[] receives its outputs. */
int import_body(Import *im, Value **out);

#endif
