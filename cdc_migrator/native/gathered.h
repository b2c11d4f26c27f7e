/* Bytes that are put one behind the other. */
#ifndef CDCM_GATHERED_H
#define CDCM_GATHERED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *bytes;
    int64_t length, room;
} gathered;

/* 0 where there is no memory. */
static inline int append(gathered *g, const void *bytes, int64_t length) {
    if (g->length + length > g->room) {
        /* No more than that: a row may have a gigabyte. */
        int64_t room = g->length + length + (1 << 20);
        uint8_t *larger = realloc(g->bytes, room);
        if (larger == NULL)
            return 0;
        g->bytes = larger;
        g->room = room;
    }
    memcpy(g->bytes + g->length, bytes, length);
    g->length += length;
    return 1;
}

#endif
