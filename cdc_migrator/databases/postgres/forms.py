"""SQL that turns an event's text into a value, one builder for each way a value is written.

Each builder takes the SQL of a text (a staging column, an array's element) and returns the SQL
of a value of the base type without length or scale: the assignment to the column then checks
the length, where an explicit cast to ``varchar(5)`` would cut the value in silence.
NULL always gives NULL.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

Builder = Callable[[sql.Composable], sql.Composable]

# The first and last years that a date and a timestamp of PostgreSQL can have, as ISO counts them
# (4714 BC is -4713). The connector writes the infinities as years beyond these.
_FIRST_YEAR = -4713
_LAST_YEAR = {"date": 5874897, "timestamp": 294276, "timestamptz": 294276}


def builtin(name: str) -> sql.Composable:
    """A type of pg_catalog."""
    return sql.Identifier("pg_catalog", name)


def text(value: sql.Composable) -> sql.Composable:
    """Text as it is: varchar and text columns check the length on assignment."""
    return value


def cast(to: sql.Composable) -> Builder:
    """The type's own input function reads the text."""
    return lambda value: sql.SQL("{}::{}").format(value, to)


def from_base64_text(to: sql.Composable) -> Builder:
    """Base64 of the text form, as types that the connector does not know arrive."""
    return lambda value: sql.SQL("convert_from(decode({}, 'base64'), 'UTF8')::{}").format(value, to)


def numeric(value: sql.Composable) -> sql.Composable:
    return sql.SQL(
        "CASE WHEN {0} COLLATE \"C\" < 'A' THEN {0} WHEN {0} = 'NAN' THEN 'NaN' "
        "WHEN {0} = 'POSITIVE_INFINITY' THEN 'Infinity' "
        "WHEN {0} = 'NEGATIVE_INFINITY' THEN '-Infinity' ELSE {0} END::numeric"
    ).format(value)


def bytea(value: sql.Composable) -> sql.Composable:
    return sql.SQL("decode({}, 'base64')").format(value)


def calendar(to: str) -> Builder:
    """ISO dates and times: years before 1 and after 9999 are rewritten for PostgreSQL's input.

    ``0044-03-15 BC`` is ``-0043-03-15``, ``12345-01-01`` is ``+12345-01-01``. A year outside
    the type's range stands for an infinity.
    """
    # Nearly all values start with the digits of a year from 1 to 9999; 'infinity' also sorts
    # there, and is read as it is.
    pattern = (
        "CASE WHEN {v} COLLATE \"C\" >= '0001' THEN {v} "
        "WHEN {v} = '-infinity' THEN {v} "
        "WHEN left({v}, 1) = '+' THEN CASE WHEN split_part({v}, '-', 1)::int8 > {last} "
        "THEN 'infinity' ELSE substr({v}, 2) END "
        "WHEN left({v}, 5) = '0000-' THEN '0001' || rtrim(substr({v}, 5), 'Z') || ' BC' "
        "ELSE CASE WHEN -split_part({v}, '-', 2)::int8 < {first} THEN '-infinity' "
        "ELSE lpad((split_part({v}, '-', 2)::int8 + 1)::text, 4, '0') || "
        "rtrim(substr({v}, length(split_part({v}, '-', 2)) + 2), 'Z') || ' BC' END END::{to}"
    )
    return lambda value: sql.SQL(pattern).format(
        v=value,
        first=sql.Literal(_FIRST_YEAR),
        last=sql.Literal(_LAST_YEAR[to]),
        to=builtin(to),
    )


def one_bit(value: sql.Composable) -> sql.Composable:
    return sql.SQL("CASE {} WHEN 'true' THEN B'1' WHEN 'false' THEN B'0' END").format(value)


def bits(length: int) -> Builder:
    """Little-endian bytes, trailing zero bytes left out, as a bit string of `length`."""
    # Not cut to the length: a longer value must fail, not lose bits.
    pattern = (
        "CASE WHEN {v} IS NOT NULL THEN (SELECT lpad(x.x, greatest({n}, length(x.x)), '0')::{bit} "
        "FROM (SELECT coalesce(ltrim(string_agg(get_byte(b.b, i)::bit(8)::text, '' "
        "ORDER BY i DESC), '0'), '') FROM (SELECT decode({v}, 'base64')) AS b(b), "
        "generate_series(0, length(b.b) - 1) AS i) AS x(x)) END"
    )
    return lambda value: sql.SQL(pattern).format(v=value, n=sql.Literal(length), bit=builtin("bit"))


def hstore(schema: str) -> Builder:
    """JSON text of an object whose values are strings or null."""
    pattern = (
        "CASE WHEN {v} IS NOT NULL THEN coalesce((SELECT {make}(array_agg(e.key), "
        "array_agg(e.value)) FROM json_each_text({v}::json) AS e), ''::{type}) END"
    )
    name = sql.Identifier(schema, "hstore")
    return lambda value: sql.SQL(pattern).format(v=value, make=name, type=name)


def point(value: sql.Composable) -> sql.Composable:
    return sql.SQL("point(({0}::json ->> 'x')::float8, ({0}::json ->> 'y')::float8)").format(value)


def line(value: sql.Composable) -> sql.Composable:
    return sql.SQL(
        "('{{' || ({0}::json ->> 'a') || ',' || ({0}::json ->> 'b') || ',' || "
        "({0}::json ->> 'c') || '}}')::line"
    ).format(value)


def circle(value: sql.Composable) -> sql.Composable:
    return sql.SQL(
        "circle(point(({0}::json #>> '{{center,x}}')::float8, "
        "({0}::json #>> '{{center,y}}')::float8), ({0}::json ->> 'radius')::float8)"
    ).format(value)


def plain_array(to: sql.Composable) -> Builder:
    """A JSON array of numbers, booleans and nulls: only the brackets differ."""
    return lambda value: sql.SQL("translate({}, '[]', '{{}}')::{}[]").format(value, to)


def array(element: Builder) -> Builder:
    """A JSON array whose elements `element` reads one by one."""
    pattern = (
        "CASE WHEN {v} IS NOT NULL THEN ARRAY(SELECT {e} "
        "FROM json_array_elements_text({v}::json) WITH ORDINALITY AS e(v, n) ORDER BY e.n) END"
    )
    one = element(sql.Identifier("e", "v"))
    return lambda value: sql.SQL(pattern).format(v=value, e=one)


def either_array(flat: Builder, element: sql.Composable) -> Builder:
    """The event's JSON array by `flat`, or PostgreSQL's own text: that alone ends with a brace."""
    pattern = "CASE WHEN right({v}, 1) = '}}' THEN {v}::{t}[] ELSE {f} END"
    return lambda value: sql.SQL(pattern).format(v=value, t=element, f=flat(value))


def odd_array(column: sql.Composable) -> sql.Composable:
    """Whether an array is more than a list: several dimensions, or bounds of its own."""
    return sql.SQL("array_ndims({0}) > 1 OR array_lower({0}, 1) <> 1").format(column)


def midnight(column: sql.Composable) -> sql.Composable:
    """Whether a time is the end of the day, which events write as its beginning."""
    return sql.SQL("{} = time '24:00:00'").format(column)
