"""Random templates for comparison with Jinja2. Mostly well typed, so that most of them render.

Left out on purpose, because Tern differs there: integers beyond 64 bits (refused), Markup strings of
the filters safe and escape (plain strings), slices of constants that can't be sliced (an error; Jinja's
optimizer makes them undefined), and the printed form of what Python prints with an address.
"""
import random

VARIABLES = {
    "n": 7,
    "neg": -3,
    "big": 1234567890123,
    "f": 2.5,
    "tiny": 1e-7,
    "huge": 1.5e17,
    "t": True,
    "none_value": None,
    "s": "Hello, World",
    "empty": "",
    "u": "Grüße ǅ ΣΑΣ ﬁ 日本 👩‍👧 İ ß\u00a0\u2028x",
    "w": "  padded\t\n",
    "lines": "one\ntwo\r\n\n  three\u2028four\n",
    "html": "<a href='x'>\"&\"</a>",
    "words": ["pear", "Apple", "fig", "apple", "Öl"],
    "nums": [3, 1, 2, 2, -1, 10],
    "mixed": [1, "a", None, 2.0, [1, 2], {"k": "v"}, True, ""],
    "people": [
        {"name": "Bo", "age": 30, "tags": ["x", "y"], "a": {"b": 2}},
        {"name": "al", "age": 25, "tags": [], "a": {"b": 1}},
        {"name": "Cy", "age": 30, "tags": ["z"], "a": {"b": 3}, "items": 1},
    ],
    "d": {"b": 1, "A": 2, "c": [1, {"x": None}], "items": "shadow", "key with space": 0.1},
    "nested": [[1, 2], [3, 4], [5, 6]],
    "no_list": [],
    "no_dict": {},
}

INTS = ["n", "neg", "0", "1", "2", "5", "t", "nums[1]", "d.b", "s|length", "nums|sum", "0x1F"]
FLOATS = ["f", "tiny", "huge", "0.1", "3.0", "1e3", "d['key with space']", "7 / 2", "2.675", "1.5e16"]
STRINGS = ["s", "empty", "u", "w", "lines", "html", "'a'", '"it\'s"', "'x\\ty\\\\'", "words[0]",
           "people[1].name", "'abcabc'", "'é🎉'", "d['items']", "'42'", "' 3.5 '", "'%s|%r'"]
LISTS = ["words", "nums", "mixed", "nested", "no_list", "people", "[1, 'b', f]", "('t', 1)",
         "range(5)", "d.c", "[none, true]", "people[0].tags", "range(9, 0, -2)"]
DICTS = ["d", "no_dict", "people[0]", "{'x': 1, 2: 'two'}", "{'q': [n, s], 'r': {'z': none}}"]
ANY_TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence",
             "boolean", "integer", "float", "true", "false", "callable", "sameas none",
             "in [1, 'a', 2.5]", "eq 1", "equalto 'a'", "ne none"]
STRING_FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "wordcount",
                  "string", "reverse", "first", "last", "list", "center(21)", "replace('a', 'bb')",
                  "replace('', '-', 3)", "indent(2)", "indent('>', true, true)", "truncate(8)",
                  "truncate(6, true, '!')", "int", "float", "int(default=-1)", "default('x', true)",
                  "tojson", "urlencode", "trim('aHd')", "batch(3)|list",
                  "tojson(ensure_ascii=true)", "join('.')", "unique|list", "sort|join",
                  "select('lower')|list", "map('upper')|join", "format", "length|string"]
STRING_METHODS = ["strip()", "lstrip()", "rstrip()", "strip(' Ho')", "upper()", "lower()", "title()",
                  "capitalize()", "swapcase()", "split()", "split(' ')", "split('a', 1)",
                  "rsplit(None, 1)", "rsplit('e', 2)", "splitlines()", "splitlines(true)",
                  "startswith('H')", "endswith(('d', 'x'))", "replace('l', 'L')",
                  "replace('l', '', 1)", "find('o')", "rfind('o')", "find('o', 5)", "count('l')",
                  "count('')", "join(['a', 'b'])", "isdigit()", "isalpha()", "isalnum()",
                  "isspace()", "isupper()", "islower()", "istitle()", "isnumeric()",
                  "zfill(15)", "center(15, '*')", "ljust(14)", "rjust(14, '.')", "partition('o')",
                  "rpartition('o')", "removeprefix('He')", "removesuffix('d')", "casefold()",
                  "expandtabs(4)", "index('')", "isidentifier()", "isascii()", "isprintable()",
                  "find('', 3)", "rfind('', 0, 2)", "find('l', -4)", "count('l', 2, 4)"]
