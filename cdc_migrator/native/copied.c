/* Rows of a COPY out of libpq, many at a time, without an object for each of them.
 *
 * libpq is not linked: who loads this hands over the functions that are called, from the very
 * library that psycopg brings (https://www.postgresql.org/docs/current/libpq-copy.html).
 */
#include <poll.h>
#include <stdlib.h>

#include "gathered.h"

typedef struct {
    int (*get_copy_data)(void *connection, char **row, int async);
    int (*consume_input)(void *connection);
    int (*socket)(const void *connection);
    void (*freemem)(void *);
} functions;

typedef struct {
    functions call;
    gathered rows;
} copied;

copied *cdcm_copied_new(const functions *call) {
    copied *c = calloc(1, sizeof *c);
    if (c != NULL)
        c->call = *call;
    return c;
}

void cdcm_copied_free(copied *c) {
    free(c->rows.bytes);
    free(c);
}

/* Take rows until there are `most` bytes of them, none are left, or nothing has come for `patience`
 * milliseconds. What follows the rows is to be asked of libpq.
 *
 * told: bytes, rows, their address.
 * Returns 1: there may be more. 0: no more. -1: no memory. -2: the connection is lost. */
int64_t cdcm_copied(copied *c, void *connection, int64_t most, int64_t patience, int64_t *told) {
    int64_t rows = 0;
    int length = 0;
    c->rows.length = 0;
    while (c->rows.length < most) {
        char *row;
        length = c->call.get_copy_data(connection, &row, 1);
        if (length < 0)
            break;
        if (length == 0) {
            struct pollfd wanted = {c->call.socket(connection), POLLIN, 0};
            if (poll(&wanted, 1, patience) == 0)
                break;
            if (!c->call.consume_input(connection))
                return -2;
            continue;
        }
        int kept = append(&c->rows, row, length);
        c->call.freemem(row);
        if (!kept)
            return -1;
        rows++;
    }
    told[0] = c->rows.length;
    told[1] = rows;
    told[2] = (int64_t)(intptr_t)c->rows.bytes;
    return length >= 0;
}
