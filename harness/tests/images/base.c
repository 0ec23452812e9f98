/* The base of the harness's own test pair: a DLL without a C runtime of its own.
 *
 * With -DFIXED it is the fixed image. `build.sh` compiles both, for x64 and Arm64.
 */
#define EXPORT __declspec(dllexport) __attribute__((noinline))
#define IMPORT __declspec(dllimport)

typedef unsigned char byte;
typedef unsigned int word;
typedef unsigned long long size;

IMPORT void *malloc(size);
IMPORT void free(void *);
IMPORT void *memcpy(void *, const void *, size);
IMPORT void *HeapAlloc(void *, word, size);
IMPORT void *GetProcessHeap(void);
IMPORT void abort(void);
IMPORT int not_there(int);

int _fltused;

/* Writable state that patched code must share with the base. */
__declspec(dllexport) int counter = 40;
/* A table with pointers, which move with the image. */
static const char *const words[] = {"zero", "one", "two"};
__declspec(thread) int per_thread = 7;

/* Copies a length-prefixed record. The base trusts the length; the fixed build does not. */
EXPORT int parse_record(const byte *in, word in_size, byte *out, word out_size) {
    if (in_size < 1)
        return -2;
    word length = in[0];
#ifdef FIXED
    if (length > in_size - 1 || length > out_size)
        return -1;
#else
    (void)out_size;
#endif
    for (word i = 0; i < length; i++)
        ((volatile byte *)out)[i] = in[1 + i];
    counter++;
    return (int)length;
}

/* The helper stays in the base; the patch reaches it by a reverse FUNCTION record. */
EXPORT int weigh(int x) { return 3 * x + counter; }

EXPORT int score(int x) {
#ifdef FIXED
    return weigh(x) + 1000;
#else
    return weigh(x) - 1;
#endif
}

/* Allocates, so that the patch needs the base's import. */
EXPORT byte *duplicate(const byte *from, word count) {
#ifdef FIXED
    byte *copy = malloc((size)count + 1);
    if (copy)
        copy[count] = 0;
#else
    byte *copy = malloc(count);
#endif
    if (copy)
        memcpy(copy, from, count);
    return copy;
}

EXPORT byte *heap_block(word count) { return HeapAlloc(GetProcessHeap(), 8, count); }
EXPORT int first_of(const byte *block) { return block[0]; }
EXPORT void touch(byte *block, int at) { ((volatile byte *)block)[at] = 1; }
EXPORT void release(void *block) { free(block); }
EXPORT const char *word_at(int index) { return words[index % 3]; }
EXPORT int next_per_thread(void) { return ++per_thread; }
EXPORT int get_counter(void) { return counter; }
EXPORT int call_missing(int x) { return not_there(x) + 1; }
EXPORT void call_abort(void) { abort(); }
EXPORT int divide(volatile int a, volatile int b) { return a / b; }
EXPORT void trap(void) { __builtin_trap(); }
EXPORT double half_of(double x) { return x / 2; }
EXPORT long long sum6(long long a, long long b, long long c, long long d, long long e, long long f) {
    return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f;
}

EXPORT int deepen(volatile int n) {
    volatile char frame[256];
    frame[n & 255] = (char)n;
    return n == 0 ? frame[0] : deepen(n - 1) + frame[n & 255];
}

/* Larger than a page: the compiler has the stack probed. */
EXPORT int large_frame(int n) {
    volatile char frame[3 * 4096];
    for (int i = 0; i < 3 * 4096; i += 512)
        frame[i] = (char)n;
    return frame[512 * (n & 15)];
}

EXPORT void spin(void) {
    for (volatile int i = 0;; i++)
        ;
}

EXPORT int fill(byte *out, word count, int seed) {
    byte *scratch = malloc(count);
    word sum = (word)seed;
    for (word i = 0; i < count; i++) {
        sum = sum * 1664525 + 1013904223;
#ifdef FIXED
        scratch[i] = (byte)(sum >> 24);
#else
        scratch[i] = (byte)(sum >> 16);
#endif
    }
    memcpy(out, scratch, count);
    free(scratch);
    return (int)(sum & 0x7fffffff);
}

#ifdef __x86_64__
/* The compiler asks for this where a frame is larger than a page. */
__attribute__((naked)) void __chkstk(void) {
    __asm__("pushq %rcx\n\t"
            "pushq %rax\n\t"
            "leaq 24(%rsp), %rcx\n"
            "1:\tcmpq $0x1000, %rax\n\t"
            "jb 2f\n\t"
            "subq $0x1000, %rcx\n\t"
            "testb %cl, (%rcx)\n\t"
            "subq $0x1000, %rax\n\t"
            "jmp 1b\n"
            "2:\tsubq %rax, %rcx\n\t"
            "testb %cl, (%rcx)\n\t"
            "popq %rax\n\t"
            "popq %rcx\n\t"
            "ret");
}
#else
__attribute__((naked)) void __chkstk(void) { __asm__("ret"); }
#endif

/* Thread-local storage, as a C runtime would set it up. */
int _tls_index;
__attribute__((section(".tls"))) char _tls_start;
__attribute__((section(".tls$ZZZ"))) char _tls_end;
__attribute__((section(".CRT$XLA"))) void *__xl_a;
__attribute__((section(".CRT$XLZ"))) void *__xl_z;
static int attached;
static void on_attach(void *image, word reason, void *reserved) {
    (void)image, (void)reserved;
    attached += (int)reason;
}
__attribute__((section(".CRT$XLB"), used)) void *__xl_b = (void *)on_attach;

__attribute__((used)) const struct {
    void *start, *end, *index, *callbacks;
    word zero_fill, characteristics;
} _tls_used = {&_tls_start, &_tls_end, &_tls_index, &__xl_a + 1, 0, 0};

EXPORT int times_attached(void) { return attached; }

int dll_main(void *image, word reason, void *reserved) {
    (void)image, (void)reserved;
    attached += 10 * (int)reason;
    return 1;
}
