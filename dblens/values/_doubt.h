/* Which values are beyond doubt: questions that a plan asks of every text, answered "certainly not" or "ask Python".
 *
 * Included by _speed.c. `doubt.py` is the definition. A doubt that is none costs time only; a doubt that is missed would hide a
 * loss, so everything out of the ordinary (deep nesting, escapes in keys, exponents, years beyond four digits) is one.
 */

/* 1 for UTF-8 without U+0000. */
static int clean_text(const unsigned char *s, const unsigned char *e)
{
    while (s < e) {
        if (e - s >= 8) {
            uint64_t w;
            memcpy(&w, s, 8);
            /* no octet is 0 or above 0x7F */
            if (!((w | (w - 0x0101010101010101ULL)) & 0x8080808080808080ULL)) { s += 8; continue; }
        }
        unsigned c = *s;
        if (c && c < 0x80) { s++; continue; }
        if (c < 0xC2 || c > 0xF4) return 0;
        int more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        if (e - s <= more) return 0;
        unsigned low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (s[1] < low || s[1] > high) return 0;
        for (int i = 2; i <= more; i++)
            if ((s[i] & 0xC0) != 0x80) return 0;
        s += more + 1;
    }
    return 1;
}

#define IS_DIGIT(c) ((unsigned)((c) - '0') < 10)
#define TWO(s) (IS_DIGIT((s)[0]) && IS_DIGIT((s)[1]) ? ((s)[0] - '0') * 10 + (s)[1] - '0' : 99)

static int plain_date(const unsigned char *s)
{
    static const char days[] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century = TWO(s), year = TWO(s + 2), month = TWO(s + 5), day = TWO(s + 8);
    if (!IS_DIGIT(s[0]) || !IS_DIGIT(s[1]) || !IS_DIGIT(s[2]) || !IS_DIGIT(s[3]) || s[4] != '-' || s[7] != '-') return 0;
    if (!(century | year) || month < 1 || month > 12 || day < 1) return 0;
    int leap = year ? year % 4 == 0 : century % 4 == 0;
    return day <= days[month] + (month == 2 && leap);
}

/* Return what follows HH:MM:SS[.ffffff], NULL without. */
static const unsigned char *plain_clock(const unsigned char *s, const unsigned char *e)
{
    if (e - s < 8 || TWO(s) > 23 || s[2] != ':' || TWO(s + 3) > 59 || s[5] != ':' || TWO(s + 6) > 59) return NULL;
    s += 8;
    if (s < e && *s == '.') {
        const unsigned char *start = ++s;
        while (s < e && IS_DIGIT(*s)) s++;
        if (s == start || s - start > 6) return NULL;
    }
    return s;
}

static int plain_zone(const unsigned char *s, const unsigned char *e)
{
    if (e - s == 1) return *s == 'Z';
    if (e - s < 5 || (*s != '+' && *s != '-') || TWO(s + 1) > 98) return 0;
    s += 3;
    s += *s == ':';
    return e - s == 2 && TWO(s) < 60;
}

static int plain_uuid(const unsigned char *s, Py_ssize_t n)
{
    if (n != 36) return 0;
    for (int i = 0; i < 36; i++) {
        unsigned c = s[i];
        if (i == 8 || i == 13 || i == 18 || i == 23 ? c != '-' : !(IS_DIGIT(c) || (c >= 'a' && c <= 'f'))) return 0;
    }
    return 1;
}

enum { J_INVALID = 1, J_TWICE = 2, J_NUL = 4, J_NUMBER = 8, J_KEY = 16, J_ALL = 31, J_DEPTH = 64, J_KEYS = 128 };

typedef struct {
    const unsigned char *s, *e;
    int found, depth, keys; /* keys: how many are noted of all objects that are open */
    struct { const unsigned char *s; Py_ssize_t n; } key[J_KEYS];
} Asked;

static void skip_space(Asked *j)
{
    while (j->s < j->e && (*j->s == ' ' || *j->s == '\n' || *j->s == '\t' || *j->s == '\r')) j->s++;
}

/* Step over a string whose opening quote was read; 2 when it has an escape, 0 when it is none. */
static int skip_string(Asked *j)
{
    int plain = 1;
    for (; j->s < j->e; j->s++) {
        unsigned c = *j->s;
        if (c == '"') { j->s++; return plain; }
        if (c < 0x20) return 0;
        if (c != '\\') continue;
        plain = 2;
        if (++j->s == j->e) return 0;
        if (*j->s == 'u') {
            if (j->e - j->s < 6) return 0;
            for (int i = 1; i < 5; i++) {
                unsigned h = j->s[i];
                if (!IS_DIGIT(h) && !((h | 32) >= 'a' && (h | 32) <= 'f')) return 0;
            }
            if (!memcmp(j->s, "u0000", 5)) j->found |= J_NUL;
            j->s += 4;
        } else if (!*j->s || !strchr("\"\\/bfnrt", *j->s)) return 0;
    }
    return 0;
}

static int skip_digits(Asked *j)
{
    const unsigned char *start = j->s;
    while (j->s < j->e && IS_DIGIT(*j->s)) j->s++;
    return (int)(j->s - start > 1000 ? 1000 : j->s - start);
}

static int skip_number(Asked *j)
{
    int zero, digits, more;
    if (*j->s == '-') j->s++;
    zero = j->s < j->e && *j->s == '0';
    if (!(digits = skip_digits(j)) || (zero && digits > 1)) return 0;
    if (j->s < j->e && *j->s == '.') {
        j->s++;
        if (!(more = skip_digits(j))) return 0;
        digits += more;
        if (j->s[-1] == '0') j->found |= J_NUMBER;
    }
    if (j->s < j->e && (*j->s | 32) == 'e') {
        j->found |= J_NUMBER;
        j->s++;
        if (j->s < j->e && (*j->s == '+' || *j->s == '-')) j->s++;
        if (!skip_digits(j)) return 0;
    }
    if (digits > 15) j->found |= J_NUMBER;
    return 1;
}

