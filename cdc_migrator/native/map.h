/* A hash index over things that somebody else keeps in an array: open addressing, no removal. */
#ifndef CDCM_MAP_H
#define CDCM_MAP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t *slots; /* number in the array + 1; 0 where nothing is */
    uint32_t mask;
    int32_t count;
} map;

static inline uint32_t hash_of(const uint8_t *p, uint32_t length) {
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ length;
    while (length >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        h = (h ^ x) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
        p += 8;
        length -= 8;
    }
    if (length) {
        uint64_t x = 0;
        memcpy(&x, p, length);
        h = (h ^ x) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return (uint32_t)(h >> 32);
}

/* Make room for one more; `hash` gives that of the thing with a number. 0 for want of memory. */
static inline int map_room(map *m, uint32_t (*hash)(const void *, int32_t), const void *things) {
    if (m->slots != NULL && (uint32_t)m->count * 2 < m->mask)
        return 1;
    uint32_t size = m->slots == NULL ? 64 : (m->mask + 1) * 2;
    int32_t *slots = calloc(size, sizeof *slots);
    if (slots == NULL)
        return 0;
    for (int32_t i = 0; i < m->count; i++) {
        uint32_t place = hash(things, i) & (size - 1);
        while (slots[place])
            place = (place + 1) & (size - 1);
        slots[place] = i + 1;
    }
    free(m->slots);
    m->slots = slots;
    m->mask = size - 1;
    return 1;
}

#endif
