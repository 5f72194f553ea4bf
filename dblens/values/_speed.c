/* Rows to bulk-load text, and rows to canonical texts, lines and digests: the loops that cost microseconds a row in Python.
 *
 * Optional. `speed.py` holds the same functions in Python, is the definition of what they do, and its function for a single value
 * is called for every value that is not of the plain kind handled here (huge integers, Decimal objects, odd timestamps, JSON
 * beyond the usual): so the rare cases cannot differ, and errors are worded once. Only the stable ABI of CPython 3.11 is used; the
 * GIL stays held, because a batch takes about a millisecond and handing the lock over would cost more; but `receive` waits for a
 * server and hashing packed lines needs nothing of Python, so both give it up.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------------ buffer */
typedef struct {
    char *data;
    Py_ssize_t size, room;
} Buf;

/* Needs no GIL and sets no exception. */
static int enlarge(Buf *b, Py_ssize_t more)
{
    if (more > PY_SSIZE_T_MAX / 4 - b->size) return -1;
    Py_ssize_t room = (b->size + more) * 2 + 4096;
    char *data = realloc(b->data, (size_t)room);
    if (!data) return -1;
    b->data = data;
    b->room = room;
    return 0;
}

static int grow(Buf *b, Py_ssize_t more)
{
    if (enlarge(b, more) == 0) return 0;
    PyErr_NoMemory();
    return -1;
}
#define NEED(b, n) do { if ((b)->room - (b)->size < (n) && grow((b), (n)) < 0) return -1; } while (0)

static inline int put(Buf *b, const char *s, Py_ssize_t n)
{
    NEED(b, n);
    memcpy(b->data + b->size, s, (size_t)n);
    b->size += n;
    return 0;
}

static inline int put1(Buf *b, char c) { return put(b, &c, 1); }

/* Each put_* below answers 0 for done, -1 for an exception set, 1 for "not plain: ask Python". */
enum { DONE = 0, FAILED = -1, ASK = 1 };

/* ----------------------------------------------------------------------------------------------------- numbers and hex */
static int put_digits(Buf *b, unsigned long long u, int negative)
{
    char t[24], *p = t + sizeof t;
    do { *--p = (char)('0' + u % 10); u /= 10; } while (u);
    if (negative) *--p = '-';
    return put(b, p, t + sizeof t - p);
}

static int put_int(Buf *b, PyObject *v)
{
    int over = 0;
    long long n = PyLong_AsLongLongAndOverflow(v, &over);
    if (over) return ASK;
    if (n == -1 && PyErr_Occurred()) return FAILED;
    return put_digits(b, n < 0 ? 0ULL - (unsigned long long)n : (unsigned long long)n, n < 0);
}

static int put_flag(Buf *b, PyObject *v)
{
    int over = 0;
    if (!PyLong_Check(v)) return ASK;
    long long n = PyLong_AsLongLongAndOverflow(v, &over);
    return over || (n & ~1LL) ? ASK : put1(b, (char)('0' + n));
}

static inline int digit(char c) { return c >= '0' && c <= '9'; }

/* Any decimal spelling to plain digits: no exponent, no useless zeros, never -0. */
static int put_plain(Buf *b, const char *s, Py_ssize_t n)
{
    const char *p = s, *end = s + n, *whole, *fraction = NULL;
    int negative = 0;
    Py_ssize_t nw, nf = 0, power = 0;
    if (p < end && (*p == '-' || *p == '+')) negative = *p++ == '-';
    for (whole = p; p < end && digit(*p); p++) ;
    nw = p - whole;
    if (p < end && *p == '.') {
        for (fraction = ++p; p < end && digit(*p); p++) ;
        nf = p - fraction;
    }
    if (nw + nf == 0) return ASK;
    if (p < end && (*p == 'e' || *p == 'E')) {
        int minus = 0;
        if (++p < end && (*p == '-' || *p == '+')) minus = *p++ == '-';
        if (p == end) return ASK;
        for (; p < end && digit(*p); p++)
            if ((power = power * 10 + (*p - '0')) > 999) return ASK;
        if (minus) power = -power;
    }
    if (p != end) return ASK;
    Py_ssize_t point = nw + power, first = 0, last = nw + nf - 1, k;
#define DIGIT(k) ((k) < 0 || (k) >= nw + nf ? '0' : (k) < nw ? whole[k] : fraction[(k) - nw])
    while (first <= last && DIGIT(first) == '0') first++;
    if (first > last) return put1(b, '0');
    while (DIGIT(last) == '0') last--;
    NEED(b, nw + nf + (power < 0 ? -power : power) + 4);
    char *o = b->data + b->size;
    if (negative) *o++ = '-';
    if (first >= point) *o++ = '0';
    for (k = first; k < point; k++) *o++ = DIGIT(k);
    if (last >= point) {
        *o++ = '.';
        for (k = point; k <= last; k++) *o++ = DIGIT(k);
    }
#undef DIGIT
    b->size = o - b->data;
    return DONE;
}

