/* A patch for base.c, made by hand: the replacements, and the slots they reach the base through.
 * `table.py` writes the hotpatch table. No code of this project takes part in making it.
 *
 * With -DOLDER it is a patch that carries `duplicate` alone and gives it another meaning.
 */
typedef unsigned char byte;
typedef unsigned int word;
typedef unsigned long long size;

#define REPLACEMENT __attribute__((noinline, used))

/* Slots; each loses its value of zero when the patch is applied. */
#define SLOT __attribute__((section(".rdata$slots"), used)) volatile
int *SLOT const slot_counter = 0;
void *(*SLOT const slot_malloc)(size) = 0;
void *(*SLOT const slot_memcpy)(void *, const void *, size) = 0;
void (*SLOT const slot_free)(void *) = 0;

/* A copy of the base's helper that must never run: it is redirected to the base's. */
__declspec(dllexport) REPLACEMENT int weigh_copy(volatile int x) { return -1000000 - x; }

REPLACEMENT byte *new_duplicate(const byte *from, word count) {
#ifdef OLDER
    byte *copy = slot_malloc((size)count + 2);
    if (copy)
        copy[count] = 'o';
#else
    byte *copy = slot_malloc((size)count + 1);
    if (copy)
        copy[count] = 0;
#endif
    if (copy)
        slot_memcpy(copy, from, count);
    return copy;
}

#ifdef OLDER
/* Redirected by the older patch and not by the newer: must go back to the base's. */
REPLACEMENT int new_get_counter(void) { return 77; }
#else
REPLACEMENT int new_parse_record(const byte *in, word in_size, byte *out, word out_size) {
    if (in_size < 1)
        return -2;
    word length = in[0];
    if (length > in_size - 1 || length > out_size)
        return -1;
    for (word i = 0; i < length; i++)
        ((volatile byte *)out)[i] = in[1 + i];
    ++*slot_counter;
    return (int)length;
}

REPLACEMENT int new_score(int x) { return weigh_copy(x) + 1000; }

REPLACEMENT int new_fill(byte *out, word count, int seed) {
    byte *scratch = slot_malloc(count);
    word sum = (word)seed;
    for (word i = 0; i < count; i++) {
        sum = sum * 1664525 + 1013904223;
        scratch[i] = (byte)(sum >> 24);
    }
    slot_memcpy(out, scratch, count);
    slot_free(scratch);
    return (int)(sum & 0x7fffffff);
}
#endif

#ifdef CALLOUT
/* Told about each phase; with -DCALLOUT=n phase n is refused. */
__declspec(dllexport) int __PatchMainCallout__(const word *phase, word bytes) {
    if (bytes != 12 || phase[0] != 1 || phase[2] != 0)
        return -2;
    return phase[1] == CALLOUT ? -1 : 0;
}
#endif
