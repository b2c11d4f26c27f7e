/* The records of one poll taken apart as far as `envelope` does: what each one is, not its values.
 *
 * A record that is not just as the connector writes it is ODD: Python's own decoder, which knows
 * every form and every error, looks at that one.
 */
#include "scan.h"
#include "json.h"
#include "map.h"
#include "records.h"

#ifndef CDCM_DIGEST
#define CDCM_DIGEST "none"
#endif

/* Of the files that this was built from: who loads it asks whether they are the ones that lie
 * beside it. */
const char *cdcm_digest(void) { return CDCM_DIGEST; }

typedef struct {
    uint8_t *bytes; /* the schema, and the table behind it */
    uint32_t schema, table, hash;
} name;

typedef struct {
    name *all;
    int32_t room, last;
    map index;
} names;

names *cdcm_names_new(void) {
    names *n = calloc(1, sizeof *n);
    if (n != NULL)
        n->last = -1;
    return n;
}

void cdcm_names_free(names *n) {
    for (int32_t i = 0; i < n->index.count; i++)
        free(n->all[i].bytes);
    free(n->all);
    free(n->index.slots);
    free(n);
}

int64_t cdcm_names_count(const names *n) { return n->index.count; }

/* The bytes of a name; how many of them are the schema, and how many the table. */
const uint8_t *cdcm_name(const names *n, int64_t number, int64_t *schema, int64_t *table) {
    *schema = n->all[number].schema;
    *table = n->all[number].table;
    return n->all[number].bytes;
}

static uint32_t name_hash(const void *all, int32_t i) { return ((const name *)all)[i].hash; }

static int same(const name *one, span schema, span table) {
    return one->schema == schema.length && one->table == table.length
           && memcmp(one->bytes, schema.at, schema.length) == 0
           && memcmp(one->bytes + schema.length, table.at, table.length) == 0;
}

/* The number of a table's name, which is given one where it is new; -1 for want of memory. */
static int32_t number_of(names *n, span schema, span table) {
    if (n->last >= 0 && same(&n->all[n->last], schema, table))
        return n->last;
    if (!map_room(&n->index, name_hash, n->all))
        return -1;
    uint32_t hash = hash_of(schema.at, schema.length) * 31 + hash_of(table.at, table.length);
    uint32_t place = hash & n->index.mask;
    for (int32_t slot; (slot = n->index.slots[place]) != 0; place = (place + 1) & n->index.mask)
        if (n->all[slot - 1].hash == hash && same(&n->all[slot - 1], schema, table))
            return n->last = slot - 1;
    if (n->index.count == n->room) {
        int32_t room = n->room ? n->room * 2 : 16;
        name *all = realloc(n->all, room * sizeof *all);
        if (all == NULL)
            return -1;
        n->all = all;
        n->room = room;
    }
    uint8_t *bytes = malloc((size_t)schema.length + table.length + 1);
    if (bytes == NULL)
        return -1;
    memcpy(bytes, schema.at, schema.length);
    memcpy(bytes + schema.length, table.at, table.length);
    n->all[n->index.count] = (name){bytes, schema.length, table.length, hash};
    n->index.slots[place] = ++n->index.count;
    return n->last = n->index.count - 1;
}

/* A string without escapes. */
static text plain(text p, text end, span *found) {
    int flags = 0;
    if (p >= end || *p != '"')
        return NULL;
    found->at = p + 1;
    p = string_end(p + 1, end, &flags);
    if (p == NULL || (flags & ESCAPED) || ((flags & WIDE) && !is_utf8(found->at, p)))
        return NULL;
    found->length = (uint32_t)(p - found->at);
    return p + 1;
}

/* ``799:226058048``: the transaction, and a position, where it is asked for. */
static int split_id(span id, int64_t *xid, int64_t *lsn) {
    text end = id.at + id.length, p = integer(id.at, end, xid);
    return p != NULL && p < end && *p == ':' && (lsn == NULL || integer(p + 1, end, lsn) == end);
}

typedef struct {
    span schema, table;
    int64_t lsn, at_us, at_ms;
} source;