/* Decimals of up to 15 digits map one to one to doubles, so n / 10^k == x proves that n, k are x's shortest digits. */
static int put_short(Buf *b, double x, int dot_zero)
{
    static const double tens[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    double y = x < 0 ? -x : x;
    if (!(y < 1e15) || y < 1e-4) return ASK; /* repr writes smaller ones, and 0 of either sign, its own way */
    for (int k = 0; k <= 6; k++) {
        double scaled = y * tens[k] + 0.5;
        if (scaled >= 1e15) return ASK;
        unsigned long long n = (unsigned long long)scaled;
        if ((double)n / tens[k] != y) continue;
        unsigned long long unit = (unsigned long long)tens[k];
        if (put_digits(b, n / unit, x < 0) < 0) return FAILED;
        if (k == 0) return dot_zero ? put(b, ".0", 2) : DONE;
        NEED(b, 8);
        b->data[b->size] = '.';
        n %= unit;
        for (int i = k; i > 0; i--, n /= 10) b->data[b->size + i] = (char)('0' + n % 10);
        b->size += k + 1;
        return DONE;
    }
    return ASK;
}

static int put_repr(Buf *b, double x, int canonical)
{
    if (x - x != 0) return ASK; /* NaN and infinities */
    int done = put_short(b, x, !canonical);
    if (done != ASK) return done;
    if (canonical && x == 0) return 1 / x < 0 ? put(b, "-0", 2) : put1(b, '0');
    char *text = PyOS_double_to_string(x, 'r', 0, canonical ? 0 : Py_DTSF_ADD_DOT_0, NULL);
    if (!text) return FAILED;
    done = canonical ? put_plain(b, text, (Py_ssize_t)strlen(text)) : put(b, text, (Py_ssize_t)strlen(text));
    PyMem_Free(text);
    return done;
}

static int put_hex(Buf *b, const char *s, Py_ssize_t n)
{
    static const char hex[] = "0123456789abcdef";
    NEED(b, 2 * n);
    char *o = b->data + b->size;
    for (Py_ssize_t i = 0; i < n; i++) {
        *o++ = hex[(unsigned char)s[i] >> 4];
        *o++ = hex[s[i] & 15];
    }
    b->size += 2 * n;
    return DONE;
}

/* ---------------------------------------------------------------------------------------------------- bulk-load text */
static const char ESCAPE[256] = {['\\'] = '\\', ['\t'] = 't', ['\n'] = 'n', ['\r'] = 'r', [0] = '0'};

static int put_escaped(Buf *b, const char *s, Py_ssize_t n, int mysql)
{
    NEED(b, 2 * n);
    char *o = b->data + b->size;
    for (Py_ssize_t i = 0; i < n; i++) {
        char c = ESCAPE[(unsigned char)s[i]];
        if (!c) { *o++ = s[i]; continue; }
        if (c == '0' && !mysql) return ASK;
        *o++ = '\\';
        *o++ = c;
    }
    b->size = o - b->data;
    return DONE;
}

/* `YYYY-MM-DD[ T]HH:MM:SS[.f]`, by its shape only. */
static int is_moment(const char *s, Py_ssize_t n)
{
    static const char shape[] = "0000-00-00 00:00:00";
    if (n < 19 || n == 20) return 0;
    for (int i = 0; i < 19; i++)
        if (shape[i] == '0' ? !digit(s[i]) : s[i] != shape[i] && (i != 10 || s[i] != 'T')) return 0;
    for (Py_ssize_t i = 19; i < n; i++) if (i == 19 ? s[i] != '.' : !digit(s[i])) return 0;
    return 1;
}

static int load_moment(Buf *b, const char *s, Py_ssize_t n, int zone)
{
    if (zone && n && s[n - 1] == 'Z') n--;
    if (!is_moment(s, n)) return ASK;
    if (put(b, s, n) < 0) return FAILED;
    b->data[b->size - n + 10] = ' ';
    return DONE;
}

/* Octets of a str (UTF-8) or bytes object: 0 found, -1 exception (lone surrogate), 1 neither. */
static int view(PyObject *v, const char **s, Py_ssize_t *n)
{
    if (PyUnicode_Check(v)) return (*s = PyUnicode_AsUTF8AndSize(v, n)) ? DONE : FAILED;
    if (PyBytes_Check(v)) return PyBytes_AsStringAndSize(v, (char **)s, n);
    return ASK;
}

/* A capital kind is the small one that takes no octets. */
static int no_octets(char *kind)
{
    if (*kind < 'A' || *kind > 'Z') return 0;
    *kind = (char)(*kind + 32);
    return 1;
}

static int encode_value(Buf *b, char kind, PyObject *v, int mysql)
{
    const char *s;
    Py_ssize_t n;
    int found;
    if (no_octets(&kind) && PyBytes_Check(v)) return ASK;
    switch (kind) {
    case 'i': return PyLong_Check(v) ? put_int(b, v) : ASK;
    case 'f': return PyFloat_Check(v) ? put_repr(b, PyFloat_AsDouble(v), 0) : ASK;
    case 'v': return put_flag(b, v);
    case 's': if (!PyUnicode_Check(v)) return ASK; break;
    case 'r': if (!PyBytes_Check(v)) return ASK; break;
    case 't': return (found = view(v, &s, &n)) ? found : put(b, s, n);
    case 'b':
        if (!PyBytes_Check(v)) return ASK;
        if (PyBytes_AsStringAndSize(v, (char **)&s, &n) < 0 || (!mysql && put(b, "\\\\x", 3) < 0)) return FAILED;
        return put_hex(b, s, n);
    case 'n':
        if (PyLong_Check(v)) return put_int(b, v);
        if (PyFloat_Check(v)) return put_repr(b, PyFloat_AsDouble(v), 0);
        break;
    case 'w':
    case 'z': return (found = view(v, &s, &n)) ? found : load_moment(b, s, n, kind == 'z');
    default: return ASK;
    }
    return (found = view(v, &s, &n)) ? found : put_escaped(b, s, n, mysql);
}

/* -------------------------------------------------------------------------------------------------------------- JSON */
typedef struct { Py_ssize_t at, size, key; } Member; /* "key":value in the buffer, and the length of the key's text */
typedef struct { const char *p, *end; Buf *out; Member *members; Py_ssize_t used, room; } Json;

static const char *sort_base; /* qsort passes no context; the GIL is held */

static int key_order(const Member *x, const Member *y)
{
    Py_ssize_t n = x->key < y->key ? x->key : y->key;
    int order = memcmp(sort_base + x->at + 1, sort_base + y->at + 1, (size_t)n);
    return order ? order : (x->key > y->key) - (x->key < y->key);
}

static int by_key(const void *x, const void *y)
{
    const Member *a = x, *b = y;
    int order = key_order(a, b);
    return order ? order : (a->at > b->at) - (a->at < b->at);
}

static inline void space(Json *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r')) j->p++;
}

static long hex4(const char *p, const char *end)
{
    static const char hex[] = "0123456789abcdef0123456789ABCDEF";
    long u = 0;
    for (const char *last = p + 4; p < last; p++) {
        const char *at = p < end && *p ? strchr(hex, *p) : NULL;
        if (!at) return -1;
        u = u * 16 + ((at - hex) & 15);
    }
    return u;
}

static int json_string(Json *j)
{
    Buf *b = j->out;
    const char *p = j->p + 1, *end = j->end, *run;
    if (put1(b, '"') < 0) return FAILED;
    for (;;) {
        for (run = p; p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20; p++) ;
        if (put(b, run, p - run) < 0) return FAILED;
        if (p == end || (unsigned char)*p < 0x20) return ASK;
        if (*p == '"') break;
        if (++p == end) return ASK;
        char c = *p++;
        if (c && strchr("\"\\/bfnrt", c)) {
            if ((c != '/' && put1(b, '\\') < 0) || put1(b, c) < 0) return FAILED;
        } else if (c == 'u') {
            long u = hex4(p, end);
            if (u < 0) return ASK;
            p += 4;
            if (u >= 0xD800 && u < 0xE000) { /* a pair, or else Python's word on it */
                long low = u < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2, end) : -1;
                if (low < 0xDC00 || low > 0xDFFF) return ASK;
                u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
                p += 6;
            }
            char t[8] = "\\u00";
            int n = 0;
            if (u < 0x20) {
                t[4] = (char)('0' + (u >> 4));
                t[5] = "0123456789abcdef"[u & 15];
                n = 6;
                if (u >= 8 && u < 14 && u != 11) { t[1] = "btn-fr"[u - 8]; n = 2; }
            } else if (u < 0x80) {
                if (u == '"' || u == '\\') n = 1; /* behind the backslash that lies there */
                t[n++] = (char)u;
            }
            else {
                int k = u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
                t[n++] = (char)("\0\xC0\xE0\xF0"[k] | u >> 6 * k);
                while (k--) t[n++] = (char)(0x80 | (u >> 6 * k & 63));
            }
            if (put(b, t, n) < 0) return FAILED;
        } else return ASK;
    }
    j->p = p + 1;
    return put1(b, '"');
}

