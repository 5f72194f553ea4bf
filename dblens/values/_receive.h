/* Rows of `COPY … TO STDOUT` straight from the libpq that the driver uses, without an object and a lock a row.
 *
 * The functions are looked up at run time in that very library: nothing is linked. Linux only: it was tried nowhere else.
 */
#ifdef __linux__
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <time.h>

typedef struct {
    int (*get)(void *, char **, int);
    int (*consume)(void *);
    void (*release)(void *);
    int (*version)(void);
} Libpq;

#define LIBPQ "dblens.libpq"
enum { PAUSE = 250 }; /* milliseconds without the interpreter: it must get at signals and at a wish to close */

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void free_libpq(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, LIBPQ)); }

/* The functions that a loaded library itself calls under these names; None where that is not certain. */
static PyObject *libpq(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const char *const names[] = {"PQgetCopyData", "PQconsumeInput", "PQfreemem", "PQlibVersion"};
    const char *path;
    int version;
    void *found[4], *home = NULL;
    if (!PyArg_ParseTuple(args, "yi", &path, &version)) return NULL;
    void *handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD); /* kept for good, as the driver itself is */
    if (!handle) Py_RETURN_NONE;
    for (int i = 0; i < 4; i++) {
        Dl_info info;
        found[i] = dlsym(handle, names[i]); /* in the library and what it was linked with, as the loader did */
        void *first = dlsym(RTLD_DEFAULT, names[i]); /* but this would have come before */
        if (!found[i] || (first && first != found[i])) Py_RETURN_NONE;
        if (!dladdr(found[i], &info) || (home && home != info.dli_fbase)) Py_RETURN_NONE;
        home = info.dli_fbase;
    }
    Libpq *pq = malloc(sizeof *pq);
    if (!pq) return PyErr_NoMemory();
    memcpy(&pq->get, &found[0], sizeof(void *));
    memcpy(&pq->consume, &found[1], sizeof(void *));
    memcpy(&pq->release, &found[2], sizeof(void *));
    memcpy(&pq->version, &found[3], sizeof(void *));
    if (pq->version() != version) {
        free(pq);
        Py_RETURN_NONE;
    }
    PyObject *capsule = PyCapsule_New(pq, LIBPQ, free_libpq);
    if (!capsule) free(pq);
    return capsule;
}

static int append(Buf *b, const void *s, Py_ssize_t n)
{
    if (b->room - b->size < n && enlarge(b, n) < 0) return -1;
    memcpy(b->data + b->size, s, (size_t)n);
    b->size += n;
    return 0;
}

enum { ENOUGH, PAUSED, ENDED, NOT_READ, NOT_GOT, NO_ROOM };

/* One row behind the others; a large first one is kept as it came, which spares a copy of it. */
static int add_row(Buf *rows, Buf *ends, char *row, int n, Py_ssize_t least, char **large)
{
    int64_t end = (int64_t)rows->size + n;
    if (append(ends, &end, sizeof end) < 0) return -1;
    if (!rows->size && n >= least) {
        *large = row;
        rows->size = n;
        return 0;
    }
    return append(rows, row, n);
}

static PyObject *receive(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *capsule, *result = NULL;
    unsigned long long address;
    int fd, state = ENOUGH;
    Py_ssize_t least, held_size, ends_size;
    const char *held, *held_ends;
    char *large = NULL;
    Buf rows = {NULL, 0, 0}, ends = {NULL, 0, 0};
    if (!PyArg_ParseTuple(args, "OKiny#y#", &capsule, &address, &fd, &least, &held, &held_size, &held_ends, &ends_size))
        return NULL;
    const Libpq *pq = PyCapsule_GetPointer(capsule, LIBPQ);
    void *conn = (void *)(uintptr_t)address;
    if (!pq) return NULL;
    if (!conn) return PyErr_Format(PyExc_ValueError, "no connection");
    Py_BEGIN_ALLOW_THREADS
    int64_t began = milliseconds();
    if (held_size && (append(&rows, held, held_size) < 0 || append(&ends, held_ends, ends_size) < 0)) state = NO_ROOM;
    while (state == ENOUGH && rows.size < least) {
        char *row = NULL;
        int n = pq->get(conn, &row, 1);
        if (n > 0) {
            if (add_row(&rows, &ends, row, n, least, &large) < 0) state = NO_ROOM;
            if (row != large) pq->release(row);
        } else if (n < 0) {
            state = n == -1 ? ENDED : NOT_GOT;
        } else {
            struct pollfd waits = {fd, POLLIN, 0};
            int ready = poll(&waits, 1, PAUSE);
            if (ready < 0) state = errno == EINTR ? PAUSED : NOT_READ;
            else if (!pq->consume(conn)) state = NOT_READ;
            else if (!ready || milliseconds() - began > PAUSE) state = PAUSED; /* the latter for a row that takes long */
        }
    }
    Py_END_ALLOW_THREADS
    if (state == NO_ROOM) PyErr_NoMemory();
    else result = Py_BuildValue("(iy#y#)", state, large ? large : rows.data ? rows.data : "", rows.size,
                                ends.data ? ends.data : "", ends.size);
    if (large) pq->release(large);
    free(rows.data);
    free(ends.data);
    return result;
}

#define RECEIVE_METHODS \
    {"libpq", libpq, METH_VARARGS, "libpq(path, version) -> capsule, or None where it is not certain"}, \
    {"receive", receive, METH_VARARGS, "receive(libpq, connection, socket, least, rows, ends) -> (state, rows, ends)"},
#else
#define RECEIVE_METHODS
#endif
