/* JSON objects of rows become lines of COPY's text format (PostgreSQL documentation, COPY): cells
 * between tabs, \N for NULL; backslash, tab, line end and carriage return are escaped.
 *
 * A column's text stays as the event spells it, as in `stream.rows`: strings lose their quotes and
 * JSON's escapes, anything else is its own text.
 */
#include "rows.h"

#include <stdlib.h>

typedef struct {
    uint32_t count;
    span *all;
} words;

struct cell {
    text at;
    uint32_t length;
    uint8_t kind, flags;
};

enum { MISSING, NOTHING, STRING, TOKEN };

struct layout {
    uint8_t *bytes;   /* that the spans point to */
    words columns;    /* names, in the order in which cells are written */
    uint8_t *strings; /* whether the event carries a JSON string for a column */
    uint8_t *texts;   /* which of a column's texts the target reads as they are */
    words unchanged[3];
};

/* No text; any; a number's, but none of the words for what is no number; a date's or a time's of
 * the years 1 to 9999. */
enum { NONE, ANY, NUMBER, CALENDAR };

/* The placeholder as it is spelled in a string column, in a string of another column, and as
 * another value there. */
enum { IN_STRING, IN_OTHER, AS_TOKEN };

void cdcm_layout_free(layout *l) {
    if (l == NULL)
        return;
    for (int i = 0; i < 3; i++)
        free(l->unchanged[i].all);
    free(l->columns.all);
    free(l->strings);
    free(l->texts);
    free(l->bytes);
    free(l);
}

static uint8_t *spans(words *w, uint8_t *bytes, const int64_t *lengths, int64_t count) {
    w->count = (uint32_t)count;
    w->all = calloc(count + 1, sizeof *w->all);
    for (int64_t i = 0; w->all != NULL && i < count; i++) {
        w->all[i] = (span){bytes, (uint32_t)lengths[i]};
        bytes += lengths[i];
    }
    return bytes;
}

/* `bytes` holds the columns' names and the three kinds of words, one behind the other;
 * `counts` says how many there are of each, `lengths` how long each one is. `strings` and `texts`
 * have a byte for each column. */
layout *cdcm_layout_new(const uint8_t *bytes, int64_t size, const int64_t *lengths,
                        const int64_t *counts, const uint8_t *strings,
                        const uint8_t *texts) {
    layout *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    int64_t columns = counts[0];
    l->bytes = malloc(size + 1);
    l->strings = malloc(columns + 1);
    l->texts = malloc(columns + 1);
    if (l->bytes == NULL || l->strings == NULL || l->texts == NULL) {
        cdcm_layout_free(l);
        return NULL;
    }
    memcpy(l->bytes, bytes, size);
    memcpy(l->strings, strings, columns);
    memcpy(l->texts, texts, columns);
    uint8_t *rest = spans(&l->columns, l->bytes, lengths, columns);
    lengths += columns;
    for (int i = 0; i < 3; i++) {
        rest = spans(&l->unchanged[i], rest, lengths, counts[i + 1]);
        lengths += counts[i + 1];
    }
    if (!l->columns.all || !l->unchanged[0].all || !l->unchanged[1].all || !l->unchanged[2].all) {
        cdcm_layout_free(l);
        return NULL;
    }
    return l;
}

cell *cells_new(const layout *l) { return calloc(l->columns.count + 1, sizeof(cell)); }

static int among(const words *w, text at, uint32_t length) {
    for (uint32_t i = 0; i < w->count; i++)
        if (w->all[i].length == length && memcmp(w->all[i].at, at, length) == 0)
            return 1;
    return 0;
}

/* The place of a column; mostly it is the one that comes next. */
static uint32_t place_of(const words *columns, span name, uint32_t expected) {
    uint32_t count = columns->count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = expected + i < count ? expected + i : expected + i - count;
        span one = columns->all[place];
        if (one.length == name.length && memcmp(one.at, name.at, name.length) == 0)
            return place;
    }
    return count;
}

static int read_cell(const layout *l, cell *c, uint32_t place, text *position, text end) {
    text p = *position, at = p;
    int flags = 0;
    if (c->kind != MISSING || (p = value_end(p, end, DEPTH, &flags)) == NULL)
        return UNLIKE;
    *position = p;
    if ((flags & WIDE) && !is_utf8(at, p))
        return UNLIKE;
    int string = l->strings[place];
    if (*at == '"') {
        *c = (cell){at + 1, (uint32_t)(p - at - 2), STRING, (uint8_t)flags};
        if (among(&l->unchanged[string ? IN_STRING : IN_OTHER], c->at, c->length))
            return UNCHANGED;
    } else if (*at == 'n') {
        *c = (cell){at, 0, NOTHING, 0};
    } else if (string) {
        return UNLIKE;
    } else {
        *c = (cell){at, (uint32_t)(p - at), TOKEN, (uint8_t)flags};
        if (*at == '[' && among(&l->unchanged[AS_TOKEN], c->at, c->length))
            return UNCHANGED;
    }
    return WRITTEN;
}

