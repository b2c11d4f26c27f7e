"""Names as the accounts service looks them up: in lower case, without accents."""

import unicodedata


def searchable(rows):
    """For each row, what its columns on the target are."""
    return [{"search_name": folded(row["name"])} for row in rows]


def folded(name):
    apart = unicodedata.normalize("NFKD", name)
    return "".join(c for c in apart if not unicodedata.combining(c)).casefold()