static int json_number(Json *j)
{
    const char *start = j->p, *p = j->p;
    if (*p == '-') p++;
    if (p < j->end && *p == '0') p++;
    else { if (p == j->end || !digit(*p)) return ASK; while (p < j->end && digit(*p)) p++; }
    if (p < j->end && *p == '.') {
        if (++p == j->end || !digit(*p)) return ASK;
        while (p < j->end && digit(*p)) p++;
    }
    if (p < j->end && (*p == 'e' || *p == 'E'))
        for (p++; p < j->end && (digit(*p) || *p == '-' || *p == '+'); p++) ;
    j->p = p;
    return p - start > 1000 ? ASK : put_plain(j->out, start, p - start); /* very long ones have a rule of their own */
}

static int json_value(Json *j, int depth);

static int json_object(Json *j, int depth)
{
    Buf *b = j->out;
    Py_ssize_t base = j->used, start, i, n;
    int sorted = 1, done;
    if (put1(b, '{') < 0) return FAILED;
    start = b->size;
    j->p++;
    for (space(j); j->p < j->end && *j->p != '}'; space(j)) {
        if (j->used > base) {
            if (*j->p++ != ',') return ASK;
            space(j);
        }
        if (j->p == j->end || *j->p != '"') return ASK;
        Member m = {b->size, 0, 0};
        if ((done = json_string(j))) return done;
        m.key = b->size - m.at - 2;
        /* An escape sorts where the character does not stand: Python sorts such keys. */
        if (memchr(b->data + m.at, '\\', (size_t)m.key + 1)) return ASK;
        space(j);
        if (j->p == j->end || *j->p++ != ':') return ASK;
        if (put1(b, ':') < 0) return FAILED;
        if ((done = json_value(j, depth + 1))) return done;
        m.size = b->size - m.at;
        if (j->used == j->room) {
            Py_ssize_t room = j->room * 2 + 32;
            Member *members = realloc(j->members, (size_t)room * sizeof(Member));
            if (!members) { PyErr_NoMemory(); return FAILED; }
            j->members = members;
            j->room = room;
        }
        sort_base = b->data;
        if (j->used > base && key_order(&j->members[j->used - 1], &m) >= 0) sorted = 0;
        j->members[j->used++] = m;
        if (put1(b, ',') < 0) return FAILED;
    }
    if (j->p == j->end) return ASK;
    j->p++;
    if ((n = j->used - base)) b->size--; /* the last comma */
    j->used = base;
    if (sorted) return put1(b, '}');
    Member *m = j->members + base;
    Py_ssize_t total = b->size - start;
    char *copy = malloc((size_t)total + 1), *o;
    if (!copy) { PyErr_NoMemory(); return FAILED; }
    sort_base = b->data;
    qsort(m, (size_t)n, sizeof(Member), by_key);
    for (i = 0, o = copy; i < n; i++) {
        if (i + 1 < n && key_order(&m[i], &m[i + 1]) == 0) continue; /* the last duplicate wins */
        if (o > copy) *o++ = ',';
        memcpy(o, b->data + m[i].at, (size_t)m[i].size);
        o += m[i].size;
    }
    memcpy(b->data + start, copy, (size_t)(o - copy));
    b->size = start + (o - copy);
    free(copy);
    return put1(b, '}');
}

