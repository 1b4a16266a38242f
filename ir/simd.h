/* Vector code without -march: functions marked CLONES are compiled for several instruction
 * sets, and the loader picks by the CPU. */
#ifndef EHAP_IR_SIMD_H
#define EHAP_IR_SIMD_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__)
#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CLONES
#endif

/* Before a loop whose iterations are independent although pointers may be equal (in place). */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#endif
