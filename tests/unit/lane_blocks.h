/* More of lane_nets.h: blocks as exporters write them (attention in its packed forms, pixel
 * shuffle, normalization by groups, shapes that are only known when the network runs). */
#ifndef EHAP_TESTS_LANE_BLOCKS_H
#define EHAP_TESTS_LANE_BLOCKS_H

static inline Value *images(Graph *g, int64_t channels)
{
    return graph_add_input(
        g, "x",
        type_of(DT_F32, 4,
                D(graph_symbol(g, "N"), channels, graph_symbol(g, "H"), graph_symbol(g, "W"))));
}

static inline Value *pick(Graph *g, Value *x, int64_t axis, Value *index)
{
    return build(g, OP_Gather, IN(x, index), ATTRS(attr_int("axis", axis)));
}

static inline Value *scalar_index(Graph *g, int64_t i)
{
    Value *v = CONST_INTS(g, i);
    v->type.rank = 0;
    return v;
}

/* The heads lie beside the batch, as torch.nn.MultiheadAttention has them: [T, N, H D] ->
 * [T, N H, D] -> [N H, T, D]. */
static inline void net_heads_in_batch(Graph *g)
{
    Value *x = transpose(g, tokens(g, 4, 7), 3, D(1, 0, 2)), *part[3];
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++)
        part[i] =
            transpose(g, reshape(g, product(g, x, names[i], 6), 3, D(4, -1, 3)), 3, D(1, 0, 2));
    Value *y = transpose(g, attend(g, part[0], part[1], part[2], 3, D(0, 2, 1)), 3, D(1, 0, 2));
    graph_add_output(g, product(g, reshape(g, y, 3, D(4, -1, 6)), "o", 7));
}

/* [N, T, 3 H D] as one product, cut by Split; two heads of 3. */
static inline void net_packed_split(Graph *g)
{
    Value *x = tokens(g, 4, 7);
    Node *s = build_multi(g, OP_Split, 3, IN(product(g, x, "qkv", 18)),
                          ATTRS(attr_int("axis", -1), attr_int("num_outputs", 3)));
    Value *y =
        attend(g, heads(g, s->out[0]), heads(g, s->out[1]), heads(g, s->out[2]), 4, D(0, 1, 3, 2));
    y = reshape(g, transpose(g, y, 4, D(0, 2, 1, 3)), 3, D(0, 4, 6));
    graph_add_output(g, product(g, y, "o", 7));
}

/* The same by Slice. */
static inline void net_packed_slice(Graph *g)
{
    Value *x = tokens(g, 4, 7), *qkv = product(g, x, "qkv", 18), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = build(g, OP_Slice,
                        IN(qkv, CONST_INTS(g, 6 * i), CONST_INTS(g, 6 * i + 6), CONST_INTS(g, 2)),
                        NO_ATTRS);
    Value *y = attend(g, heads(g, part[0]), heads(g, part[1]), heads(g, part[2]), 4, D(0, 1, 3, 2));
    y = reshape(g, transpose(g, y, 4, D(0, 2, 1, 3)), 3, D(0, 4, 6));
    graph_add_output(g, product(g, y, "o", 7));
}

/* [N, T, 3, H, D] -> [3, N, H, T, D], picked apart: one position goes from all three. */
static inline void net_packed_gather(Graph *g)
{
    Value *x = tokens(g, 4, 7), *part[3];
    Value *r = reshape(g, product(g, x, "qkv", 30), 5, D(0, 0, 3, 2, 5));
    r = transpose(g, r, 5, D(2, 0, 3, 1, 4));
    for (int i = 0; i < 3; i++) part[i] = pick(g, r, 0, scalar_index(g, i));
    Value *y = attend(g, part[0], part[1], part[2], 4, D(0, 1, 3, 2));
    y = reshape(g, transpose(g, y, 4, D(0, 2, 1, 3)), 3, D(0, 4, -1));
    graph_add_output(g, product(g, y, "o", 7));
}