static int json_array(Json *j, int depth)
{
    int done, first = 1;
    if (put1(j->out, '[') < 0) return FAILED;
    j->p++;
    for (space(j); j->p < j->end && *j->p != ']'; space(j), first = 0) {
        if (!first && (*j->p++ != ',' || put1(j->out, ',') < 0)) return PyErr_Occurred() ? FAILED : ASK;
        if ((done = json_value(j, depth + 1))) return done;
    }
    if (j->p == j->end) return ASK;
    j->p++;
    return put1(j->out, ']');
}

static int json_value(Json *j, int depth)
{
    space(j);
    if (j->p == j->end || depth > 64) return ASK;
    if (*j->p == '"') return json_string(j);
    if (*j->p == '{') return json_object(j, depth);
    if (*j->p == '[') return json_array(j, depth);
    if (*j->p == '-' || digit(*j->p)) return json_number(j);
    const char *word = *j->p == 't' ? "true" : *j->p == 'f' ? "false" : "null";
    Py_ssize_t n = (Py_ssize_t)strlen(word);
    if (j->end - j->p < n || memcmp(j->p, word, (size_t)n)) return ASK;
    j->p += n;
    return put(j->out, word, n);
}

/* Canonical JSON of a text; octets are decoded first to have them checked, lone surrogates are Python's affair. */
static int put_json(Buf *b, PyObject *v)
{
    const char *s;
    Py_ssize_t n;
    PyObject *owner = NULL;
    int done = view(v, &s, &n);
    if (done == DONE && !PyUnicode_Check(v)) {
        if (!(owner = PyUnicode_FromStringAndSize(s, n))) return FAILED;
        done = view(owner, &s, &n);
    } else if (done == FAILED && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        return ASK;
    }
    if (done == DONE) {
        Json j = {s, s + n, b, NULL, 0, 0};
        done = json_value(&j, 0);
        space(&j);
        if (done == DONE && j.p != j.end) done = ASK;
        free(j.members);
    }
    Py_XDECREF(owner);
    return done;
}

/* --------------------------------------------------------------------------------------------------- canonical texts */
/* HH:MM:SS[.f] up to `end`, hours up to `last`, without the fraction's useless zeros. */
static int clock_text(Buf *b, const char *p, const char *end, int last)
{
    if (end - p < 8 || p[2] != ':' || p[5] != ':') return ASK;
    for (int i = 0; i < 8; i++) if (i != 2 && i != 5 && !digit(p[i])) return ASK;
    if ((p[0] - '0') * 10 + p[1] - '0' > last || p[3] > '5' || p[6] > '5') return ASK;
    if (end - p > 8) {
        if (p[8] != '.' || end - p == 9) return ASK;
        for (const char *q = p + 9; q < end; q++) if (!digit(*q)) return ASK;
        while (end[-1] == '0') end--;
        if (end[-1] == '.') end--;
    }
    return put(b, p, end - p);
}

static int is_date(const char *s)
{
    if (s[4] != '-' || s[7] != '-') return 0;
    for (int i = 0; i < 10; i++) if (i != 4 && i != 7 && !digit(s[i])) return 0;
    return (s[5] - '0') * 10 + s[6] - '0' <= 12 && (s[8] - '0') * 10 + s[9] - '0' <= 31;
}

static int put_date(Buf *b, const char *s, Py_ssize_t n)
{
    return n == 10 && is_date(s) ? put(b, s, n) : ASK;
}

static int put_uuid(Buf *b, const char *s, Py_ssize_t n)
{
    if (n != 36) return ASK;
    for (int i = 0; i < 36; i++) {
        int dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? s[i] != '-' : !digit(s[i]) && (s[i] < 'a' || s[i] > 'f')) return ASK;
    }
    return put(b, s, n);
}

static int put_timestamp(Buf *b, const char *s, Py_ssize_t n)
{
    if (n < 19 || (s[10] != ' ' && s[10] != 'T') || !is_date(s)) return ASK;
    if (put(b, s, 10) < 0 || put1(b, ' ') < 0) return FAILED;
    return clock_text(b, s + 11, s + n - (s[n - 1] == 'Z'), 23);
}

static int put_double(Buf *b, const char *s, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++) if (!digit(s[i]) && !memchr("+-.eE", s[i], 5)) return ASK;
    double x = PyOS_string_to_double(s, NULL, NULL); /* an empty text is an error, too much is infinite */
    if (x == -1.0 && PyErr_Occurred()) return FAILED;
    return x == 0 ? ASK : put_repr(b, x, 1);
}

static int canonical_value(Buf *b, char kind, PyObject *v)
{
    const char *s = NULL;
    Py_ssize_t n = 0;
    int found;
    if (no_octets(&kind) && PyBytes_Check(v)) return ASK;
    switch (kind) {
    case 'i': return PyLong_Check(v) ? put_int(b, v) : ASK;
    case 'v': return put_flag(b, v);
    case 's': if (!PyUnicode_Check(v)) return ASK; break;
    case 'r': if (!PyBytes_Check(v)) return ASK; break;
    case 't': break;
    case 'f':
    case 'd':
        if (PyFloat_Check(v)) {
            double x = PyFloat_AsDouble(v);
            return x == 0 && kind == 'd' ? put1(b, '0') : put_repr(b, x, 1);
        }
        if (kind == 'd' && PyLong_Check(v)) return put_int(b, v);
        if ((found = view(v, &s, &n))) return found;
        return kind == 'd' ? put_plain(b, s, n) : put_double(b, s, n);
    case 'b':
        if (!PyBytes_Check(v)) return ASK;
        return PyBytes_AsStringAndSize(v, (char **)&s, &n) < 0 ? FAILED : put_hex(b, s, n);
    case 'w':
    case 'z':
        if ((found = view(v, &s, &n))) return found;
        return kind == 'w' && n && s[n - 1] == 'Z' ? ASK : put_timestamp(b, s, n);
    case 'a': return (found = view(v, &s, &n)) ? found : put_date(b, s, n);
    case 'u': return (found = view(v, &s, &n)) ? found : put_uuid(b, s, n);
    case 'k': return (found = view(v, &s, &n)) ? found : clock_text(b, s, s + n, 99);
    case 'j': return put_json(b, v);
    case 'y': {
        char tag[2] = {PyLong_Check(v) ? 'i' : PyFloat_Check(v) ? 'r' : PyUnicode_Check(v) ? 't' : PyBytes_Check(v) ? 'b' : 0, ':'};
        if (!tag[0]) return ASK;
        return put(b, tag, 2) < 0 ? FAILED : canonical_value(b, tag[0] == 'r' ? 'f' : tag[0] == 't' ? 's' : tag[0], v);
    }
    default: return ASK;
    }
    return (found = view(v, &s, &n)) ? found : put(b, s, n);
}

