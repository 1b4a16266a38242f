/* onnx_graph.c: GraphProto to Graph. */
#ifndef EHAP_FRONTEND_ONNX_GRAPH_H
#define EHAP_FRONTEND_ONNX_GRAPH_H

#include "frontend/onnx_import.h"

/* Names, values, nodes in topological order, types. im->g is empty but for its info. */
int import_graph(Import *im);

#endif
