/* Rows of exchange values: from what drivers and binary COPY hand over, and to what a loader stores. `exchange.py` defines it. */

/* A value as its kind makes it; NULL with an exception, or with *ask set: then the column's own function decides. */
static PyObject *shaped(char kind, PyObject *v, int *ask)
{
    const char *s;
    Py_ssize_t n, cut;
    *ask = 0;
    switch (kind) {
    case '-': return Py_NewRef(v);
    case 'f': {
        double x;
        if (!PyFloat_Check(v)) break;
        x = PyFloat_AsDouble(v);
        if (x != x || (x == 0 && 1 / x < 0)) break;
        return Py_NewRef(v);
    }
    case 'd':
    case 'w':
    case 'z':
        if (!PyUnicode_Check(v)) break;
        if (!(s = PyUnicode_AsUTF8AndSize(v, &n))) return NULL;
        if (kind == 'd' && n >= 2 && s[0] == '-' && s[1] == '0') break;
        cut = n;
        if (memchr(s, '.', (size_t)n)) {
            if (!digit(s[n - 1])) break; /* an era, or a number with nothing behind its point */
            while (s[cut - 1] == '0') cut--;
            if (s[cut - 1] == '.') cut--;
        }
        if (kind == 'z') {
            char text[64];
            if (cut >= (Py_ssize_t)sizeof text) break;
            memcpy(text, s, (size_t)cut);
            text[cut] = 'Z';
            return PyUnicode_FromStringAndSize(text, cut + 1);
        }
        return cut == n ? Py_NewRef(v) : PyUnicode_FromStringAndSize(s, cut);
    case 'I': {
        int64_t whole = 0;
        if (!PyBytes_Check(v)) break;
        if (PyBytes_AsStringAndSize(v, (char **)&s, &n) < 0) return NULL;
        cut = n && s[0] == '-';
        if (n == cut || n > 18) break;
        for (Py_ssize_t i = cut; i < n; i++) {
            if (!digit(s[i])) { *ask = 1; return NULL; }
            whole = whole * 10 + (s[i] - '0');
        }
        return PyLong_FromLongLong(cut ? -whole : whole);
    }
    case 'F': {
        double x;
        if (!PyBytes_Check(v)) break;
        if (PyBytes_AsStringAndSize(v, (char **)&s, &n) < 0) return NULL;
        x = PyOS_string_to_double(s, NULL, NULL);
        if (x == -1.0 && PyErr_Occurred()) return NULL;
        return PyFloat_FromDouble(x);
    }
    case 'R':
        if (!PyBytes_Check(v)) break;
        if (PyBytes_AsStringAndSize(v, (char **)&s, &n) < 0) return NULL;
        return PyUnicode_DecodeUTF8(s, n, NULL);
    }
    *ask = 1;
    return NULL;
}

static PyObject *shape_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *rows, *result;
    Batch t;
    if (!PyArg_ParseTuple(args, "Oy#O!", &rows, &t.kinds, &t.width, &PyTuple_Type, &t.singles)) return NULL;
    if (open_batch(&t, rows) < 0) return NULL;
    result = PyList_New(t.count);
    for (Py_ssize_t r = 0; result && r < t.count; r++) {
        PyObject *row = batch_row(&t, r), *out = row ? PyTuple_New(t.width) : NULL;
        int done = out ? PyList_SetItem(result, r, out) : FAILED; /* the list owns it now */
        for (Py_ssize_t c = 0; done == DONE && c < t.width; c++) {
            PyObject *v = PyTuple_GetItem(row, c), *value;
            int ask;
            if (v == Py_None) value = Py_NewRef(v);
            else if (!(value = shaped(t.kinds[c], v, &ask)) && ask)
                value = PyObject_CallFunctionObjArgs(PyTuple_GetItem(t.singles, c), v, NULL);
            done = value ? PyTuple_SetItem(out, c, value) : FAILED;
        }
        Py_XDECREF(row);
        if (done != DONE) Py_CLEAR(result);
    }
    Py_DECREF(t.rows);
    return result;
}

static PyObject *field_value(char kind, const char *s, Py_ssize_t n)
{
    switch (kind) {
    case 'r': return PyUnicode_DecodeUTF8(s, n, NULL);
    case 'b': return PyBytes_FromStringAndSize(s, n);
    case 'v':
        if (n == 1) return PyLong_FromLong(s[0] != 0);
        break;
    case 'i':
        if (n == 2 || n == 4 || n == 8) return PyLong_FromLongLong(big_endian(s, n));
        break;
    case 'f':
        if (n == 8) {
            uint64_t u = (uint64_t)big_endian(s, 8);
            double x;
            memcpy(&x, &u, 8);
            return PyFloat_FromDouble(x);
        }
    }
    PyErr_Format(PyExc_ValueError, "a field of %zd octets for kind %c", n, kind);
    return NULL;
}

static PyObject *read_messages(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *messages, *result;
    const char *kinds, *s;
    Py_ssize_t width, n;
    Lines lines;
    if (!PyArg_ParseTuple(args, "Oy#", &messages, &kinds, &width)) return NULL;
    if (open_lines(&lines, messages) < 0) return NULL;
    result = PyList_New(lines.count);
    for (Py_ssize_t r = 0; result && r < lines.count; r++) {
        PyObject *out = PyTuple_New(width);
        int done = out ? PyList_SetItem(result, r, out) : FAILED;
        if (done != DONE || next_line(&lines, r, &s, &n) < 0) {
            Py_CLEAR(result);
            break;
        }
        const char *end = s + n;
        if (n < 2 || big_endian(s, 2) != width) done = bad_row("a row of another width");
        s += 2;
        for (Py_ssize_t c = 0; done == DONE && c < width; c++) {
            PyObject *value = NULL;
            int64_t size = end - s < 4 ? -2 : big_endian(s, 4);
            s += 4;
            if (size < -1 || (size > 0 && size > end - s)) done = bad_row("a row that ends early");
            else if (size == -1) value = Py_NewRef(Py_None);
            else value = field_value(kinds[c], s, (Py_ssize_t)size);
            if (size > 0) s += size;
            done = value ? PyTuple_SetItem(out, c, value) : FAILED;
        }
        if (done == DONE && s != end) done = bad_row("a row with more behind its last field");
        leave_line(&lines);
        if (done != DONE) Py_CLEAR(result);
    }
    close_lines(&lines);
    return result;
}
