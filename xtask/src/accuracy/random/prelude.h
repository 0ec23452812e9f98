// What all sources of a random program share, before what is its own.
#ifdef __cplusplus
#define C extern "C"
#else
#define C extern
#endif

typedef int (*step)(int, int);
typedef int v4 __attribute__((vector_size(16)));
typedef float f4 __attribute__((vector_size(16)));

struct row {
    int key;
    const char *name;
    step run;
    const int *values;
};

struct big {
    int part[4];
};

#ifdef __cplusplus
extern "C" {
#endif
__declspec(dllimport) int remote_step(int, int);
int puts(const char *);
int strcmp(const char *, const char *);
unsigned long long strlen(const char *);
void *memcpy(void *, const void *, unsigned long long);
int opaque(void *, int);
#ifdef __cplusplus
}

class Root {
public:
    int id;
    Root() : id(1) {}
    virtual int first(int a, int b) { return a + b + id; }
    virtual int second(int a, int b) { return a - b; }
    virtual int third(int a, int b) { return a * b; }
    virtual ~Root() {}
};

class Middle : public Root {
public:
    int middle;
    Middle() : middle(2) {}
    int second(int a, int b) override { return a ^ b ^ middle; }
};

class Other {
public:
    long long other;
    Other() : other(3) {}
    virtual int fourth(int a) { return a; }
    virtual ~Other() {}
};

struct Problem {
    int code;
};

struct Worse : Problem {
    explicit Worse(int by) : Problem{by + 1} {}
    Worse(const Worse &from) : Problem{from.code} {}
    ~Worse();
};

struct Cleaner {
    int value;
    __declspec(noinline) explicit Cleaner(int by) : value(by) {}
    __declspec(noinline) ~Cleaner() { opaque(&value, value); }
};
inline __declspec(noinline) Worse::~Worse() { opaque(&code, code); }

template <class F> __declspec(noinline) int apply(const F &f, int x) { return f(x) + 1; }
#endif
