"""Every type with its edges, every kind of identifier: what a database of the field may hold.

Values are SQL expressions. Each list begins with an everyday value; NULL goes without saying.
"""

from __future__ import annotations

from dataclasses import dataclass

EXTENSIONS = ("hstore", "citext", "ltree", "cube")

TYPES = """
CREATE SCHEMA "ty.pes";
CREATE TYPE "ty.pes"."Mo.od" AS ENUM ('so so', 'happy "x"');
CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'it''s "fine", {ok}');
CREATE DOMAIN public.posint AS int CHECK (value > 0);
CREATE DOMAIN public.label AS varchar(20) NOT NULL;
CREATE DOMAIN public.tags AS text[];
CREATE TYPE public.pair AS (n int, t text);
CREATE TYPE public.nest AS (p public.pair, a int[], at timestamptz, z timetz);
CREATE TYPE public.floatrange AS RANGE (subtype = float8);
"""

_LONG_NUMBER = "9" * 600 + "." + "123456789" * 45


@dataclass(frozen=True)
class Kind:
    """A type and values of it; `arrays` as well unless there is no such array."""

    type: str
    values: tuple[str, ...]
    arrays: bool = True


def kind(type_: str, *values: str, arrays: bool = True) -> Kind:
    """Values are texts of the type; one that begins with = is an SQL expression behind that."""
    return Kind(
        type_,
        tuple(v[1:] if v[:1] == "=" else "'" + v.replace("'", "''") + "'" for v in values),
        arrays,
    )