static text scan_source(text p, text end, source *s, int *flags) {
    int more = 1;
    span found;
    s->lsn = s->at_us = s->at_ms = -1;
    if (p >= end || *p != '{')
        return NULL;
    p = blanks(p + 1, end);
    while (p != NULL && more && (p = member(p, end, &found, flags)) != NULL) {
        if (IS(found, "schema"))
            p = plain(p, end, &s->schema);
        else if (IS(found, "table"))
            p = plain(p, end, &s->table);
        else if (IS(found, "lsn"))
            p = integer(p, end, &s->lsn);
        else if (IS(found, "ts_ms"))
            p = integer(p, end, &s->at_ms);
        else if (IS(found, "ts_us") && p < end && *p != 'n')
            p = integer(p, end, &s->at_us);
        else
            p = value_end(p, end, DEPTH, flags);
        if (p != NULL)
            p = next(p, end, '}', &more);
    }
    return s->schema.at != NULL && s->table.at != NULL && s->lsn >= 0 && s->at_ms >= 0 ? p : NULL;
}

static text scan_transaction(text p, text end, span *id, int64_t *order, int *flags) {
    int more = 1;
    span found;
    *order = -1;
    if (p >= end || *p != '{')
        return NULL;
    p = blanks(p + 1, end);
    while (p != NULL && more && (p = member(p, end, &found, flags)) != NULL) {
        if (IS(found, "id"))
            p = plain(p, end, id);
        else if (IS(found, "total_order"))
            p = integer(p, end, order);
        else
            p = value_end(p, end, DEPTH, flags);
        if (p != NULL)
            p = next(p, end, '}', &more);
    }
    return id->at != NULL && *order >= 0 ? p : NULL;
}

/* One record; what it is. */
static int scan_one(names *n, text values, text p, text end, event *e) {
    int more = 1, flags = 0;
    int64_t order = -1, count = -1;
    span found, op = {0}, status = {0}, id = {0}, block = {0}, after = {0};
    source from = {0};
    text begin = p = blanks(p, end);
    if (p >= end || *p != '{')
        return ODD;
    p = blanks(p + 1, end);
    while (p != NULL && more && (p = member(p, end, &found, &flags)) != NULL) {
        text at = p;
        if (IS(found, "after")) {
            if ((p = value_end(p, end, DEPTH, &flags)) != NULL)
                after = (span){at, (uint32_t)(p - at)};
        } else if (IS(found, "source")) {
            p = scan_source(p, end, &from, &flags);
        } else if (IS(found, "transaction")) {
            p = scan_transaction(p, end, &block, &order, &flags);
        } else if (IS(found, "op")) {
            p = plain(p, end, &op);
        } else if (IS(found, "status")) {
            p = plain(p, end, &status);
        } else if (IS(found, "id")) {
            p = plain(p, end, &id);
        } else if (IS(found, "event_count") && p < end && *p != 'n') {
            p = integer(p, end, &count);
        } else {
            p = value_end(p, end, DEPTH, &flags);
        }
        if (p != NULL)
            p = next(p, end, '}', &more);
    }
    if (p == NULL || blanks(p, end) != end || ((flags & WIDE) && !is_utf8(begin, end)))
        return ODD;
    if (op.at == NULL) {
        if (status.at == NULL || id.at == NULL || !split_id(id, &e->xid, &e->lsn))
            return ODD;
        e->number = count;
        if (IS(status, "BEGIN"))
            return BEGIN;
        return IS(status, "END") && count >= 0 ? END : ODD;
    }
    if (op.length != 1 || from.table.at == NULL || block.at == NULL
        || !split_id(block, &e->xid, NULL))
        return ODD;
    e->op = op.at[0];
    int whole = after.at != NULL && after.length > 0 && *after.at == '{';
    if (e->op == 'c' || e->op == 'u' ? !whole : e->op != 'd' && e->op != 't')
        return ODD;
    e->after = whole ? after.at - values : -1;
    e->after_length = whole ? after.length : 0;
    e->lsn = from.lsn;
    e->number = order;
    e->at_us = from.at_us >= 0 ? from.at_us : from.at_ms * 1000;
    e->table = number_of(n, from.schema, from.table);
    return e->table >= 0 ? ROW : ODD;
}

/* Take records apart; those that have headers are halves of a key change. */
void cdcm_scan(names *n, const records *r, event *events) {
    int64_t at = 0, key = 0, header[2];
    for (int64_t i = 0; i < r->count; i++) {
        event *e = events + i;
        e->value = at;
        e->value_length = r->lengths[i] > 0 ? r->lengths[i] : 0;
        e->key = key;
        e->key_length = r->key_lengths[i] > 0 ? r->key_lengths[i] : 0;
        at += e->value_length;
        key += e->key_length;
        e->kind = scan_one(n, r->values, r->values + e->value, r->values + at, e);
    }
    for (text p = r->headers, end = p + r->headers_length; p < end;) {
        memcpy(header, p, sizeof header);
        events[header[0]].moved = 1;
        p += sizeof header;
        for (int64_t i = header[1], lengths[2]; i > 0; i--) {
            memcpy(lengths, p, sizeof lengths);
            p += sizeof lengths + lengths[0] + (lengths[1] > 0 ? lengths[1] : 0);
        }
    }
}