/* --------------------------------------------------------------------------------------- PostgreSQL's binary COPY */
static int64_t big_endian(const char *s, Py_ssize_t n)
{
    uint64_t u = (signed char)s[0] < 0 ? ~0ULL : 0;
    for (Py_ssize_t i = 0; i < n; i++) u = u << 8 | (unsigned char)s[i];
    return (int64_t)u;
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static char *two(char *o, int64_t n)
{
    *o++ = (char)('0' + n / 10);
    *o++ = (char)('0' + n % 10);
    return o;
}

/* The date of a day since 2000-01-01, and a clock when micros >= 0: see binary.py. */
static int put_moment(Buf *b, int64_t days, int64_t micros)
{
    char text[64], *o = text, *at;
    int64_t z = days + 730425, cycle = floor_div(z, 146097), day = z - cycle * 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365, digits, k;
    day -= 365 * year + year / 4 - year / 100;
    int64_t month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    year += 400 * cycle + (month > 9);
    int before = year < 1;
    if (before) year = 1 - year;
    for (digits = 4, k = 10000; year >= k; k *= 10) digits++;
    for (at = o + digits, k = year; at > o; k /= 10) *--at = (char)('0' + k % 10);
    o += digits;
    *o++ = '-';
    o = two(o, month < 10 ? month + 3 : month - 9);
    *o++ = '-';
    o = two(o, day + 1);
    if (micros >= 0) {
        int64_t seconds = micros / 1000000;
        *o++ = ' ';
        o = two(o, seconds / 3600);
        *o++ = ':';
        o = two(o, seconds / 60 % 60);
        *o++ = ':';
        o = two(o, seconds % 60);
        if ((micros %= 1000000)) {
            *o++ = '.';
            for (int i = 5; i >= 0; i--, micros /= 10) o[i] = (char)('0' + micros % 10);
            for (o += 6; o[-1] == '0'; o--) ;
        }
    }
    if (before) { memcpy(o, " BC", 3); o += 3; }
    return put(b, text, o - text);
}

static int put_infinity(Buf *b, int64_t n) { return n > 0 ? put(b, "infinity", 8) : put(b, "-infinity", 9); }

static int put_copied(Buf *b, char kind, const char *s, Py_ssize_t n)
{
    int64_t i;
    switch (kind) {
    case 'r': return put(b, s, n);
    case 'b': return put_hex(b, s, n);
    case 'v': return n == 1 && !(s[0] & ~1) ? put1(b, (char)('0' + s[0])) : ASK;
    case 'i':
        if (n != 2 && n != 4 && n != 8) return ASK;
        i = big_endian(s, n);
        return put_digits(b, i < 0 ? 0ULL - (unsigned long long)i : (unsigned long long)i, i < 0);
    case 'f': {
        if (n != 8) return ASK;
        uint64_t u = (uint64_t)big_endian(s, 8);
        double x;
        memcpy(&x, &u, 8);
        return put_repr(b, x, 1);
    }
    case 'a':
        if (n != 4) return ASK;
        i = big_endian(s, 4);
        return i == INT32_MAX || i == INT32_MIN ? put_infinity(b, i) : put_moment(b, i, -1);
    case 'w':
        if (n != 8) return ASK;
        i = big_endian(s, 8);
        if (i == INT64_MAX || i == INT64_MIN) return put_infinity(b, i);
        return put_moment(b, floor_div(i, 86400000000LL), i - floor_div(i, 86400000000LL) * 86400000000LL);
    case 'j': {
        PyObject *raw = PyBytes_FromStringAndSize(s, n);
        int done = raw ? put_json(b, raw) : FAILED;
        Py_XDECREF(raw);
        return done;
    }
    }
    return ASK;
}

/* ---------------------------------------------------------------------------------------------------------- SHA-256 */
static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void blocks_portable(uint32_t *h, const unsigned char *p, size_t count)
{
    for (; count; count--, p += 64) {
        uint32_t w[64], s[8];
        int i;
        for (i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        for (; i < 64; i++) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
        }
        memcpy(s, h, sizeof s);
        for (i = 0; i < 64; i++) {
            uint32_t e = s[4], a = s[0];
            uint32_t x = s[7] + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + (s[6] ^ (e & (s[5] ^ s[6]))) + K[i] + w[i];
            uint32_t y = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & s[1]) | (s[2] & (a | s[1])));
            memmove(s + 1, s, 7 * sizeof *s);
            s[4] += x;
            s[0] = x + y;
        }
        for (i = 0; i < 8; i++) h[i] += s[i];
    }
}

static void (*blocks)(uint32_t *, const unsigned char *, size_t) = blocks_portable;

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