/* ConvNeXt V2's: the norm of each channel over its positions, by their mean over channels. */
static inline void net_response_norm(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Value *norm = build(g, OP_ReduceL2, IN(a, CONST_INTS(g, 2, 3)), NO_ATTRS);
    Value *mean = build(g, OP_ReduceMean, IN(norm, CONST_INTS(g, 1)), NO_ATTRS);
    Value *ratio = binary(g, OP_Div, norm, binary(g, OP_Add, mean, const_f32(g, 1e-6F)));
    Value *y = binary(g, OP_Mul, weight(g, "gain", 4, D(1, 6, 1, 1)), binary(g, OP_Mul, a, ratio));
    classify(g, binary(g, OP_Add, a, y));
}

/* A stream of 6 that is written to twice and normalized between. */
static inline void stream_with(Graph *g, Value *(*normalized)(Graph *g, Value *x))
{
    Value *x = product(g, tokens(g, 4, 3), "in", 6);
    Value *h = relu(g, product(g, normalized(g, x), "h", 5));
    graph_add_output(g, product(g, binary(g, OP_Add, x, product(g, h, "back", 6)), "out", 3));
}

static inline Value *rms_norm_parts(Graph *g, Value *x)
{
    Value *mean = build(g, OP_ReduceMean, IN(binary(g, OP_Mul, x, x), CONST_INTS(g, -1)), NO_ATTRS);
    Value *rms = unary(g, OP_Sqrt, binary(g, OP_Add, mean, const_f32(g, 1e-3F)));
    return binary(g, OP_Mul, binary(g, OP_Div, x, rms), weight(g, "scale", 1, D(6)));
}

static inline void net_rms_norm_parts(Graph *g) { stream_with(g, rms_norm_parts); }

static inline Value *rms_norm(Graph *g, Value *x)
{
    return build(g, OP_RMSNormalization, IN(x, weight(g, "scale", 1, D(6))),
                 ATTRS(attr_float("epsilon", 1e-3F)));
}

static inline void net_rms_norm(Graph *g) { stream_with(g, rms_norm); }

static inline Value *layer_norm_parts(Graph *g, Value *x)
{
    Value *axis = CONST_INTS(g, -1), *mean = build(g, OP_ReduceMean, IN(x, axis), NO_ATTRS);
    Value *d = binary(g, OP_Sub, x, mean);
    Value *variance = build(g, OP_ReduceMean, IN(binary(g, OP_Mul, d, d), axis), NO_ATTRS);
    return binary(g, OP_Div, d,
                  unary(g, OP_Sqrt, binary(g, OP_Add, variance, const_f32(g, 1e-3F))));
}

static inline void net_layer_norm_parts(Graph *g) { stream_with(g, layer_norm_parts); }

/* The stream is normalized, the hidden layer of the block is not. */
static inline void net_transformer_mlp(Graph *g)
{
    Value *x = product(g, tokens(g, 4, 5), "in", 6), *scale = weight(g, "scale", 1, D(6));
    Value *n = build(g, OP_LayerNormalization, IN(x, scale, weight(g, "shift", 1, D(6))), NO_ATTRS);
    Value *h =
        unary(g, OP_Gelu, binary(g, OP_Add, product(g, n, "up", 10), weight(g, "b", 1, D(10))));
    graph_add_output(g, binary(g, OP_Add, x, product(g, h, "down", 6)));
}

/* PixelShuffle(2) as the reshapes that it is exported to; 3 channels of 4 each. */
static inline void net_pixel_shuffle(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 12, 3, 1, 1));
    Value *r = transpose(g, reshape(g, a, 6, D(-1, 3, 2, 2, 4, 4)), 6, D(0, 1, 4, 2, 5, 3));
    classify(g, conv(g, reshape(g, r, 4, D(-1, 3, 8, 8)), "b", 5, 3, 1, 1));
}

/* With fewer channels than pixels to a side. */
static inline void net_pixel_shuffle_wide(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 3), "a", 18, 3, 1, 1));
    Value *r = transpose(g, reshape(g, a, 6, D(0, 2, 3, 3, 3, 3)), 6, D(0, 1, 4, 2, 5, 3));
    classify(g, conv(g, reshape(g, r, 4, D(0, 2, 9, 9)), "b", 5, 3, 1, 1));
}

/* PixelUnshuffle(2). */
static inline void net_space_to_depth(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 4, 3, 1, 1));
    Value *r = transpose(g, reshape(g, a, 6, D(0, 4, 2, 2, 2, 2)), 6, D(0, 1, 3, 5, 2, 4));
    classify(g, conv(g, reshape(g, r, 4, D(0, 16, 2, 2)), "b", 5, 3, 1, 1));
}

