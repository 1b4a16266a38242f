/* Strided copies, and the counters of repeated runs. */
SCALAR_FN void copy_thread(const CopyArgs *a, int64_t i)
{
    int64_t to = 0, from = 0;
    for (int k = a->loops - 1; k >= 0; k--) {
        const int64_t q = i / a->dim[k], r = i - q * a->dim[k];
        to += r * a->to[k];
        from += r * a->from[k];
        i = q;
    }
    switch (a->size) {
    case 1:
        ((uint8_t *)a->dst)[to] = ((const uint8_t *)a->src)[from];
        break;
    case 2:
        ((uint16_t *)a->dst)[to] = ((const uint16_t *)a->src)[from];
        break;
    case 4:
        ((uint32_t *)a->dst)[to] = ((const uint32_t *)a->src)[from];
        break;
    default:
        ((uint64_t *)a->dst)[to] = ((const uint64_t *)a->src)[from];
    }
}

SCALAR_FN void append_thread(const AppendArgs *a, int64_t i)
{
    a->rows[*a->counter * a->row + a->at + i] = a->x[i];
}

SCALAR_FN void bump_thread(const BumpArgs *a, int64_t i)
{
    (void)i;
    ++*a->counter;
    ++*a->key;
}