__attribute__((target("sha,ssse3,sse4.1"))) static void blocks_sha_ni(uint32_t *h, const unsigned char *p, size_t count)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)h), 0xB1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(h + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(dcba, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, dcba, 0xF0);
    for (; count; count--, p += 64) {
        __m128i w[4], old0 = abef, old1 = cdgh, m;
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
            else {
                __m128i *a = &w[i & 3], *d = &w[(i + 3) & 3];
                m = _mm_add_epi32(_mm_sha256msg1_epu32(*a, w[(i + 1) & 3]), _mm_alignr_epi8(*d, w[(i + 2) & 3], 4));
                *a = _mm_sha256msg2_epu32(m, *d);
            }
            m = _mm_add_epi32(w[i & 3], _mm_load_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, m);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(m, 0x0E));
        }
        abef = _mm_add_epi32(abef, old0);
        cdgh = _mm_add_epi32(cdgh, old1);
    }
    abef = _mm_shuffle_epi32(abef, 0x1B);
    cdgh = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)h, _mm_blend_epi16(abef, cdgh, 0xF0));
    _mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

static void choose_blocks(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29)) blocks = blocks_sha_ni;
}
#else
static void choose_blocks(void) {}
#endif

typedef struct { uint64_t lane0, lane1; } Digest;

static Digest digest(const char *data, Py_ssize_t n)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const unsigned char *p = (const unsigned char *)data;
    unsigned char tail[128] = {0};
    size_t whole = (size_t)n / 64, rest = (size_t)n % 64, size = rest < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)n * 8;
    if (n) {
        blocks(h, p, whole);
        memcpy(tail, p + whole * 64, rest);
    }
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++) tail[size - 1 - i] = (unsigned char)(bits >> 8 * i);
    blocks(h, tail, size / 64);
    return (Digest){(uint64_t)h[0] << 32 | h[1], (uint64_t)h[2] << 32 | h[3]};
}

/* ----------------------------------------------------------------------------------------------------------- module */
enum { TO_PG, TO_MYSQL, CANONICAL };

typedef struct {
    PyObject *rows, *singles; /* a private list, which a callback cannot shorten; Python's function for one value, by column */
    Py_ssize_t count, width;
    const char *kinds;
    Buf out;
} Batch;

static int open_batch(Batch *t, PyObject *rows)
{
    t->out = (Buf){NULL, 0, 0};
    t->rows = PySequence_List(rows);
    t->count = t->rows ? PyList_Size(t->rows) : 0;
    return t->rows ? 0 : -1;
}

static PyObject *batch_row(Batch *t, Py_ssize_t i)
{
    PyObject *row = PySequence_Tuple(PyList_GetItem(t->rows, i)); /* a tuple is itself */
    if (row && PyTuple_Size(row) != t->width) {
        PyErr_Format(PyExc_ValueError, "a row of %zd values for %zd columns", PyTuple_Size(row), t->width);
        Py_CLEAR(row);
    }
    return row;
}

static int put_value(Batch *t, Py_ssize_t column, PyObject *v, int way)
{
    Py_ssize_t start = t->out.size, n;
    char *s;
    char letter = t->kinds[column];
    int done = way == CANONICAL ? canonical_value(&t->out, letter, v) : encode_value(&t->out, letter, v, way == TO_MYSQL);
    if (done != ASK) return done;
    t->out.size = start;
    PyObject *function = PyTuple_GetItem(t->singles, column);
    PyObject *text = function ? PyObject_CallFunctionObjArgs(function, v, NULL) : NULL;
    done = text && PyBytes_AsStringAndSize(text, &s, &n) == 0 ? put(&t->out, s, n) : FAILED;
    Py_XDECREF(text);
    return done;
}

static PyObject *encode_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *rows, *result = NULL;
    int mysql, done = DONE;
    Batch t;
    if (!PyArg_ParseTuple(args, "Oy#O!p", &rows, &t.kinds, &t.width, &PyTuple_Type, &t.singles, &mysql)) return NULL;
    if (open_batch(&t, rows) < 0) return NULL;
    for (Py_ssize_t r = 0; done == DONE && r < t.count; r++) {
        PyObject *row = batch_row(&t, r);
        if (!row) done = FAILED;
        for (Py_ssize_t c = 0; done == DONE && c < t.width; c++) {
            PyObject *v = PyTuple_GetItem(row, c);
            if (c) done = put1(&t.out, '\t');
            if (done == DONE)
                done = v == Py_None ? put(&t.out, "\\N", 2) : put_value(&t, c, v, mysql ? TO_MYSQL : TO_PG);
        }
        Py_XDECREF(row);
        if (done == DONE) done = put1(&t.out, '\n');
    }
    if (done == DONE) result = PyBytes_FromStringAndSize(t.out.data, t.out.size);
    free(t.out.data);
    Py_DECREF(t.rows);
    return result;
}

/* Append `<octets>:<text>`. The length is known only afterwards, so the text moves down to its prefix. */
enum { ROOM = 24 };

static void put_length(Buf *b, Py_ssize_t start)
{
    char prefix[ROOM], *p = prefix + ROOM;
    Py_ssize_t n = b->size - start - ROOM, u = n;
    *--p = ':';
    do { *--p = (char)('0' + u % 10); u /= 10; } while (u);
    Py_ssize_t head = prefix + ROOM - p;
    memcpy(b->data + start, p, (size_t)head);
    memmove(b->data + start + head, b->data + start + ROOM, (size_t)n);
    b->size = start + head + n;
}

static int put_field(Batch *t, Py_ssize_t column, PyObject *v)
{
    Buf *b = &t->out;
    if (v == Py_None) return put1(b, '-');
    Py_ssize_t start = b->size;
    NEED(b, ROOM);
    b->size += ROOM;
    if (put_value(t, column, v, CANONICAL) != DONE) return FAILED;
    put_length(b, start);
    return DONE;
}

static int bad_row(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return FAILED;
}