/* Height and width from the input's shape: view(n, 2, 4, h, w). */
static inline void net_shuffle_any_size(Graph *g)
{
    Value *x = images(g, 3), *size[3];
    Value *a = relu(g, conv(g, x, "a", 8, 3, 1, 1)), *shape = unary(g, OP_Shape, a);
    for (int i = 0; i < 3; i++) size[i] = pick(g, shape, 0, CONST_INTS(g, i ? i + 1 : 0));
    Value *to = build(g, OP_Concat, IN(size[0], CONST_INTS(g, 2, 4), size[1], size[2]),
                      ATTRS(attr_int("axis", 0)));
    Value *back = build(g, OP_Concat, IN(size[0], CONST_INTS(g, 8), size[1], size[2]),
                        ATTRS(attr_int("axis", 0)));
    Value *r = build(g, OP_Reshape, IN(a, to), NO_ATTRS);
    r = build(g, OP_Reshape, IN(transpose(g, r, 5, D(0, 2, 1, 3, 4)), back), NO_ATTRS);
    classify(g, relu(g, conv(g, r, "b", 5, 3, 1, 1)));
}

/* Mean over the positions of a group, written out: whole groups may go. */
static inline void net_group_mean(Graph *g)
{
    Value *a = conv(g, image(g, 3, 3), "a", 12, 3, 1, 1);
    Value *r = reshape(g, a, 3, D(0, 3, -1));
    Value *m = build(g, OP_ReduceMean, IN(r, CONST_INTS(g, 2)), NO_ATTRS);
    Value *y = reshape(g, binary(g, OP_Sub, r, m), 4, D(0, 12, 3, 3));
    classify(g, relu(g, conv(g, y, "b", 5, 3, 1, 1)));
}

/* Style transfer: each channel over its own image. */
static inline void net_instance_norm(Graph *g)
{
    Value *a = conv(g, image(g, 3, 4), "a", 6, 3, 1, 1);
    Value *y = build(g, OP_InstanceNormalization,
                     IN(a, weight(g, "scale", 1, D(6)), weight(g, "shift", 1, D(6))), NO_ATTRS);
    classify(g, relu(g, conv(g, relu(g, y), "b", 5, 3, 1, 1)));
}

static inline Value *group_norm(Graph *g, Value *x, int64_t groups, int64_t scales)
{
    return build(g, OP_GroupNormalization,
                 IN(x, weight(g, "scale", 1, &scales), weight(g, "shift", 1, &scales)),
                 ATTRS(attr_int("num_groups", groups)));
}

/* Opset 21: a scale for each channel. Groups of 3 channels in a residual stream, which a
 * convolution of two groups reads: each half of it loses as many. */
static inline void net_group_norm(Graph *g)
{
    Value *a = relu(g, group_norm(g, conv(g, image(g, 3, 4), "a", 12, 3, 1, 1), 4, 12));
    Value *b = relu(g, group_norm(g, conv(g, a, "b", 8, 3, 1, 1), 4, 8));
    Value *c = group_norm(g, conv(g, b, "c", 12, 3, 1, 1), 4, 12);
    classify(g, relu(g, conv(g, relu(g, binary(g, OP_Add, a, c)), "d", 4, 3, 2, 1)));
}

/* Opset 18: a scale for each group. */
static inline void net_group_scales(Graph *g)
{
    Value *a = relu(g, group_norm(g, conv(g, image(g, 3, 4), "a", 8, 3, 1, 1), 4, 4));
    classify(g, relu(g, conv(g, a, "b", 5, 3, 1, 1)));
}

/* What torch.nn.GroupNorm was exported to: [N, C, H, W] -> [N, G, -1], normalized, and back to the
 * shape that x has when the network runs; then a scale and a shift for each channel. */
