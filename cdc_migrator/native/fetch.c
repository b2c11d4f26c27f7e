/* Records out of librdkafka's queue of a consumer, without an object for each of them.
 *
 * librdkafka is not linked: who loads this hands over the functions that are called, from the very
 * library that confluent-kafka brings (rdkafka.h, whose functions and `rd_kafka_message_t` are that
 * library's public interface).
 */
#include <stdlib.h>
#include <string.h>

#include "gathered.h"
#include "records.h"

/* rd_kafka_message_t. */
typedef struct {
    int32_t err;
    void *topic;
    int32_t partition;
    void *payload;
    size_t length;
    void *key;
    size_t key_length;
    int64_t offset;
    void *own;
} message;

typedef struct {
    int64_t (*consume_batch_queue)(void *queue, int timeout_ms, message **room, size_t most);
    void (*message_destroy)(message *);
    int64_t (*message_timestamp)(const message *, int *kind);
    int32_t (*message_headers)(const message *, void **headers);
    int32_t (*header_get_all)(const void *headers, size_t place, const char **name,
                              const void **value, size_t *length);
} functions;

/* What was told of the connection, or came among records: in front of how many of them. */
typedef struct {
    int64_t place;
    int64_t code;
    char said[240];
} note;

typedef struct {
    functions call;
    void *queue;
    message **room;
    int64_t most;
    note *notes;
    int64_t note_count, note_room;
    gathered headers;
} fetcher;

fetcher *cdcm_fetcher_new(const functions *call, int64_t most) {
    fetcher *f = calloc(1, sizeof *f);
    if (f == NULL || (f->room = malloc(most * sizeof *f->room)) == NULL) {
        free(f);
        return NULL;
    }
    f->call = *call;
    f->most = most;
    return f;
}

void cdcm_fetcher_queue(fetcher *f, void *queue) { f->queue = queue; }

void cdcm_fetcher_free(fetcher *f) {
    free(f->room);
    free(f->notes);
    free(f->headers.bytes);
    free(f);
}

/* Without memory for it nothing is noted: librdkafka says it again for as long as it lasts. */
static void take_down(fetcher *f, int64_t place, int64_t code, const char *said, size_t length) {
    if (f->note_count == f->note_room) {
        int64_t room = f->note_room ? f->note_room * 2 : 8;
        note *more = realloc(f->notes, room * sizeof *more);
        if (more == NULL)
            return;
        f->notes = more;
        f->note_room = room;
    }
    note *n = f->notes + f->note_count++;
    n->place = place;
    n->code = code;
    if (length >= sizeof n->said)
        length = sizeof n->said - 1;
    memcpy(n->said, said, length);
    n->said[length] = 0;
}

/* librdkafka's error_cb, which is called while records are asked for; `opaque` is the fetcher. */
void cdcm_note_error(void *client, int code, const char *reason, void *opaque) {
    take_down(opaque, 0, code, reason == NULL ? "" : reason, reason == NULL ? 0 : strlen(reason));
}

/* librdkafka's log_cb: what it would write is told by errors, too. */
void cdcm_no_log(const void *client, int level, const char *facility, const char *said) {}

static int add_headers(fetcher *f, const void *headers, int64_t place) {
    const char *name;
    const void *value;
    size_t length;
    int64_t numbers[2] = {place, 0};
    while (f->call.header_get_all(headers, numbers[1], &name, &value, &length) == 0)
        numbers[1]++;
    if (!append(&f->headers, numbers, sizeof numbers))
        return 0;
    for (int64_t i = 0; i < numbers[1]; i++) {
        f->call.header_get_all(headers, i, &name, &value, &length);
        int64_t lengths[2] = {(int64_t)strlen(name), value == NULL ? -1 : (int64_t)length};
        if (!append(&f->headers, lengths, sizeof lengths)
            || !append(&f->headers, name, lengths[0])
            || (value != NULL && !append(&f->headers, value, length)))
            return 0;
    }
    return 1;
}

/* Room for so many records, all in one piece; 0 for want of memory. */
int64_t cdcm_records_new(records *r, int64_t count, int64_t values, int64_t keys, int64_t headers) {
    size_t numbers = (size_t)count * 4 * sizeof(int64_t);
    uint8_t *memory = malloc(numbers + values + keys + headers + 1);
    if (memory == NULL)
        return 0;
    *r = (records){.count = count, .headers_length = headers, .memory = memory};
    r->offsets = (int64_t *)memory;
    r->sent_ms = r->offsets + count;
    r->lengths = r->sent_ms + count;
    r->key_lengths = r->lengths + count;
    r->values = memory + numbers;
    r->keys = r->values + values;
    r->headers = r->keys + keys;
    return 1;
}

void cdcm_records_free(records *r) {
    free(r->memory);
    r->memory = NULL;
}

static int64_t gather(fetcher *f, int64_t found, records *r) {
    int64_t values = 0, keys = 0, count = 0;
    for (int64_t i = 0; i < found; i++) {
        message *m = f->room[i];
        void *headers;
        if (m->err != 0) {
            take_down(f, count, m->err, m->payload == NULL ? "" : m->payload, m->length);
            continue;
        }
        values += m->length;
        keys += m->key_length;
        if (f->call.message_headers(m, &headers) == 0 && !add_headers(f, headers, count))
            return -1;
        count++;
    }
    if (!cdcm_records_new(r, count, values, keys, f->headers.length))
        return -1;
    if (f->headers.length)
        memcpy(r->headers, f->headers.bytes, f->headers.length);
    uint8_t *value = r->values, *key = r->keys;
    count = 0;
    for (int64_t i = 0; i < found; i++) {
        message *m = f->room[i];
        int kind;
        if (m->err != 0)
            continue;
        r->offsets[count] = m->offset;
        r->sent_ms[count] = f->call.message_timestamp(m, &kind);
        r->lengths[count] = m->payload == NULL ? -1 : (int64_t)m->length;
        r->key_lengths[count] = m->key == NULL ? -1 : (int64_t)m->key_length;
        if (m->payload != NULL)
            memcpy(value, m->payload, m->length);
        if (m->key != NULL)
            memcpy(key, m->key, m->key_length);
        value += m->length;
        key += m->key_length;
        count++;
    }
    return count;
}

/* Up to `most` records: the first is waited for so long, and what comes with it for `rest_ms` more
 * (librdkafka's call for many would wait the whole time for all of them). How many; -1 for want of
 * memory, when what came is lost to this consumer; -2 where the queue cannot be asked. */
int64_t cdcm_fetch(fetcher *f, int64_t most, int64_t first_ms, int64_t rest_ms, records *r) {
    f->note_count = f->headers.length = 0;
    if (most > f->most)
        most = f->most;
    int64_t found = f->call.consume_batch_queue(f->queue, (int)first_ms, f->room, 1);
    if (found < 0)
        return -2;
    if (found > 0) {
        int64_t more =
            f->call.consume_batch_queue(f->queue, (int)rest_ms, f->room + 1, (size_t)most - 1);
        found += more > 0 ? more : 0;
    }
    int64_t count = gather(f, found, r);
    for (int64_t i = 0; i < found; i++)
        f->call.message_destroy(f->room[i]);
    return count;
}

/* What `cdcm_fetch` has noted. */
const note *cdcm_notes(const fetcher *f, int64_t *count) {
    *count = f->note_count;
    return f->notes;
}