LIST_FILTERS = ["length", "first", "last", "list", "join", "join(', ')", "sum", "sort", "sort(true)",
                "sort(case_sensitive=true)", "reverse|list", "unique|list", "max", "min",
                "map('string')|list", "map('length')|list", "map('upper')|join('|')",
                "select|list", "reject|list", "select('string')|list", "reject('number')|list",
                "select('in', [1, 'fig', 2.0])|list", "batch(2)|list", "batch(4, 'x')|list",
                "slice(3)|list", "slice(2, 'f')|list", "tojson", "tojson(indent=2)", "string",
                "map(attribute='name')|list", "map(attribute='a.b', default=0)|list",
                "selectattr('name')|list", "selectattr('age', 'gt', 26)|map(attribute='name')|list",
                "rejectattr('age', 'equalto', 30)|list", "sort(attribute='age,name')|list",
                "groupby('age')", "groupby('age')|map(attribute='list')|map('length')|list",
                "sum(attribute='age')", "map('first')|list", "max(attribute='age')", "count",
                "tojson(separators=(',', ':'))", "join('-', attribute='name')", "unique|join",
                "map('default', 'z')|list", "sum(start=2)", "default('none given')",
                "map('int')|sum", "map('float')|list", "select('odd')|list", "map('trim')|list"]
DICT_FILTERS = ["length", "items|list", "list", "dictsort", "dictsort(by='value')|list", "first",
                "dictsort(reverse=true)", "dictsort(true)", "tojson", "tojson(indent=4)", "string",
                "tojson(sort_keys=true)", "join(',')", "map('upper')|list", "sort", "urlencode",
                "last", "reverse|list", "tojson(indent=1, separators=(', ', ' : '))"]
DICT_METHODS = ["keys()", "values()", "items()", "get('b')", "get('zz')", "get('zz', 3)",
                "items()|list", "keys()|list|sort", "copy()", "items()|length", "b", "zz", "x",
                "update({})", "pop('b')", "values()|list", "get('items')", "keys()|sort|first"]
SLICES = ["[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "[1:3]", "[-3:-1]", "[::2]", "[4:0:-2]", "[99]",
          "[:99]", "[5:2]", "[-99:2]", "[:]", "['x']", "[:n]", "[::-3]", "[none:2]"]
SPECS = ["%s", "%d", "%5d|", "%-6s|", "%05.2f", "%x", "%r", "%e", "%g", "%+d", "%%%s", "%c", "%.3s",
         "% d", "%#x", "%i", "%10.3e|", "%G", "%o"]
BRACES = ["{}", "{:>8}|", "{:<6}|", "{:^9}|", "{:*^9}|", "{!r}", "{!s:>5}", "{:d}", "{:,}", "{:.2f}",
          "{:08.3f}", "{:x}", "{:#b}", "{:e}", "{:g}", "{:%}", "{:+}", "{0}{0}", "{{}}{}", "{:_}",
          "{:.3}", "{:5}", "{:=+7}", "{:.0f}", "{:010}", "{0!r:>12}", "{:o}", "{:c}"]