static inline void net_group_norm_reshaped(Graph *g)
{
    Value *a = conv(g, images(g, 3), "a", 12, 3, 1, 1);
    static const float one[] = {1, 1, 1}, zero[3];
    Value *ones = value_const(g, "ones", type_of(DT_F32, 1, D(3)), one);
    Value *zeros = value_const(g, "zeros", type_of(DT_F32, 1, D(3)), zero);
    Value *n = build(g, OP_InstanceNormalization, IN(reshape(g, a, 3, D(0, 3, -1)), ones, zeros),
                     NO_ATTRS);
    Value *y = build(g, OP_Reshape, IN(n, unary(g, OP_Shape, a)), NO_ATTRS);
    y = binary(g, OP_Mul, y, weight(g, "scale", 3, D(12, 1, 1)));
    y = binary(g, OP_Add, y, weight(g, "shift", 3, D(12, 1, 1)));
    classify(g, relu(g, conv(g, relu(g, y), "b", 5, 3, 1, 1)));
}

/* What is looked at is moved by what was seen. */
static inline void net_deformable(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 5), "a", 6, 3, 1, 1));
    Value *moves = conv(g, a, "moves", 18, 3, 1, 1), *w = weight(g, "w", 4, D(5, 6, 3, 3));
    Value *y = build(g, OP_DeformConv, IN(a, w, moves, weight(g, "w_b", 1, D(5))),
                     ATTRS(attr_ints("pads", 4, D(1, 1, 1, 1))));
    classify(g, relu(g, y));
}

/* Pixel shuffle as ops of its own, and back. */
static inline void net_depth_to_space(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 12, 3, 1, 1));
    Attr two = attr_int("blocksize", 2);
    Value *up = build(g, OP_DepthToSpace, IN(a), ATTRS(two, attr_str("mode", "CRD")));
    Value *b = relu(g, conv(g, up, "b", 4, 3, 1, 1));
    Value *down = build(g, OP_SpaceToDepth, IN(b), ATTRS(two));
    Value *again = build(g, OP_DepthToSpace, IN(conv(g, down, "c", 8, 1, 1, 1)), ATTRS(two));
    classify(g, conv(g, again, "d", 5, 3, 1, 1));
}

/* Tokens of sequences of any length as the rows of a Gemm, and back: view(-1, c), view(n, t, c). */
static inline void net_rows(Graph *g)
{
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 3, D(graph_symbol(g, "N"), graph_symbol(g, "T"), 4)));
    Value *a = relu(g, product(g, x, "a", 6));
    Value *b = relu(g, dense(g, reshape(g, a, 2, D(-1, 6)), "b", 5));
    Value *outer =
        build(g, OP_Slice, IN(unary(g, OP_Shape, x), CONST_INTS(g, 0), CONST_INTS(g, 2)), NO_ATTRS);
    Value *to = build(g, OP_Concat, IN(outer, CONST_INTS(g, 5)), ATTRS(attr_int("axis", 0)));
    graph_add_output(g, product(g, build(g, OP_Reshape, IN(b, to), NO_ATTRS), "c", 3));
}

/* Words to vectors; nothing looks at the width of a vector as a whole. */
static inline void net_embedding(Graph *g)
{
    Value *x = graph_add_input(g, "x", type_of(DT_I64, 2, D(graph_symbol(g, "N"), 6)));
    Value *e = pick(g, weight(g, "table", 2, D(9, 8)), 0, x);
    Value *h = relu(g, product(g, e, "h", 5));
    Value *m = build(g, OP_ReduceMean, IN(h, CONST_INTS(g, 1)), ATTRS(attr_int("keepdims", 0)));
    graph_add_output(g, dense(g, m, "fc", 3));
}

/* A gate made by products: view(n, c), two layers, view(n, c, 1, 1). */
static inline void net_gate_by_products(Graph *g)
{
    Value *a = relu(g, conv(g, images(g, 3), "a", 6, 3, 1, 1));
    Value *n = pick(g, unary(g, OP_Shape, a), 0, CONST_INTS(g, 0));
    Value *flat = build(g, OP_Concat, IN(n, CONST_INTS(g, 6)), ATTRS(attr_int("axis", 0)));
    Value *back = build(g, OP_Concat, IN(n, CONST_INTS(g, 6, 1, 1)), ATTRS(attr_int("axis", 0)));
    Value *s = build(g, OP_Reshape, IN(unary(g, OP_GlobalAveragePool, a), flat), NO_ATTRS);
    s = unary(g, OP_Sigmoid, dense(g, relu(g, dense(g, s, "down", 3)), "up", 6));
    classify(g, binary(g, OP_Mul, a, build(g, OP_Reshape, IN(s, back), NO_ATTRS)));
}