/* A row's message to its line. */
static int put_message(Batch *t, const char *s, Py_ssize_t n)
{
    Buf *b = &t->out;
    if (n < 2 || big_endian(s, 2) != t->width) return bad_row("a row of another width");
    const char *end = s + n;
    s += 2;
    for (Py_ssize_t c = 0; c < t->width; c++) {
        if (end - s < 4) return bad_row("a row that ends early");
        int64_t size = big_endian(s, 4);
        s += 4;
        if (size == -1) {
            if (put1(b, '-') < 0) return FAILED;
            continue;
        }
        if (size < 0 || size > end - s) return bad_row("a row that ends early");
        Py_ssize_t start = b->size;
        NEED(b, ROOM);
        b->size += ROOM;
        int done = put_copied(b, t->kinds[c], s, (Py_ssize_t)size);
        if (done == ASK) {
            b->size = start + ROOM;
            PyObject *text = PyObject_CallFunction(PyTuple_GetItem(t->singles, c), "y#", s, (Py_ssize_t)size);
            char *found;
            Py_ssize_t octets;
            done = text && PyBytes_AsStringAndSize(text, &found, &octets) == 0 ? put(b, found, octets) : FAILED;
            Py_XDECREF(text);
        }
        if (done != DONE) return FAILED;
        put_length(b, start);
        s += size;
    }
    return s == end ? DONE : bad_row("a row with more behind its last field");
}

/* Add digests to the sums, 4,096 triples (count, first lane, second lane) of unsigned 64-bit integers; return how many. */
static PyObject *add_all(const Digest *found, Py_ssize_t count, PyObject *lanes)
{
    Py_buffer sums;
    if (PyObject_GetBuffer(lanes, &sums, PyBUF_WRITABLE) < 0) return NULL;
    int fits = sums.len == 3 * 4096 * 8 && (uintptr_t)sums.buf % 8 == 0;
    if (!fits) PyErr_SetString(PyExc_ValueError, "sums are 4096 triples of unsigned 64-bit integers");
    for (Py_ssize_t i = 0; fits && i < count; i++) {
        uint64_t *sum = (uint64_t *)sums.buf + 3 * (found[i].lane0 >> 52);
        sum[0] += 1;
        sum[1] += found[i].lane0;
        sum[2] += found[i].lane1;
    }
    PyBuffer_Release(&sums);
    return fits ? PyLong_FromSsize_t(count) : NULL;
}

static PyObject *digest_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *rows, *lanes, *result = NULL;
    int done = DONE;
    Batch t;
    if (!PyArg_ParseTuple(args, "Oy#O!O", &rows, &t.kinds, &t.width, &PyTuple_Type, &t.singles, &lanes)) return NULL;
    if (open_batch(&t, rows) < 0) return NULL;
    Digest *found = malloc((size_t)t.count * sizeof *found + 1);
    if (!found) { PyErr_NoMemory(); done = FAILED; }
    for (Py_ssize_t r = 0; done == DONE && r < t.count; r++) {
        PyObject *row = batch_row(&t, r);
        if (!row) done = FAILED;
        t.out.size = 0;
        for (Py_ssize_t c = 0; done == DONE && c < t.width; c++) done = put_field(&t, c, PyTuple_GetItem(row, c));
        Py_XDECREF(row);
        if (done == DONE) found[r] = digest(t.out.data, t.out.size);
    }
    if (done == DONE) result = add_all(found, t.count, lanes);
    free(found);
    free(t.out.data);
    Py_DECREF(t.rows);
    return result;
}

/* Lines or messages: octets of any sequence, or `values.packed.Packed`: one block, and where each of them ends in it. */
typedef struct {
    PyObject *list; /* NULL when packed */
    Py_buffer held, data, ends;
    Py_ssize_t count, at;
} Lines;

static void close_lines(Lines *t)
{
    Py_XDECREF(t->list);
    if (t->data.obj) PyBuffer_Release(&t->data);
    if (t->ends.obj) PyBuffer_Release(&t->ends);
}

static int take_buffer(PyObject *from, const char *name, Py_buffer *into)
{
    PyObject *value = PyObject_GetAttrString(from, name);
    int done = value ? PyObject_GetBuffer(value, into, PyBUF_SIMPLE) : -1;
    Py_XDECREF(value);
    return done;
}

static int open_lines(Lines *t, PyObject *given)
{
    memset(t, 0, sizeof *t);
    if (PyList_Check(given) || !PyObject_HasAttrString(given, "ends")) {
        t->list = PySequence_List(given); /* a private one, which a callback cannot shorten */
        t->count = t->list ? PyList_Size(t->list) : 0;
        return t->list ? 0 : -1;
    }
    PyObject *begin = PyObject_GetAttrString(given, "begin");
    t->at = begin ? PyLong_AsSsize_t(begin) : -1;
    Py_XDECREF(begin);
    if (PyErr_Occurred()) return -1;
    if (take_buffer(given, "data", &t->data) < 0 || take_buffer(given, "ends", &t->ends) < 0) {
        close_lines(t);
        return -1;
    }
    t->count = t->ends.len / (Py_ssize_t)sizeof(int64_t);
    if (t->at >= 0 && t->ends.len % (Py_ssize_t)sizeof(int64_t) == 0) return 0;
    PyErr_SetString(PyExc_ValueError, "packed rows are octets, a begin and ends of 64 bits");
    close_lines(t);
    return -1;
}

/* The next line of packed ones, each once and in order; 0 where its end is not within the block. Needs no GIL. */
static int packed_line(Lines *t, Py_ssize_t i, const char **s, Py_ssize_t *n)
{
    int64_t end;
    memcpy(&end, (const char *)t->ends.buf + i * (Py_ssize_t)sizeof end, sizeof end);
    if (end < t->at || end > t->data.len) return 0;
    *s = (const char *)t->data.buf + t->at;
    *n = (Py_ssize_t)end - t->at;
    t->at = (Py_ssize_t)end;
    return 1;
}

static int bad_ends(void)
{
    PyErr_SetString(PyExc_ValueError, "packed rows end outside their block");
    return -1;
}