/* The cells of one object: each column once, and nothing else. */
static int split(const layout *l, cell *cells, text p, text end) {
    int more = 1, flags = 0, found = WRITTEN;
    uint32_t expected = 0;
    span name;
    for (uint32_t i = 0; i < l->columns.count; i++)
        cells[i].kind = MISSING;
    if (p >= end || *p != '{')
        return UNLIKE;
    p = blanks(p + 1, end);
    while (p != NULL && more && (p = member(p, end, &name, &flags)) != NULL) {
        uint32_t place = place_of(&l->columns, name, expected);
        if (place == l->columns.count)
            return UNLIKE;
        int what = read_cell(l, cells + place, place, &p, end);
        if (what == UNLIKE)
            return UNLIKE;
        if (what == UNCHANGED)
            found = UNCHANGED;
        expected = place + 1;
        p = next(p, end, '}', &more);
    }
    if (p != end)
        return UNLIKE;
    for (uint32_t i = 0; i < l->columns.count; i++)
        if (cells[i].kind == MISSING)
            return UNLIKE;
    return found;
}

static uint8_t *put_point(uint8_t *out, uint32_t point) {
    if (point < 0x80) {
        *out++ = (uint8_t)point;
    } else if (point < 0x800) {
        *out++ = (uint8_t)(0xc0 | point >> 6);
        *out++ = (uint8_t)(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
        *out++ = (uint8_t)(0xe0 | point >> 12);
        *out++ = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (point & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | point >> 18);
        *out++ = (uint8_t)(0x80 | (point >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (point & 0x3f));
    }
    return out;
}

/* One character as COPY wants it. */
static uint8_t *put(uint8_t *out, uint32_t point) {
    switch (point) {
    case '\\':
        *out++ = '\\';
        *out++ = '\\';
        return out;
    case '\n':
        *out++ = '\\';
        *out++ = 'n';
        return out;
    case '\t':
        *out++ = '\\';
        *out++ = 't';
        return out;
    case '\r':
        *out++ = '\\';
        *out++ = 'r';
        return out;
    default:
        return put_point(out, point);
    }
}

/* A string with escapes; NULL where one is the character that no text has. At most twice as
 * long. */
static uint8_t *put_string(uint8_t *out, text p, text end) {
    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        uint32_t point;
        switch (p[1]) {
        case 'b': point = '\b'; break;
        case 'f': point = '\f'; break;
        case 'n': point = '\n'; break;
        case 'r': point = '\r'; break;
        case 't': point = '\t'; break;
        case 'u':
            point = hex(p + 2);
            p += 4;
            if (point == 0)
                return NULL;
            if (point >= 0xd800 && point < 0xdc00) {
                point = 0x10000 + ((point - 0xd800) << 10) + (hex(p + 4) - 0xdc00);
                p += 6;
            }
            break;
        default:
            point = p[1];
        }
        p += 2;
        out = put(out, point);
    }
    return out;
}

static uint8_t *put_cell(uint8_t *out, const cell *c) {
    switch (c->kind) {
    case NOTHING:
        *out++ = '\\';
        *out++ = 'N';
        return out;
    case STRING:
        if (c->flags & ESCAPED)
            return put_string(out, c->at, c->at + c->length);
        break;
    default:
        if (*c->at == '[' || *c->at == '{') {
            for (uint32_t i = 0; i < c->length; i++) {
                uint8_t one = c->at[i];
                out = one == '\\' || one < 0x20 ? put(out, one) : (*out = one, out + 1);
            }
            return out;
        }
    }
    memcpy(out, c->at, c->length);
    return out + c->length;
}

static int is_straight(const cell *c, int texts) {
    text p = c->at;
    if (c->kind == NOTHING || texts == ANY)
        return 1;
    if (texts == NUMBER)
        return c->length > 0 && *p < 'A';
    return texts == CALENDAR && c->length >= 10 && is_digit(p[0]) && is_digit(p[1])
           && is_digit(p[2]) && is_digit(p[3]) && p[4] == '-' && memcmp(p, "0000", 4) != 0;
}

int row_write(const layout *l, cell *cells, text image, int64_t length, span before,
              span behind, int purpose, uint8_t *out, int64_t room, int64_t *written) {
    /* No cell is more than twice as long as what the event has, save for NULLs; and a tab each. */
    int64_t most = 2 * length + 3 * (int64_t)l->columns.count + before.length + behind.length;
    if (most > room)
        return FULL;
    int found = split(l, cells, image, image + length);
    if (found != WRITTEN)
        return found;
    uint8_t *to = out;
    memcpy(to, before.at, before.length);
    to += before.length;
    for (uint32_t i = 0; i < l->columns.count; i++) {
        if (purpose == ROW_KEY && cells[i].kind == NOTHING)
            return UNLIKE;
        if (purpose == ROW_STRAIGHT && !is_straight(&cells[i], l->texts[i]))
            return NOT_STRAIGHT;
        if (i)
            *to++ = '\t';
        if ((to = put_cell(to, &cells[i])) == NULL)
            return UNLIKE;
    }
    memcpy(to, behind.at, behind.length);
    *written = to + behind.length - out;
    return WRITTEN;
}
