/* JSON by RFC 8259, read in place: each function takes a position and the end of the text, and
 * gives the position behind what it read, or NULL where that is not there. Nothing is copied.
 *
 * What is accepted is valid JSON, but for one thing that the caller sees to: whether bytes above
 * 0x7f are UTF-8 (WIDE says that there are some).
 */
#ifndef CDCM_JSON_H
#define CDCM_JSON_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "eight bytes are looked at as one little-endian number"
#endif

typedef const uint8_t *text;

typedef struct {
    text at;
    uint32_t length;
} span;

enum { ESCAPED = 1, WIDE = 2 };

#define DEPTH 64
#define ONES UINT64_C(0x0101010101010101)
#define TOPS UINT64_C(0x8080808080808080)

static inline int is_span(span s, const char *word, uint32_t length) {
    return s.length == length && memcmp(s.at, word, length) == 0;
}
#define IS(s, word) is_span(s, word, sizeof(word) - 1)

static inline text blanks(text p, text end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static inline int is_hex(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline uint32_t hex(text p) {
    uint32_t found = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];
        found = found << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return found;
}

static inline int is_unicode_escape(text p, text end) {
    return end - p >= 6 && p[0] == '\\' && p[1] == 'u' && is_hex(p[2]) && is_hex(p[3])
           && is_hex(p[4]) && is_hex(p[5]);
}

/* Behind a \u escape, or behind the two that make one character. */
static inline text escape_end(text p, text end) {
    if (!is_unicode_escape(p, end))
        return NULL;
    uint32_t point = hex(p + 2);
    if (point < 0xd800 || point > 0xdfff)
        return p + 6;
    if (point > 0xdbff || !is_unicode_escape(p + 6, end))
        return NULL;
    point = hex(p + 8);
    return point >= 0xdc00 && point <= 0xdfff ? p + 12 : NULL;
}

/* From behind the opening quote to the closing one. */
static inline text string_end(text p, text end, int *flags) {
    for (;;) {
        while (end - p >= 8) {
            uint64_t x, quote, escape, special;
            memcpy(&x, p, 8);
            quote = x ^ (ONES * '"');
            escape = x ^ (ONES * '\\');
            special = ((quote - ONES) & ~quote) | ((escape - ONES) & ~escape)
                      | ((x - ONES * 0x20) & ~x);
            special &= TOPS;
            if (special == 0) {
                if (x & TOPS)
                    *flags |= WIDE;
                p += 8;
                continue;
            }
            int there = __builtin_ctzll(special) >> 3;
            if (there && (x & TOPS & ((UINT64_C(1) << (8 * there)) - 1)))
                *flags |= WIDE;
            p += there;
            break;
        }
        if (p >= end)
            return NULL;
        if (*p == '"')
            return p;
        if (*p == '\\') {
            *flags |= ESCAPED;
            if (end - p < 2)
                return NULL;
            switch (p[1]) {
            case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
                p += 2;
                break;
            case 'u':
                if ((p = escape_end(p, end)) == NULL)
                    return NULL;
                break;
            default:
                return NULL;
            }
            continue;
        }
        if (*p < 0x20)
            return NULL;
        if (*p >= 0x80)
            *flags |= WIDE;
        p++;
    }
}

static inline int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static inline text digits_end(text p, text end) {
    if (p >= end || !is_digit(*p))
        return NULL;
    while (p < end && is_digit(*p))
        p++;
    return p;
}

static inline text number_end(text p, text end) {
    if (p < end && *p == '-')
        p++;
    if (p < end && *p == '0')
        p++;
    else if ((p = digits_end(p, end)) == NULL)
        return NULL;
    if (p < end && *p == '.' && (p = digits_end(p + 1, end)) == NULL)
        return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        p = digits_end(p, end);
    }
    return p;
}

static inline text word_end(text p, text end, const char *word, int length) {
    return end - p >= length && memcmp(p, word, length) == 0 ? p + length : NULL;
}

/* A member's name and colon; at its value then. A name with escapes is not read here. */
static inline text member(text p, text end, span *name, int *flags) {
    int own = 0;
    if (p >= end || *p != '"')
        return NULL;
    name->at = p + 1;
    p = string_end(p + 1, end, &own);
    *flags |= own;
    if (p == NULL || (own & ESCAPED))
        return NULL;
    name->length = (uint32_t)(p - name->at);
    p = blanks(p + 1, end);
    return p < end && *p == ':' ? blanks(p + 1, end) : NULL;
}

/* Behind a member's or an element's value: at the next one (more = 1), or behind `close`. */
static inline text next(text p, text end, uint8_t close, int *more) {
    p = blanks(p, end);
    if (p >= end)
        return NULL;
    *more = *p == ',';
    if (*more)
        return blanks(p + 1, end);
    return *p == close ? p + 1 : NULL;
}

static inline text value_end(text p, text end, int depth, int *flags) {
    if (p >= end || depth == 0)
        return NULL;
    switch (*p) {
    case '"':
        p = string_end(p + 1, end, flags);
        return p == NULL ? NULL : p + 1;
    case 'n':
        return word_end(p, end, "null", 4);
    case 't':
        return word_end(p, end, "true", 4);
    case 'f':
        return word_end(p, end, "false", 5);
    case '{':
    case '[': {
        int object = *p == '{', more = 1;
        uint8_t close = object ? '}' : ']';
        p = blanks(p + 1, end);
        if (p < end && *p == close)
            return p + 1;
        while (p != NULL && more) {
            if (object) {
                if (p >= end || *p != '"' || (p = string_end(p + 1, end, flags)) == NULL)
                    return NULL;
                p = blanks(p + 1, end);
                if (p >= end || *p != ':')
                    return NULL;
                p = blanks(p + 1, end);
            }
            p = value_end(p, end, depth - 1, flags);
            if (p != NULL)
                p = next(p, end, close, &more);
        }
        return p;
    }
    default:
        return number_end(p, end);
    }
}

/* A whole number of at most 18 digits. */
static inline text integer(text p, text end, int64_t *number) {
    int negative = p < end && *p == '-';
    int64_t found = 0;
    text first = p += negative;
    while (p < end && is_digit(*p) && p - first < 18)
        found = found * 10 + (*p++ - '0');
    if (p == first || (*first == '0' && p - first > 1))
        return NULL;
    if (p < end && (is_digit(*p) || *p == '.' || *p == 'e' || *p == 'E'))
        return NULL;
    *number = negative ? -found : found;
    return p;
}

static inline int is_utf8(text p, text end) {
    while (p < end) {
        uint8_t c = *p++;
        int more;
        uint32_t point;
        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c <= 0xdf)
            more = 1, point = c & 0x1f;
        else if (c >= 0xe0 && c <= 0xef)
            more = 2, point = c & 0x0f;
        else if (c >= 0xf0 && c <= 0xf4)
            more = 3, point = c & 0x07;
        else
            return 0;
        if (end - p < more)
            return 0;
        for (int i = 0; i < more; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            point = point << 6 | (p[i] & 0x3f);
        }
        if ((more == 2 && (point < 0x800 || (point >= 0xd800 && point <= 0xdfff)))
            || (more == 3 && (point < 0x10000 || point > 0x10ffff)))
            return 0;
        p += more;
    }
    return 1;
}

#endif