class Grammar:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = 0

    def pick(self, choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    def integer(self, depth):
        if depth <= 0 or self.chance(0.3):
            return self.pick(INTS)
        kind = self.random.randrange(6)
        if kind == 0:
            op = self.pick(["+", "-", "*", "//", "%"])
            return f"({self.integer(depth - 1)} {op} {self.integer(depth - 1)})"
        if kind == 1:
            return f"({self.sequence(depth - 1)})|length"
        if kind == 2:
            return f"-{self.pick(INTS)}"
        if kind == 3:
            return f"({self.pick(INTS)} ** {self.pick(['0', '1', '2', '3'])})"
        if kind == 4:
            return f"({self.number(depth - 1)})|round|int"
        return f"({self.integer(depth - 1)})|abs"

    def number(self, depth):
        if depth <= 0 or self.chance(0.3):
            return self.pick(INTS + FLOATS)
        kind = self.random.randrange(5)
        if kind == 0:
            op = self.pick(["+", "-", "*", "/", "//", "%"])
            return f"({self.number(depth - 1)} {op} {self.number(depth - 1)})"
        if kind == 1:
            return f"({self.number(depth - 1)})|round({self.pick(['', '1', '2', '-1', '3', chr(48)])})"
        if kind == 2:
            method = self.pick(["ceil", "floor", "common"])
            return f"({self.pick(FLOATS)})|round({self.pick(['0', '1', '2'])}, '{method}')"
        if kind == 3:
            return f"({self.text(depth - 1)})|float({self.pick(['', '1.5'])})"
        return self.integer(depth - 1)

    def text(self, depth):
        if depth <= 0 or self.chance(0.25):
            return self.pick(STRINGS)
        kind = self.random.randrange(8)
        if kind == 0:
            return f"({self.text(depth - 1)} + {self.text(depth - 1)})"
        if kind == 1:
            return f"({self.any(depth - 1)} ~ {self.any(depth - 1)})"
        if kind == 2:
            return f"(({self.text(depth - 1)})|string){self.pick(SLICES)}"
        if kind == 3:
            return f"({self.text(depth - 1)} * {self.pick(['0', '2', '3', '-1'])})"
        if kind == 4:
            return f"({self.text(depth - 1)})|{self.pick(STRING_FILTERS)}"
        if kind == 5:
            return f"({self.text(depth - 1)}).{self.pick(STRING_METHODS)}"
        if kind == 6:
            value = self.number(depth - 1) if self.chance(0.6) else self.text(depth - 1)
            return f"('{self.pick(SPECS)}' % ({value}))"
        value = self.number(depth - 1) if self.chance(0.6) else self.text(depth - 1)
        return f"'{self.pick(BRACES)}'.format({value})"

    def sequence(self, depth):
        if depth <= 0 or self.chance(0.35):
            return self.pick(LISTS)
        kind = self.random.randrange(5)
        if kind == 0:
            return f"[{self.any(depth - 1)}, {self.any(depth - 1)}]"
        if kind == 1:
            return f"(({self.sequence(depth - 1)})|list){self.pick(SLICES)}"
        if kind == 2:
            return f"(({self.sequence(depth - 1)})|list + ({self.sequence(depth - 1)})|list)"
        if kind == 3:
            return f"({self.sequence(depth - 1)})|{self.pick(LIST_FILTERS)}"
        return f"({self.any(depth - 1)}, {self.any(depth - 1)})"

    def mapping(self, depth):
        if depth <= 0 or self.chance(0.6):
            return self.pick(DICTS)
        return f"{{{self.text(0)}: {self.any(depth - 1)}, 'y': {self.any(depth - 1)}}}"

    def boolean(self, depth):
        kind = self.random.randrange(7)
        if depth <= 0:
            return self.pick(["true", "false", "t", "n", "none", "missing", "empty"])
        if kind == 0:
            op = self.pick(["==", "!=", "<", "<=", ">", ">="])
            return f"{self.number(depth - 1)} {op} {self.number(depth - 1)}"
        if kind == 1:
            op = self.pick(["==", "!=", "<", ">", "in", "not in"])
            return f"{self.text(depth - 1)} {op} {self.text(depth - 1)}"
        if kind == 2:
            op = self.pick(["in", "not in"])
            return f"{self.any(depth - 1)} {op} {self.sequence(depth - 1)}"
        if kind == 3:
            negation = self.pick(["", "not "])
            return f"({self.any(depth - 1)}) is {negation}{self.pick(ANY_TESTS)}"
        if kind == 4:
            op = self.pick(["and", "or"])
            return f"({self.boolean(depth - 1)} {op} {self.any(depth - 1)})"
        if kind == 5:
            return f"not {self.boolean(depth - 1)}"
        return f"{self.number(0)} < {self.number(0)} <= {self.number(0)}"

    def any(self, depth):
        kind = self.random.randrange(11)
        if kind < 2:
            return self.number(depth)
        if kind < 5:
            return self.text(depth)
        if kind < 7:
            return self.sequence(depth)
        if kind == 7:
            return f"({self.mapping(depth)}){self.pick(['|', '|', '.'])}".replace(")|", ")|") + (
                self.pick(DICT_FILTERS)) if self.chance(0.5) else self.mapping(depth)
        if kind == 8:
            return f"({self.mapping(depth)}).{self.pick(DICT_METHODS)}"
        if kind == 9:
            return f"({self.any(depth - 1)} if {self.boolean(depth - 1)} else {self.any(depth - 1)})" \
                if depth > 0 else "missing"
        return f"({self.boolean(depth)})"

    def tag(self, content):
        left, right = self.pick(["", "", "", "-", "+"]), self.pick(["", "", "", "-", "+"])
        return f"{{%{left} {content} {right}%}}"

    def output(self):
        left, right = self.pick(["", "", "-"]), self.pick(["", "", "-"])
        return f"{{{{{left} {self.any(3)} {right}}}}}"

    def blank(self):
        return self.pick(["", " ", "\n", "  \n  ", "text", "\t", " a \n", "\n\n", "é "])

    def name(self):
        return self.pick(["x", "y", "z", "n", "s"])

    def body(self, depth):
        return "".join(self.blank() + self.statement(depth) for _ in range(self.random.randrange(1, 4)))

    def loop_part(self):
        return self.pick(["{{ loop.index }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.revindex0 }}",
                          "{{ loop.length }}", "{{ loop.previtem }}|{{ loop.nextitem }}",
                          "{{ loop.cycle('a', 'b') }}", "{{ loop.changed(x) }}", "{{ x }}",
                          "{% if loop.index > 2 %}{% break %}{% endif %}",
                          "{% if loop.index0 is odd %}{% continue %}{% endif %}", ""])

    def statement(self, depth):
        kind = self.random.randrange(14) if depth > 0 else self.random.randrange(4)
        if kind < 4:
            return self.output()
        if kind == 4:
            middle = self.tag(f"elif {self.boolean(2)}") + self.body(depth - 1) if self.chance(0.3) else ""
            other = self.tag("else") + self.body(depth - 1) if self.chance(0.5) else ""
            return (self.tag(f"if {self.boolean(2)}") + self.body(depth - 1) + middle + other
                    + self.tag("endif"))
        if kind in (5, 6):
            condition = f" if {self.boolean(1)}" if self.chance(0.3) else ""
            target, values = self.pick([("x", self.sequence(2)), ("x", self.sequence(1)),
                                        ("x, y", "d.items()"), ("x, y", "nested"),
                                        ("x", self.text(1)), ("x", self.mapping(1))])
            other = self.tag("else") + self.body(depth - 1) if self.chance(0.3) else ""
            return (self.tag(f"for {target} in {values}{condition}") + self.loop_part()
                    + self.body(depth - 1) + self.loop_part() + other + self.tag("endfor"))
        if kind == 7:
            return self.tag(f"set {self.name()} = {self.any(2)}") + "{{ x }}{{ y }}"
        if kind == 8:
            chain = self.pick(["", " | upper", " | trim | length"])
            return self.tag(f"set {self.name()}{chain}") + self.body(depth - 1) + self.tag("endset")
        if kind == 9:
            self.names += 1
            macro = f"m{self.names}"
            call = self.pick([f"{macro}(1)", f"{macro}(x, y=2)", f"{macro}(y='k', x=3)", f"{macro}()"])
            return (self.tag(f"macro {macro}(x, y={self.any(1)}, z=x)") + self.body(depth - 1)
                    + self.pick(["{{ x }}{{ y }}{{ z }}", "{{ varargs }}{{ kwargs }}", ""])
                    + self.tag("endmacro") + f"[{{{{ {call} }}}}]")
        if kind == 10:
            self.names += 1
            macro = f"m{self.names}"
            return (f"{{% macro {macro}(q) %}}<{{{{ q }}}}{{{{ caller({self.any(1)}) }}}}>{{% endmacro %}}"
                    + self.tag(f"call(x) {macro}({self.any(1)})") + self.body(depth - 1) + "{{ x }}"
                    + self.tag("endcall"))
        if kind == 11:
            return (self.tag(f"filter {self.pick(['upper', 'trim', 'indent(1)', 'replace(1, 2)'])}")
                    + self.body(depth - 1) + self.tag("endfilter"))
        if kind == 12:
            return (self.tag(f"with x = {self.any(1)}, y = {self.any(1)}") + self.body(depth - 1)
                    + "{{ x }}" + self.tag("endwith"))
        return ("{% set ns = namespace(v=0, w=[]) %}" + self.tag(f"for x in {self.sequence(1)}")
                + "{% set ns.v = ns.v + 1 %}{% set ns.w = ns.w + [x] %}" + self.body(depth - 1)
                + self.tag("endfor") + "{{ ns.v }}{{ ns.w }}"
                + self.pick(["", "{# note #}", "{% raw %}{{ x }}{% endraw %}", "{#- strip -#}",
                             "{% generation %}{{ ns.v }}{% endgeneration %}"]))


def generate(seed, count):
    """Yields (template, variables)."""
    grammar = Grammar(seed)
    for index in range(count):
        if index % 3 != 0:
            yield "|".join(f"{{{{ {grammar.any(3)} }}}}" for _ in range(1)), VARIABLES
        else:
            yield grammar.body(3) + grammar.blank(), VARIABLES
