/* Rademacher signs, one thread each: the ten rounds of Philox cost less than uneven stores would. */
SCALAR_FN void sign_thread(const SignArgs *a, int64_t i)
{
    uint32_t words[4];
    rademacher_block((uint64_t)a->key[0], (uint64_t)a->key[1], a->stream, (uint32_t)(i / 128),
                     words);
    gpu_store(a->y, a->dtype, i, rademacher_sign(words, (unsigned)(i % 128)));
}
