/* The changes of one batch folded to the last state of each row, as `follow.Keyed` does.
 *
 * By the row's key: what the target holds under it, and what is there now. A row of an event that
 * cannot follow the ones before it, or of one of the rarer kinds (a truncate, half of a key
 * change), is no row for this: the table is given up, and Python folds it.
 */
#include "map.h"
#include "records.h"
#include "rows.h"
#include "scan.h"

/* FRESH: inserted by the batch. THERE: the target has it. GONE: the target has it, and it goes.
 * AGAIN: so, and inserted again. NEVER: inserted and removed by the batch. */
enum { NEVER, FRESH, THERE, GONE, AGAIN };

typedef struct {
    const uint8_t *values, *keys;
    const event *events;
} block;

typedef struct {
    text key;
    uint32_t key_length, hash;
    int32_t state;
    int32_t last; /* the number of its last change */
} row;

typedef struct {
    int32_t block, record;
    int32_t before; /* the number of the same row's change before; -1 */
} seen;

typedef struct {
    row *rows;
    int32_t room;
    map index;
    int64_t inserts, updates, deletes, present, gone, fresh;
    int32_t *order; /* the rows, sorted */
} table;

typedef struct {
    block *blocks;
    int32_t block_count, block_room;
    seen *seen;
    int32_t seen_count, seen_room;
    table *tables;
    int32_t table_count;
    int32_t *touched; /* numbers of tables that have rows */
    int32_t touched_count;
} fold;

fold *cdcm_fold_new(int64_t tables) {
    fold *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->tables = calloc(tables + 1, sizeof *f->tables);
    f->touched = calloc(tables + 1, sizeof *f->touched);
    f->table_count = (int32_t)tables;
    if (f->tables == NULL || f->touched == NULL) {
        free(f->tables);
        free(f->touched);
        free(f);
        return NULL;
    }
    return f;
}

void cdcm_fold_free(fold *f) {
    for (int32_t i = 0; i < f->table_count; i++) {
        free(f->tables[i].rows);
        free(f->tables[i].index.slots);
        free(f->tables[i].order);
    }
    free(f->tables);
    free(f->touched);
    free(f->blocks);
    free(f->seen);
    free(f);
}

/* Room for one more in an array that doubles. */
static int grow(void **array, int32_t count, int32_t *room, size_t size) {
    if (count < *room)
        return 1;
    int32_t more = *room ? *room * 2 : 64;
    void *moved = realloc(*array, (size_t)more * size);
    if (moved == NULL)
        return 0;
    *array = moved;
    *room = more;
    return 1;
}

static uint32_t row_hash(const void *rows, int32_t i) { return ((const row *)rows)[i].hash; }

/* The row with this key; NULL for want of memory. */
static row *row_of(table *t, text key, uint32_t length) {
    if (!map_room(&t->index, row_hash, t->rows))
        return NULL;
    uint32_t hash = hash_of(key, length), place = hash & t->index.mask;
    for (int32_t slot; (slot = t->index.slots[place]) != 0; place = (place + 1) & t->index.mask) {
        row *r = t->rows + slot - 1;
        if (r->hash == hash && r->key_length == length && memcmp(r->key, key, length) == 0)
            return r;
    }
    if (!grow((void **)&t->rows, t->index.count, &t->room, sizeof *t->rows))
        return NULL;
    t->rows[t->index.count] = (row){key, length, hash, -1, -1};
    t->index.slots[place] = ++t->index.count;
    return t->rows + t->index.count - 1;
}

/* What a change makes of a row; -1 where it cannot follow. */
static int32_t after(int32_t state, int64_t op) {
    switch (op) {
    case 'c':
        return state == -1 || state == NEVER ? FRESH : state == GONE ? AGAIN : -1;
    case 'u':
        return state == -1 || state == NEVER ? THERE : state == GONE ? -1 : state;
    default:
        return state == -1 || state == NEVER || state == THERE || state == AGAIN ? GONE
               : state == FRESH                                                  ? NEVER
                                                                                 : -1;
    }
}

enum { TAKEN, NO_MEMORY = -1 }; /* else the number of the table that is given up, and 1 */

/* Take the rows among the records [start, stop) of a block. `mine` says which tables are folded;
 * the numbers of other tables' records go to `others`, and how many they are to `count`. */
int64_t cdcm_fold_take(fold *f, const records *polled, const event *events, int64_t start,
                       int64_t stop, const uint8_t *mine, int64_t *others, int64_t *count) {
    *count = 0;
    if (f->block_count == 0 || f->blocks[f->block_count - 1].events != events) {
        if (!grow((void **)&f->blocks, f->block_count, &f->block_room, sizeof *f->blocks))
            return NO_MEMORY;
        f->blocks[f->block_count++] = (block){polled->values, polled->keys, events};
    }
    for (int64_t i = start; i < stop; i++) {
        const event *e = events + i;
        if (e->kind != ROW)
            continue;
        if (e->table >= f->table_count || !mine[e->table]) {
            others[(*count)++] = i;
            continue;
        }
        text key = polled->keys + e->key;
        int nameless = e->key_length == 0 || (e->key_length == 4 && memcmp(key, "null", 4) == 0);
        if (e->moved || e->op == 't' || nameless)
            return e->table + 1;
        table *t = f->tables + e->table;
        if (t->index.count == 0)
            f->touched[f->touched_count++] = (int32_t)e->table;
        row *r = row_of(t, key, (uint32_t)e->key_length);
        if (r == NULL || !grow((void **)&f->seen, f->seen_count, &f->seen_room, sizeof *f->seen))
            return NO_MEMORY;
        int32_t state = after(r->state, e->op);
        if (state < 0)
            return e->table + 1;
        r->state = state;
        f->seen[f->seen_count] = (seen){f->block_count - 1, (int32_t)i, r->last};
        r->last = f->seen_count++;
        t->inserts += e->op == 'c';
        t->updates += e->op == 'u';
        t->deletes += e->op == 'd';
    }
    return TAKEN;
}

