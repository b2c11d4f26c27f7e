/* What is known of one record of the topic: a row of 64-bit numbers, which Python reads, too.
 * The order of these names is that of `library.Field`. */
#ifndef CDCM_SCAN_H
#define CDCM_SCAN_H

#include <stdint.h>

typedef struct {
    int64_t kind;     /* ODD, BEGIN, END, ROW */
    int64_t table;    /* ROW: the number of its name */
    int64_t op;       /* ROW: c, u, d or t */
    int64_t lsn;      /* of the row; of a marker: the position in its id */
    int64_t xid;
    int64_t number;   /* ROW: total_order; END: event_count */
    int64_t at_us;    /* ROW: the commit time, microseconds since 1970 */
    int64_t value;    /* where its value begins among all values, and how long it is */
    int64_t value_length;
    int64_t after;    /* ROW: where the image after begins; -1 for none */
    int64_t after_length;
    int64_t key;      /* where its key begins among all keys, and how long it is */
    int64_t key_length;
    int64_t moved;    /* ROW: it is half of a key change */
} event;

enum { ODD, BEGIN, END, ROW, WHOLE };

#endif