/* The next line of either; -1 with an exception set. `leave_line` gives it back. */
static int next_line(Lines *t, Py_ssize_t i, const char **s, Py_ssize_t *n)
{
    if (!t->list) return packed_line(t, i, s, n) ? 0 : bad_ends();
    if (PyObject_GetBuffer(PyList_GetItem(t->list, i), &t->held, PyBUF_SIMPLE) < 0) return -1;
    *s = t->held.buf;
    *n = t->held.len;
    return 0;
}

static void leave_line(Lines *t)
{
    if (t->list) PyBuffer_Release(&t->held);
}

static PyObject *digest_messages(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *messages, *lanes, *result = NULL;
    Batch t = {0};
    Lines lines;
    if (!PyArg_ParseTuple(args, "Oy#O!O", &messages, &t.kinds, &t.width, &PyTuple_Type, &t.singles, &lanes)) return NULL;
    if (open_lines(&lines, messages) < 0) return NULL;
    Digest *found = malloc((size_t)lines.count * sizeof *found + 1);
    Py_ssize_t i = 0, n;
    const char *s;
    if (!found) PyErr_NoMemory();
    for (; found && i < lines.count; i++) {
        if (next_line(&lines, i, &s, &n) < 0) break;
        t.out.size = 0;
        int done = put_message(&t, s, n);
        leave_line(&lines);
        if (done != DONE) break;
        found[i] = digest(t.out.data, t.out.size);
    }
    if (found && i == lines.count) result = add_all(found, lines.count, lanes);
    free(found);
    free(t.out.data);
    close_lines(&lines);
    return result;
}

/* The digests of packed lines without the GIL: there is nothing of Python's in it. */
static int digest_packed(Lines *t, Digest *found)
{
    Py_ssize_t i = 0, n;
    const char *s;
    Py_BEGIN_ALLOW_THREADS
    for (; i < t->count && packed_line(t, i, &s, &n); i++) found[i] = digest(s, n);
    Py_END_ALLOW_THREADS
    return i == t->count ? 0 : bad_ends();
}

static PyObject *digest_lines(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given, *lanes, *result = NULL;
    Lines lines;
    if (!PyArg_ParseTuple(args, "OO", &given, &lanes) || open_lines(&lines, given) < 0) return NULL;
    Digest *found = malloc((size_t)lines.count * sizeof *found + 1);
    Py_ssize_t i = 0, n;
    const char *s;
    if (!found) PyErr_NoMemory();
    else if (!lines.list) i = digest_packed(&lines, found) < 0 ? 0 : lines.count;
    else for (; i < lines.count && next_line(&lines, i, &s, &n) == 0; i++) {
        found[i] = digest(s, n);
        leave_line(&lines);
    }
    if (found && !PyErr_Occurred()) result = add_all(found, lines.count, lanes);
    free(found);
    close_lines(&lines);
    return result;
}

static PyObject *render_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *rows, *result;
    Batch t;
    if (!PyArg_ParseTuple(args, "Oy#O!", &rows, &t.kinds, &t.width, &PyTuple_Type, &t.singles)) return NULL;
    if (open_batch(&t, rows) < 0) return NULL;
    result = PyList_New(t.count);
    for (Py_ssize_t r = 0; result && r < t.count; r++) {
        PyObject *row = batch_row(&t, r), *texts = row ? PyTuple_New(t.width) : NULL;
        int done = texts ? PyList_SetItem(result, r, texts) : FAILED; /* the list owns it now */
        for (Py_ssize_t c = 0; done == DONE && c < t.width; c++) {
            PyObject *v = PyTuple_GetItem(row, c), *text = NULL;
            t.out.size = 0;
            if (v == Py_None) Py_INCREF(text = v);
            else if (put_value(&t, c, v, CANONICAL) == DONE) text = PyBytes_FromStringAndSize(t.out.data, t.out.size);
            done = text ? PyTuple_SetItem(texts, c, text) : FAILED;
        }
        Py_XDECREF(row);
        if (done != DONE) Py_CLEAR(result);
    }
    free(t.out.data);
    Py_DECREF(t.rows);
    return result;
}

static PyObject *sha_ni(PyObject *Py_UNUSED(module), PyObject *args)
{
    int wanted = -1;
    if (!PyArg_ParseTuple(args, "|p", &wanted)) return NULL;
    if (wanted >= 0) blocks = blocks_portable;
    if (wanted > 0) choose_blocks();
    return PyBool_FromLong(blocks != blocks_portable);
}

#include "_doubt.h"
#include "_exchange.h"
#include "_receive.h"

static PyMethodDef methods[] = {
    {"encode_rows", encode_rows, METH_VARARGS, "encode_rows(rows, kinds, singles, mysql) -> bytes"},
    {"digest_rows", digest_rows, METH_VARARGS, "digest_rows(rows, kinds, singles, lanes) -> int"},
    {"digest_messages", digest_messages, METH_VARARGS, "digest_messages(messages, kinds, singles, lanes) -> int"},
    {"digest_lines", digest_lines, METH_VARARGS, "digest_lines(lines, lanes) -> int"},
    {"render_rows", render_rows, METH_VARARGS, "render_rows(rows, kinds, singles) -> list"},
    {"shape_rows", shape_rows, METH_VARARGS, "shape_rows(rows, kinds, singles) -> list"},
    {"read_messages", read_messages, METH_VARARGS, "read_messages(messages, kinds) -> list"},
    {"doubt", doubt, METH_O, "doubt(kinds) -> function"},
    {"doubtful", doubtful, METH_VARARGS, "doubtful(rows, kinds) -> list of positions"},
    RECEIVE_METHODS
    {"sha_ni", sha_ni, METH_VARARGS, "sha_ni([wanted]) -> bool: switch and tell whether the processor's SHA is used"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_speed", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__speed(void)
{
    choose_blocks();
    return PyModule_Create(&definition);
}
