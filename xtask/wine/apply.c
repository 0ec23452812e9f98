// Applies a patch as the reference of the format describes it, and calls exported functions.
//
//   apply.exe BASE.dll [PATCH.dll] [-- NAME:NUMBER ...]
//
// Runs below Windows' own interface (Wine's, in tests): its loader maps both images, its unwinder
// takes exceptions through them. Shares nothing with the project's other code. Exported functions
// are called as `int (int)`; what they return is printed, a line a call.
#include <windows.h>
#include <stdlib.h>
#include <string.h>

__declspec(dllimport) int printf(const char *format, ...);
__declspec(dllimport) int __getmainargs(int *count, char ***arguments, char ***environment,
                                        int wildcards, int *start);

enum { IS_FUNCTION = 1, IS_ABSOLUTE = 2, IS_INDIRECT = 5, ENTRY_PAD = 6, SLOTS = 0x1000 };

struct image {
    BYTE *bytes;
    IMAGE_NT_HEADERS64 *headers;
};

static BYTE *stubs;
static unsigned used;

static void fail(const char *what, unsigned value) {
    printf("apply: %s (%#x)\n", what, value);
    ExitProcess(2);
}

static struct image load(const char *path) {
    struct image image = {(BYTE *)LoadLibraryA(path), 0};
    if (!image.bytes)
        fail(path, GetLastError());
    image.headers = (IMAGE_NT_HEADERS64 *)(image.bytes + ((IMAGE_DOS_HEADER *)image.bytes)->e_lfanew);
    return image;
}

static BYTE *place(struct image image, DWORD rva, DWORD size) {
    if (rva > image.headers->OptionalHeader.SizeOfImage - size)
        fail("an rva outside the image", rva);
    return image.bytes + rva;
}

static void write_to(BYTE *at, const void *bytes, unsigned size) {
    DWORD before;
    if (!VirtualProtect(at, size, PAGE_EXECUTE_READWRITE, &before))
        fail("memory that cannot be written", GetLastError());
    for (unsigned index = 0; index < size; index++)
        at[index] = ((const BYTE *)bytes)[index];
    VirtualProtect(at, size, before, &before);
}

// A jump through a pointer, within reach of the image: code in one page, pointers in the next.
static BYTE *stub_to(struct image image, BYTE *target) {
    static const BYTE jump[8] = {0xff, 0x25, 0xfa, 0x0f, 0, 0, 0xcc, 0xcc};
    ULONG_PTR step = 0x10000;
    ULONG_PTR near_by = (ULONG_PTR)image.bytes + image.headers->OptionalHeader.SizeOfImage;
    for (near_by = (near_by + step - 1) & ~(step - 1); !stubs; near_by += step) {
        if (near_by - (ULONG_PTR)image.bytes > 0x70000000)
            fail("no memory near the image", 0);
        stubs = VirtualAlloc((void *)near_by, 2 * SLOTS, MEM_RESERVE | MEM_COMMIT,
                             PAGE_EXECUTE_READWRITE);
    }
    BYTE *stub = stubs + 8 * used++;
    if (used > SLOTS / 8)
        fail("too many functions", used);
    for (unsigned index = 0; index < sizeof jump; index++)
        stub[index] = jump[index];
    *(BYTE **)(stub + SLOTS) = target;
    return stub;
}

static void redirect(struct image image, DWORD rva, BYTE *target, DWORD original) {
    BYTE *entry = place(image, rva, 2);
    if (rva < ENTRY_PAD)
        fail("an entry without room before it", rva);
    if (*(WORD *)entry != (WORD)original)
        fail("other bytes at an entry", rva);
    BYTE *stub = stub_to(image, target);
    BYTE far_jump[5] = {0xe9};
    *(INT32 *)(far_jump + 1) = (INT32)(stub - entry);
    write_to(entry - 5, far_jump, sizeof far_jump);
    WORD short_jump = 0xf9eb;
    write_to(entry, &short_jump, sizeof short_jump);
}

static void record(struct image base, struct image patch, DWORD header, const DWORD *words) {
    BOOL inverse = header >> 31;
    struct image written = inverse ? patch : base, other = inverse ? base : patch;
    BYTE *target = place(other, words[1], 8);
    switch (header >> 16 & 15) {
    case IS_FUNCTION:
        redirect(written, words[0], target, words[2]);
        return;
    case IS_ABSOLUTE:
        write_to(place(written, words[0], 8), &target, 8);
        return;
    case IS_INDIRECT:
        write_to(place(written, words[0], 8), target, 8);
        return;
    default:
        fail("a chunk of unknown type", header);
    }
}

static unsigned chunks(struct image base, struct image patch, BYTE *info, BOOL inverse) {
    DWORD list = *(DWORD *)(info + *(DWORD *)(info + 0x0c));
    DWORD extra = *(DWORD *)(info + 0x18), count = 0;
    DWORD *words = (DWORD *)(info + *(DWORD *)(info + list + 0x18));
    for (DWORD header; (header = *words++); )
        for (unsigned index = 0; index < (header & 0xfff); index++, words += 2 + extra)
            if ((header >> 31) == (DWORD)inverse) {
                record(base, patch, header, words);
                count++;
            }
    return count;
}

static void apply(struct image base, struct image patch) {
    DWORD config = patch.headers->OptionalHeader.DataDirectory[10].VirtualAddress;
    DWORD table = *(DWORD *)place(patch, config + 0xf0, 4);
    BYTE *info = place(patch, table, 0x20);
    place(patch, table, *(DWORD *)(info + 4));
    if (!table || *(DWORD *)info != 3 || *(DWORD *)(info + 0x10) != 1 || *(DWORD *)(info + 0x18) != 1)
        fail("no table of version 3 for one base", table);
    BYTE *about = info + *(DWORD *)(info + *(DWORD *)(info + 0x0c));
    if (*(DWORD *)(about + 8) != base.headers->FileHeader.TimeDateStamp ||
        *(DWORD *)(about + 12) != base.headers->OptionalHeader.CheckSum)
        fail("another base", *(DWORD *)(about + 12));
    unsigned inverse = chunks(base, patch, info, TRUE);
    unsigned forward = chunks(base, patch, info, FALSE);
    if (!forward)
        fail("nothing is redirected", inverse);
    printf("applied\n");
}

int start(void) {
    char **arguments, **environment;
    int count, at = 1, info = 0;
    __getmainargs(&count, &arguments, &environment, 0, &info);
    if (count < 2)
        fail("usage: apply BASE.dll [PATCH.dll] [-- NAME:NUMBER ...]", count);
    struct image base = load(arguments[at++]);
    if (at < count && strcmp(arguments[at], "--") != 0)
        apply(base, load(arguments[at++]));
    for (at++; at < count; at++) {
        char *colon = strchr(arguments[at], ':');
        if (!colon)
            fail(arguments[at], at);
        *colon = 0;
        FARPROC function = GetProcAddress((HMODULE)base.bytes, arguments[at]);
        if (!function)
            fail(arguments[at], GetLastError());
        int value = atoi(colon + 1);
        printf("%s(%d) = %d\n", arguments[at], value, ((int (*)(int))function)(value));
    }
    ExitProcess(0);
}