/* The numbers of the tables that have rows, of which there is room for all; how many. */
int64_t cdcm_fold_touched(const fold *f, int64_t *numbers) {
    for (int32_t i = 0; i < f->touched_count; i++)
        numbers[i] = f->touched[i];
    return f->touched_count;
}

typedef struct {
    uint64_t length, head; /* eight bytes behind what all keys begin with */
    int32_t row;
} place;

static _Thread_local const row *sorted_rows;

static int by_key(const void *one, const void *other) {
    const place *a = one, *b = other;
    if (a->length != b->length)
        return a->length < b->length ? -1 : 1;
    if (a->head != b->head)
        return a->head < b->head ? -1 : 1;
    const row *x = sorted_rows + a->row, *y = sorted_rows + b->row;
    uint32_t common = x->key_length < y->key_length ? x->key_length : y->key_length;
    int found = memcmp(x->key, y->key, common);
    return found ? found : (x->key_length > y->key_length) - (x->key_length < y->key_length);
}

/* Sort a table's rows by key, as numbers where `numeric`: neighbours in the index lie together.
 * `told`: inserts, updates, deletes, rows, how many of them are there, and go, and how
 * many of those that are there the target never had. */
int64_t cdcm_fold_table(fold *f, int64_t number, int64_t numeric, int64_t *told) {
    table *t = f->tables + number;
    int32_t count = t->index.count;
    place *places = malloc(((size_t)count + 1) * sizeof *places);
    t->order = malloc(((size_t)count + 1) * sizeof *t->order);
    if (places == NULL || t->order == NULL) {
        free(places);
        return NO_MEMORY;
    }
    uint32_t same = count ? t->rows[0].key_length : 0;
    for (int32_t i = 1; i < count; i++) {
        uint32_t most = t->rows[i].key_length < same ? t->rows[i].key_length : same;
        for (same = 0; same < most && t->rows[i].key[same] == t->rows[0].key[same];)
            same++;
    }
    t->present = t->gone = t->fresh = 0;
    for (int32_t i = 0; i < count; i++) {
        const row *r = t->rows + i;
        uint8_t head[8] = {0};
        uint32_t rest = r->key_length - same;
        memcpy(head, r->key + same, rest < 8 ? rest : 8);
        uint64_t x;
        memcpy(&x, head, 8);
        places[i] = (place){numeric ? r->key_length : 0, __builtin_bswap64(x), i};
        t->present += r->state == FRESH || r->state == THERE || r->state == AGAIN;
        t->gone += r->state == GONE;
        t->fresh += r->state == FRESH;
    }
    sorted_rows = t->rows;
    qsort(places, count, sizeof *places, by_key);
    for (int32_t i = 0; i < count; i++)
        t->order[i] = places[i].row;
    free(places);
    int64_t all[] = {t->inserts, t->updates, t->deletes, count, t->present, t->gone, t->fresh};
    memcpy(told, all, sizeof all);
    return TAKEN;
}

typedef struct {
    int64_t from;    /* in: the place among the sorted rows; out: where it goes on */
    int64_t written; /* bytes, and rows */
    int64_t rows;
    int64_t odd;     /* how many rows have values that are only named unchanged */
} progress;

/* Write rows that go (ROW_KEY, by their keys) or that are there (by their last images), as many as
 * find room; the others' places go to `odd`, which has room for all. */
int64_t cdcm_fold_write(fold *f, int64_t number, int64_t purpose, const layout *l, const uint8_t *before,
                        int64_t before_length, const uint8_t *behind, int64_t behind_length,
                        uint8_t *out, int64_t room, int64_t *odd, progress *p) {
    table *t = f->tables + number;
    span head = {before, (uint32_t)before_length}, tail = {behind, (uint32_t)behind_length};
    int found = WRITTEN, gone = purpose == ROW_KEY;
    cell *cells = cells_new(l);
    if (cells == NULL)
        return MEMORY;
    p->written = p->rows = p->odd = 0;
    for (; p->from < t->index.count; p->from++) {
        const row *r = t->rows + t->order[p->from];
        if (r->state == NEVER || (r->state == GONE) != gone)
            continue;
        text image = r->key;
        int64_t length = r->key_length, more = 0;
        if (!gone) {
            const seen *s = f->seen + r->last;
            const block *b = f->blocks + s->block;
            image = b->values + b->events[s->record].after;
            length = b->events[s->record].after_length;
        }
        found = row_write(l, cells, image, length, head, tail, (int)purpose, out + p->written,
                          room - p->written, &more);
        if (found == UNCHANGED && !gone) {
            odd[p->odd++] = p->from;
            found = WRITTEN;
            continue;
        }
        if (found != WRITTEN)
            break;
        p->written += more;
        p->rows++;
    }
    free(cells);
    return found;
}

/* All changes of the row at a place, the oldest last: blocks and records in turn. How many. */
int64_t cdcm_fold_changes(const fold *f, int64_t number, int64_t place, int64_t *found,
                          int64_t room) {
    const table *t = f->tables + number;
    int64_t count = 0;
    for (int32_t i = t->rows[t->order[place]].last; i >= 0 && count < room; i = f->seen[i].before) {
        found[2 * count] = f->seen[i].block;
        found[2 * count++ + 1] = f->seen[i].record;
    }
    return count;
}
