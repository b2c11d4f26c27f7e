/* One table's row images and keys, as COPY's text format has them. */
#ifndef CDCM_ROWS_H
#define CDCM_ROWS_H

#include "json.h"

typedef struct layout layout;
typedef struct cell cell; /* of a row being read: room for one of each column */

cell *cells_new(const layout *l);

/* What became of a row: written; not there yet for want of room; not written, because a value is
 * only named unchanged; because it is not as it should be; because memory is short; or because
 * the target would not read a text as it stands. */
enum { WRITTEN, FULL, UNCHANGED, UNLIKE, MEMORY, NOT_STRAIGHT };

/* What a row is written for. ROW_STRAIGHT: each text must be one that the target reads as it is.
 * ROW_KEY: no cell may be NULL. */
enum { ROW_STAGED, ROW_STRAIGHT, ROW_KEY };

/* Append `before`, the cells of a JSON object in the layout's order, and `behind`. */
int row_write(const layout *l, cell *cells, text image, int64_t length, span before,
              span behind, int purpose, uint8_t *out, int64_t room, int64_t *written);

#endif