/* Two inputs that meet, and two outputs. */
static inline void net_two_ways(Graph *g)
{
    int64_t n = graph_symbol(g, "N");
    Value *x = graph_add_input(g, "x", type_of(DT_F32, 4, D(n, 3, 4, 4)));
    Value *z = graph_add_input(g, "z", type_of(DT_F32, 4, D(n, 2, 4, 4)));
    Value *a = relu(g, conv(g, x, "a", 5, 3, 1, 1)), *b = relu(g, conv(g, z, "b", 4, 3, 1, 1));
    Value *c = relu(
        g, conv(g, build(g, OP_Concat, IN(a, b, x), ATTRS(attr_int("axis", 1))), "c", 6, 3, 1, 1));
    graph_add_output(g, conv(g, c, "boxes", 4, 1, 1, 1));
    classify(g, c);
}

/* The way down and up again, with what was kept on the way. */
static inline void net_unet(Graph *g)
{
    Attr two = attr_ints("strides", 2, D(2, 2));
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 4, 3, 1, 1));
    Value *p = build(g, OP_MaxPool, IN(a), ATTRS(attr_ints("kernel_shape", 2, D(2, 2)), two));
    Value *b = relu(g, conv(g, p, "b", 6, 3, 1, 1));
    Value *u = build(g, OP_ConvTranspose, IN(b, weight(g, "u", 4, D(6, 4, 2, 2))), ATTRS(two));
    Value *c = build(g, OP_Concat, IN(a, u), ATTRS(attr_int("axis", 1)));
    graph_add_output(g, conv(g, relu(g, conv(g, c, "c", 5, 3, 1, 1)), "mask", 2, 1, 1, 1));
}

/* YOLO's C2f block: half goes on, each step is kept. */
static inline void net_chunks(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 8, 1, 1, 1));
    Node *s = build_multi(g, OP_Split, 2, IN(a, CONST_INTS(g, 4, 4)), ATTRS(attr_int("axis", 1)));
    Value *m =
        binary(g, OP_Add, s->out[1],
               relu(g, conv(g, relu(g, conv(g, s->out[1], "m", 6, 3, 1, 1)), "n", 4, 3, 1, 1)));
    Value *all = build(g, OP_Concat, IN(s->out[0], s->out[1], m), ATTRS(attr_int("axis", 1)));
    classify(g, relu(g, conv(g, all, "b", 5, 1, 1, 1)));
}

/* An input of two samples: constant positions name those, too. */
static inline Value *two_images(Graph *g, int64_t channels)
{
    return graph_add_input(g, "x", type_of(DT_F32, 4, D(2, channels, 4, 4)));
}

/* Constant positions whose number j of `numbers` at place p is first[j] + step[j] * p[axis[j]]. */
static inline Value *positions(Graph *g, int rank, const int64_t *dim, int numbers, bool nd,
                               const int64_t *first, const int64_t *step, const int *axis)
{
    Type t = type_of(DT_I64, rank, dim);
    int64_t count = type_count(&t), *at = NEW_ARRAY(g->arena, int64_t, count * numbers);
    for (int64_t k = 0; k < count * numbers; k++) {
        int j = (int)(k % numbers);
        int64_t place = k / numbers;
        for (int q = rank - 1; q > axis[j]; q--) place /= dim[q];
        at[k] = first[j] + step[j] * (place % dim[axis[j]]);
    }
    if (nd) t.dim[t.rank++] = numbers;
    return value_const(g, "positions", t, at);
}

/* Every second channel from behind (the others are free), then the first four of a row's pixels. */
static inline void net_picked_elements(Graph *g)
{
    Value *a = relu(g, conv(g, two_images(g, 3), "a", 6, 3, 1, 1));
    Value *at = positions(g, 4, D(2, 3, 4, 4), 1, false, D(-1), D(-2), (int[]){1});
    Value *b = build(g, OP_GatherElements, IN(a, at), ATTRS(attr_int("axis", 1)));
    b = relu(g, conv(g, b, "b", 5, 3, 1, 1));
    at = positions(g, 4, D(2, 4, 4, 2), 1, false, D(0), D(2), (int[]){3});
    classify(g, build(g, OP_GatherElements, IN(b, at), ATTRS(attr_int("axis", 3))));
}

