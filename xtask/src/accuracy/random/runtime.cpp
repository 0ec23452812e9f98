// What random programs need beside themselves, of a C++ runtime that is not linked. None of it is
// ever executed.

__asm__(".section .rdata,\"dr\"\n.globl \"??_7type_info@@6B@\"\n\"??_7type_info@@6B@\": .quad 0\n"
        ".text\n");

extern "C" {
int _fltused = 1;

#ifdef __x86_64__
__attribute__((naked)) void __chkstk() { __asm__("ret"); }
#else
__attribute__((naked)) void __chkstk() { __asm__("ret"); }
#endif

unsigned long long __security_cookie = 0x2b992ddfa232;
__declspec(noinline) void __security_check_cookie(unsigned long long cookie) {
    if (cookie != __security_cookie)
        __builtin_trap();
}

// The directory that makes thread-local variables work.
#pragma section(".tls", read, write)
#pragma section(".tls$ZZZ", read, write)
__declspec(allocate(".tls")) char _tls_start = 0;
__declspec(allocate(".tls$ZZZ")) char _tls_end = 0;
unsigned _tls_index = 0;
const void *_tls_callbacks[1] = {nullptr};
extern const struct {
    const void *start, *end, *index, *callbacks;
    unsigned zero_fill, characteristics;
} _tls_used = {&_tls_start, &_tls_end, &_tls_index, _tls_callbacks, 0, 0};

// Variables of functions that are made when they are first reached.
#pragma section(".tls$A", read, write)
__declspec(thread) __declspec(allocate(".tls$A")) int _Init_thread_epoch = 1;
__declspec(noinline) void _Init_thread_header(int *once) { *once = -1; }
__declspec(noinline) void _Init_thread_footer(int *once) { *once = 2; }
__declspec(noinline) void _Init_thread_abort(int *once) { *once = 0; }
__declspec(noinline) int atexit(void (*function)()) { return function == nullptr; }
__declspec(noinline) int _purecall() { return 0; }
__declspec(noinline) void __std_terminate() { __builtin_trap(); }
void *malloc(unsigned long long);
void free(void *);

// What no optimiser sees through.
__declspec(noinline) int opaque(void *place, int number) {
    return *static_cast<volatile int *>(place) = number;
}
}

void *operator new(unsigned long long size) { return malloc(size); }
void operator delete(void *place) noexcept { free(place); }
void operator delete(void *place, unsigned long long) noexcept { free(place); }