_TEXTS = (
    "plain", "", " ", "tab\tnew\nline\rback\\slash", "it's", 'quo"te', "{a,b}", "NULL",
    "\\N", "ünïcödé 日本語 \U0001f600", "__debezium_unavailable_value", "null", "\x01\x7f",
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    kind("smallint", "1", "-32768", "32767"),
    kind("int", "1", "-2147483648", "2147483647", "0"),
    kind("bigint", "1", "-9223372036854775808", "9223372036854775807"),
    kind("real", "1.5", "NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1e-45", "0.1"),
    kind("double precision", "1.5", "NaN", "Infinity", "-Infinity", "-0", "5e-324",
         "1.7976931348623157e308", "0.1", "1e22", "123456789012345680"),
    kind("numeric", "1.5", "NaN", "Infinity", "-Infinity", "0", "0.000", "1.2300", "-0.00",
         "1e-30", "1e30", _LONG_NUMBER),
    kind("numeric(10,2)", "1.50", "-99999999.99", "0"),
    kind("numeric(5,-2)", "12300", "-9999900"),
    kind("money", "1.50", "-92233720368547758.08", "92233720368547758.07"),
    kind("boolean", "true", "false"),
    kind("char(5)", "ab", "", "abcde", "é"),
    kind("varchar(20)", *_TEXTS[:6]),
    kind("text", *_TEXTS),
    kind('"char"', "a", "", "\\", "\\351"),
    kind("name", "a name", "", 'Quo"ted'),
    kind("bytea", "\\x00ff", "", "=(SELECT decode(string_agg(lpad(to_hex(n), 2, '0'), ''), 'hex')"
         " FROM generate_series(0, 255) AS n)"),
    kind("date", "2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC",
         "5874897-12-31", "0001-01-01", "0001-12-31 BC", "10000-01-01", "1582-10-10"),
    kind("time", "12:34:56.123456", "24:00:00", "00:00:00", "23:59:59.999999", "01:00:00.1"),
    kind("time(0)", "12:34:56", "24:00:00"),
    kind("timetz", "12:34:56.123456+05:30", "24:00:00-15:59", "00:00:00+15:59", "12:00:00+00",
         "12:00:00+05:30:17"),
    kind("timestamp", "2024-02-29 12:00:00.123456", "infinity", "-infinity",
         "294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "0044-03-15 01:02:03.4 BC",
         "1969-12-31 23:59:59.999999", "10000-01-01 00:00:00", "0001-01-01 00:00:00",
         "1582-10-10 10:10:10", "2024-01-01 00:00:00.1"),
    kind("timestamp(3)", "2024-02-29 12:00:00.123"),
    kind("timestamptz", "2024-02-29 12:00:00.123456+05:30", "infinity", "-infinity",
         "294276-12-31 23:59:59.999999+00", "4714-11-24 00:00:00+00 BC",
         "0044-03-15 01:02:03.4+00 BC", "1900-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
    kind("interval", "1 day", "1 year 2 mons 3 days 04:05:06.789012",
         "-1 mons +5 days -00:00:00.5", "178000000 years", "-178000000 years", "0",
         "-00:00:00.000001", "25:00:00", "1 mon -30 days", "-1 year -2 mons -3 days -04:05:06.7",
         "2562047788:00:54.775807", "14 mons -23:59:59.999999", "infinity", "-infinity"),
    kind("interval year to month", "1 year 2 mons"),
    kind("interval(0)", "1 day 00:00:01"),
    kind("uuid", "9f0c1d2e-3b4a-4c5d-8e6f-708192a3b4c5", "00000000-0000-0000-0000-000000000000"),
    kind("json", '{"a": 1}', "null", '{"b":  1,"a":2, "a":3}', '"text"', "1e400",
         '{"n": 12345678901234567890.1234567890}', '["\\u00e9", "日本"]', "[]", " [1] "),
    kind("jsonb", '{"a": 1}', "null", '{"b": 1, "a": 2}', '"text"', "1.000",
         '{"n": 12345678901234567890.1234567890}', '["é", "\\\\", "日本\\n"]', "{}", "false"),
    kind("inet", "10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::/32", "0.0.0.0/0"),
    kind("cidr", "10.0.0.0/8", "::/0", "2001:db8::/32"),
    kind("macaddr", "08:00:2b:01:02:03"),
    kind("macaddr8", "08:00:2b:01:02:03:04:05"),
    kind("bit(1)", "1", "0"),
    kind("bit(3)", "101", "000", "001"),
    kind("bit(8)", "00000001", "10000000", "00000000", "11111111"),
    kind("bit(70)", "=('1' || repeat('0', 68) || '1')", "=repeat('0', 70)", "=repeat('1', 70)"),
    kind("varbit", "00010", "", "1", "=repeat('01', 50)"),
    kind("varbit(70)", "00010", "", "0"),
    kind("public.mood", "sad", 'it\'s "fine", {ok}'),
    kind('"ty.pes"."Mo.od"', "so so", 'happy "x"'),
    kind("public.posint", "7"),
    kind("public.label", "a label", ""),
    kind("public.tags", "{a,b}", "{{a,b},{c,NULL}}", "{}", "[0:1]={x,y}"),
    kind("public.pair", "(1,x)", "(,)", '(2,"a, ""b"" \\\\ c")', '(3,"")'),
    kind("public.nest", '("(1,x)","{1,2}","2024-01-01 00:00:00+00","12:00:00+05")',
         '(,"{{1,2},{3,4}}",infinity,24:00:00-15:59)'),
    kind("int4range", "[1,5)", "empty", "(,)", "[3,)"),
    kind("int8range", "[1,5)", "empty"),
    kind("numrange", "[1.50,2]", "(,2.0)", "empty", "[-Infinity,NaN]"),
    kind("tsrange", '["2024-01-01 00:00:00.1","2024-02-01 00:00:00")', "empty", "[,infinity]"),
    kind("tstzrange", '["2024-01-01 00:00:00+02",)', "empty"),
    kind("daterange", "[2024-01-01,2024-02-01)", "[,infinity)", '["0044-03-15 BC",2024-01-01)'),
    kind("public.floatrange", "[1.5,2.5)", "[-0,NaN]", "empty"),
    kind("int4multirange", "{[1,3),[5,7)}", "{}"),
    kind("nummultirange", "{[1.0,3.00)}", "{}"),
    kind("tstzmultirange", '{["2024-01-01 00:00:00+00",)}'),
    kind("datemultirange", "{[2024-01-01,2024-02-01)}"),
    kind("public.floatmultirange", "{[1.5,2.5)}"),
    kind("public.hstore", "a=>1", '"a b"=>NULL, "c"=>"d\\"e\\\\"', "", "a=>NULL,b=>\"NULL\""),
    kind("public.citext", "MiXed", "", "ÄÖ"),
    kind("public.ltree", "a.b.c", ""),
    kind("public.cube", "(1, 2),(3, 4)", "(1)"),
    kind("tsvector", "'fat':2A 'cat':3", "", "'a ''quoted'' one':1"),
    kind("tsquery", "fat & (cat | !dog)", "'super':*AB"),
    kind("point", "(1.5,-2)", "(NaN,Infinity)", "(-0,1e-300)"),
    kind("line", "{1,-1,0.5}", "{0,1,-0}"),
    kind("lseg", "[(1,2),(3.5,4)]"),
    kind("box", "(3,4),(1,2)"),
    kind("path", "[(1,2),(3,4)]", "((1,2),(3,4),(5,6))"),
    kind("polygon", "((1,2),(3,4),(5,6))"),
    kind("circle", "<(1,2),3.5>"),
    kind("pg_lsn", "16/B374D848", "0/0", "FFFFFFFF/FFFFFFFF"),
    kind("oid", "0", "4294967295"),
    kind("xid", "7"),
    kind("xid8", "18446744073709551615"),
    kind("pg_snapshot", "10:20:10,14"),
    kind("regclass", "pg_class", "pg_catalog.pg_type"),
    kind("regtype", "int4", "public.mood", "numeric"),
    kind("jsonpath", '$."a"[*]?(@ > 1)'),
    kind("refcursor", "a cursor", ""),
    kind("int2vector", "1 2 3", "", arrays=False),
    kind("oidvector", "1 2 3", arrays=False),
    kind("xml", "<a>b &amp; c</a>", "text", "<é/>"),
)  # fmt: skip


def arrays_of(one: Kind) -> Kind:
    """Arrays with a NULL, empty, of two dimensions, with bounds of their own, and plain."""
    first, last = f"{one.values[0]}::{one.type}", f"{one.values[-1]}::{one.type}"
    element = one.type
    nothing = "NULL" if one.type != "public.label" else first
    return Kind(
        f"{element}[]",
        (
            f"ARRAY[{first}, {last}]",
            f"ARRAY[{nothing}, {last}]",
            f"ARRAY[{first}, {nothing}]",
            "'{}'",
            f"ARRAY[[{first}, {last}], [{nothing}, {first}]]",
            f"('[-3:-2]=' || ARRAY[{first}, {last}]::text)",
            "ARRAY[" + ", ".join(f"{value}::{one.type}" for value in one.values) + "]",
        ),
        arrays=False,
    )


def kinds(has_xml: bool) -> list[Kind]:
    """All types and their arrays."""
    plain = [one for one in KINDS if has_xml or one.type != "xml"]
    return plain + [arrays_of(one) for one in plain if one.arrays]


RESERVED = (
    "select", "from", "where", "table", "user", "order", "group", "primary", "check", "default",
    "all", "and", "any", "array", "as", "case", "cast", "collate", "column", "constraint",
    "current_date", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign",
    "grant", "having", "in", "initially", "intersect", "into", "leading", "limit", "localtime",
    "new", "not", "null", "off", "offset", "old", "on", "only", "or", "placing", "references",
    "returning", "session_user", "some", "symmetric", "then", "to", "trailing", "true", "union",
    "unique", "using", "variadic", "when", "window", "with", "kept", "op", "id", "t", "s",
    "excluded",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How tables and columns are called; `column` makes the name of a column number."""

    schema: str
    table: str
    pattern: str

    def column(self, number: int) -> str:
        if not self.pattern:
            return RESERVED[number] if number < len(RESERVED) else f"select {number}"
        return self.pattern.format(n=number)


# Two tables become one topic under the connector's naming, and two differ by their case only.
STYLES = (
    Style("plain", "items", "c{n}"),
    Style("with space", "my  items ", " a b {n}"),
    Style('quo"te', 'it"ems""', "c{n}"),
    Style("quote", "items", 'c"{n}"'),
    Style("dot.ted", "it.ems", "c.{n}"),
    Style("dot", "ted.it.ems", "c..{n}"),
    Style("Upper", "ITEMS", "Col{n}"),
    Style("Upper", "items", "COL{n}"),
    Style("größe_日本", "таблица_🙂", "spalte_ß_{n}"),
    Style("select", "table", ""),
    Style("s" * 63, "t" * 63, "c" * 60 + "{n:03}"),
    Style("odd,\\(signs)", "%s{}'$1;--", "a\\,%{n}*[]'|$"),
)