/* y[:, 1:5:2] = update, as exporters write it, and then y[:, 3:] channel by channel. */
static inline void net_written_positions(Graph *g)
{
    Value *x = two_images(g, 3), *a = relu(g, conv(g, x, "a", 6, 3, 1, 1));
    Value *at =
        positions(g, 4, D(2, 2, 4, 4), 4, true, D(0, 1, 0, 0), D(1, 2, 1, 1), (int[]){0, 1, 2, 3});
    Value *y = build(g, OP_ScatterND, IN(a, at, conv(g, x, "u", 2, 1, 1, 1)), NO_ATTRS);
    at = positions(g, 2, D(2, 3), 1, true, D(3), D(1), (int[]){1});
    y = build(g, OP_GatherND, IN(y, at), ATTRS(attr_int("batch_dims", 1)));
    classify(g, relu(g, conv(g, y, "b", 4, 3, 1, 1)));
}

/* Channels are added into others along their axis. */
static inline void net_added_elements(Graph *g)
{
    Value *x = two_images(g, 3), *a = relu(g, conv(g, x, "a", 6, 3, 1, 1));
    Value *at = positions(g, 4, D(2, 2, 4, 4), 1, false, D(4), D(-3), (int[]){1});
    Value *y = build(g, OP_ScatterElements, IN(a, at, conv(g, x, "u", 2, 1, 1, 1)),
                     ATTRS(attr_int("axis", 1), attr_str("reduction", "add")));
    classify(g, relu(g, conv(g, y, "b", 4, 3, 1, 1)));
}

/* The best two tokens by a score, as detectors choose their queries: the positions are computed and
 * repeated along the channels. */
static inline void net_chosen_tokens(Graph *g)
{
    Value *x = graph_add_input(g, "x", type_of(DT_F32, 3, D(2, 5, 4)));
    Value *a = relu(g, product(g, x, "a", 6));
    Value *s = product(g, a, "score", 1);
    Node *top = build_multi(g, OP_TopK, 2, IN(s, CONST_INTS(g, 2)), ATTRS(attr_int("axis", 1)));
    Value *at = build(g, OP_Tile, IN(top->out[1], CONST_INTS(g, 1, 1, 6)), NO_ATTRS);
    Value *best = build(g, OP_GatherElements, IN(a, at), ATTRS(attr_int("axis", 1)));
    graph_add_output(g, product(g, relu(g, product(g, best, "b", 5)), "c", 3));
}

/* Channels in two rows, [N, 2, 3, …], by an index of two axes: what both rows hold goes together.
 */
static inline void net_picked_rows(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Value *rows = CONST_INTS(g, 5, 4, 3, 0, 1, 2);
    rows->type = type_of(DT_I64, 2, D(2, 3));
    Value *y = reshape(g, pick(g, a, 1, rows), 4, D(0, 6, 4, 4));
    classify(g, relu(g, conv(g, y, "b", 4, 3, 1, 1)));
}

/* Positions counted from the end of an axis that loses channels which nobody reads. */
static inline void net_picked_from_behind(Graph *g)
{
    Value *a = relu(g, conv(g, image(g, 3, 4), "a", 6, 3, 1, 1));
    Value *b = relu(g, conv(g, pick(g, a, 1, CONST_INTS(g, 0, 0, -5)), "b", 4, 3, 1, 1));
    classify(g, b);
}

/* A token that is learned, repeated for each sample by Tile; sums along the channels. */
static inline void net_tiled_token(Graph *g)
{
    Value *x = tokens(g, 4, 5), *a = product(g, x, "a", 6);
    Value *n = pick(g, unary(g, OP_Shape, x), 0, CONST_INTS(g, 0));
    Value *times = build(g, OP_Concat, IN(n, CONST_INTS(g, 1, 1)), ATTRS(attr_int("axis", 0)));
    Value *token = build(g, OP_Tile, IN(weight(g, "token", 3, D(1, 1, 6)), times), NO_ATTRS);
    Value *all = build(g, OP_Concat, IN(token, a), ATTRS(attr_int("axis", 1)));
    Value *b = build(g, OP_CumSum, IN(product(g, all, "b", 5), CONST_INTS(g, 2)), NO_ATTRS);
    graph_add_output(g, product(g, relu(g, b), "c", 3));
}

#endif