static int skip_key(Asked *j, int first)
{
    const unsigned char *s = j->s;
    int kind = j->s < j->e && *j->s == '"' ? (j->s++, skip_string(j)) : 0;
    if (!kind) return 0;
    Py_ssize_t n = j->s - s;
    if (kind == 2 || j->keys == J_KEYS) j->found |= J_TWICE | J_KEY;
    else {
        if (s[1] == '$' || memchr(s, '.', (size_t)n)) j->found |= J_KEY;
        for (int i = first; i < j->keys; i++)
            if (j->key[i].n == n && !memcmp(j->key[i].s, s, (size_t)n)) j->found |= J_TWICE;
        j->key[j->keys].s = s;
        j->key[j->keys++].n = n;
    }
    skip_space(j);
    return j->s < j->e && *j->s++ == ':';
}

/* Step over a value; 0 when there is none or it lies too deep. */
static int skip_json(Asked *j)
{
    static const struct { char text[6]; int size; } words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    int first = j->keys;
    unsigned open;
    skip_space(j);
    if (j->s == j->e) return 0;
    open = *j->s;
    if (open == '"') { j->s++; return skip_string(j); }
    if (open == '-' || IS_DIGIT(open)) return skip_number(j);
    if (open != '{' && open != '[') {
        for (int i = 0; i < 3; i++)
            if (j->e - j->s >= words[i].size && !memcmp(j->s, words[i].text, (size_t)words[i].size)) {
                j->s += words[i].size;
                return 1;
            }
        return 0;
    }
    if (++j->depth > J_DEPTH) return 0;
    j->s++;
    skip_space(j);
    if (j->s < j->e && *j->s == open + 2) { j->s++; j->depth--; return 1; } /* } and ] stand two behind { and [ */
    for (;;) {
        skip_space(j);
        if (open == '{' && !skip_key(j, first)) return 0;
        if (!skip_json(j)) return 0;
        skip_space(j);
        if (j->s == j->e) return 0;
        unsigned c = *j->s++;
        if (c == open + 2) break;
        if (c != ',') return 0;
    }
    j->keys = first;
    j->depth--;
    return 1;
}

static int json_doubts(const unsigned char *s, const unsigned char *e)
{
    Asked j;
    j.s = s; j.e = e; j.found = j.depth = j.keys = 0;
    if (!clean_text(s, e) || !skip_json(&j)) return J_ALL;
    skip_space(&j);
    return j.s == e ? j.found : J_ALL;
}

/* 1 for a doubt about a value of a kind, 0 for none. */
static int in_doubt(char kind, PyObject *v)
{
    char *data;
    Py_ssize_t n;
    if (v == Py_None) return 0;
    if (!PyBytes_Check(v) || PyBytes_AsStringAndSize(v, &data, &n) < 0) { PyErr_Clear(); return 1; }
    const unsigned char *s = (const unsigned char *)data, *e = s + n;
    switch (kind) {
    case 't': return !clean_text(s, e);
    case '0': return n != 1 || *s != '0';
    case 'd': return n != 10 || !plain_date(s);
    case 'k': return plain_clock(s, e) != e;
    case 's':
    case 'z':
        if (n < 19 || !plain_date(s) || (s[10] != ' ' && s[10] != 'T') || !(s = plain_clock(s + 11, e))) return 1;
        return kind == 's' ? s != e : !plain_zone(s, e);
    case 'u': return !plain_uuid(s, n);
    default: return kind > 0x40 && kind < 0x60 ? (json_doubts(s, e) & kind) != 0 : 1;
    }
}

static PyObject *doubt_row(PyObject *kinds, PyObject *args)
{
    char *kind;
    Py_ssize_t n, given = PyTuple_Size(args);
    if (PyBytes_AsStringAndSize(kinds, &kind, &n) < 0) return NULL;
    int found = given != n;
    for (Py_ssize_t i = 0; i < n && !found; i++) found = in_doubt(kind[i], PyTuple_GetItem(args, i));
    return PyLong_FromLong(found);
}

static PyMethodDef doubt_row_method = {"doubt", doubt_row, METH_VARARGS, "doubt(*values) -> int"};

static PyObject *doubt(PyObject *Py_UNUSED(module), PyObject *kinds)
{
    if (!PyBytes_Check(kinds)) { PyErr_SetString(PyExc_TypeError, "kinds are octets"); return NULL; }
    return PyCFunction_NewEx(&doubt_row_method, kinds, NULL);
}

static PyObject *doubtful(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given, *rows, *result;
    const char *kinds;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "Oy#", &given, &kinds, &n) || !(rows = PySequence_List(given))) return NULL;
    result = PyList_New(0);
    for (Py_ssize_t r = 0; result && r < PyList_Size(rows); r++) {
        PyObject *row = PySequence_Tuple(PyList_GetItem(rows, r));
        int found = !row ? FAILED : PyTuple_Size(row) < n;
        for (Py_ssize_t i = 0; row && i < n && !found; i++) found = in_doubt(kinds[i], PyTuple_GetItem(row, i));
        Py_XDECREF(row);
        PyObject *at = found > 0 ? PyLong_FromSsize_t(r) : NULL;
        if (found < 0 || (found > 0 && (!at || PyList_Append(result, at) < 0))) Py_CLEAR(result);
        Py_XDECREF(at);
    }
    Py_DECREF(rows);
    return result;
}
