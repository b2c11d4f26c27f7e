/* What one poll brought, in one piece of memory that Python frees. `records.Records` in Python has
 * the same members. */
#ifndef CDCM_RECORDS_H
#define CDCM_RECORDS_H

#include <stdint.h>

/* Values lie one behind the other, and so do keys; one that is absent has the length -1. Headers,
 * of the records that have some: the record's place, how many they are, and for each the lengths of
 * name and value (-1: absent) in front of their bytes. Numbers have 64 bits. */
typedef struct {
    int64_t count;
    int64_t *offsets, *sent_ms, *lengths, *key_lengths;
    uint8_t *values, *keys, *headers;
    int64_t headers_length;
    void *memory;
} records;

int64_t cdcm_records_new(records *r, int64_t count, int64_t values, int64_t keys, int64_t headers);

#endif