typedef struct {
    int64_t kind;  /* BEGIN, END, ROW (rows behind each other), WHOLE (BEGIN, rows, END), ODD */
    int64_t first; /* its first record, and how many they are */
    int64_t count;
    int64_t offset;  /* of its first record */
    int64_t sent_ms; /* of its last record */
    int64_t plain; /* ROW: positions rise, and none is half of a key change */
    int64_t size;  /* bytes on the wire */
    int64_t xid;
    int64_t lsn;      /* of the first record, of the second where there is one, and of the last */
    int64_t second_lsn;
    int64_t last_lsn;
    int64_t at_us;    /* the commit time, by the last row */
    int64_t number;   /* of the first record and of the last */
    int64_t last_number;
    int64_t start;    /* its first row, and the record behind its last one */
    int64_t stop;
    int64_t together; /* how many runs from here on are WHOLE, each to be committed later */
} run;

/* The rows from `i` on that follow each other in one transaction; where they end. */
static int64_t rows_from(const event *e, const int64_t *offsets, int64_t i, int64_t count, run *r) {
    int64_t j = i;
    r->plain = 1;
    do {
        r->size += e[j].value_length + e[j].key_length;
        if (e[j].moved || (j > i && e[j].lsn <= e[j - 1].lsn))
            r->plain = 0;
        j++;
    } while (j < count && e[j].kind == ROW && e[j].xid == e[i].xid
             && offsets[j] == offsets[j - 1] + 1);
    return j;
}

/* What the records make together, without what `cdcm_runs` adds; how many there are. */
static int64_t find_runs(const event *e, const int64_t *offsets, int64_t count, run *runs) {
    int64_t found = 0, i = 0;
    while (i < count) {
        run *r = runs + found++;
        *r = (run){.kind = e[i].kind, .first = i, .count = 1};
        r->size = e[i].value_length + e[i].key_length;
        if (e[i].kind == ROW) {
            r->size = 0;
            i = rows_from(e, offsets, i, count, r);
            r->count = i - r->first;
            continue;
        }
        int64_t next = i + 1;
        if (e[i].kind == BEGIN && next < count && e[next].kind == ROW && e[next].xid == e[i].xid
            && offsets[next] == offsets[i] + 1 && e[next].number == 1) {
            int64_t end = rows_from(e, offsets, next, count, r);
            const event *last = e + end - 1, *close = e + end;
            if (end < count && close->kind == END && close->xid == e[i].xid && r->plain
                && offsets[end] == offsets[end - 1] + 1 && last->number == end - next
                && close->number == end - next && last->lsn <= close->lsn) {
                r->kind = WHOLE;
                r->count = end + 1 - i;
                r->size += close->value_length + close->key_length;
                i = end + 1;
                continue;
            }
            r->size = e[i].value_length + e[i].key_length;
            r->plain = 0;
        }
        i++;
    }
    return found;
}

/* What the records make together; `runs` has room for one each. How many there are. */
int64_t cdcm_runs(const event *e, const records *r, run *runs) {
    int64_t found = find_runs(e, r->offsets, r->count, runs);
    for (int64_t i = 0; i < found; i++) {
        run *one = runs + i;
        const event *first = e + one->first, *last = first + one->count - 1;
        one->offset = r->offsets[one->first];
        one->sent_ms = r->sent_ms[one->first + one->count - 1];
        one->xid = first->xid;
        one->lsn = first->lsn;
        one->second_lsn = one->count > 1 ? first[1].lsn : -1;
        one->last_lsn = last->lsn;
        one->at_us = one->kind == WHOLE ? last[-1].at_us : last->at_us;
        one->number = first->number;
        one->last_number = last->number;
        one->start = one->first + (one->kind == WHOLE);
        one->stop = one->first + one->count - (one->kind == WHOLE);
    }
    for (int64_t i = found - 1; i >= 0; i--) {
        run *one = runs + i;
        int follows = i + 1 < found && one[1].last_lsn > one->last_lsn;
        one->together = one->kind != WHOLE ? 0 : follows ? one[1].together + 1 : 1;
    }
    return found;
}
