"""Random regular expressions and grammars that Python's re can judge, from a seed."""

ATOMS = ["a", "b", "é", "日", "\\d", "\\w", "\\s", "[a-c]", "[^a-y\\n\\r]", "[\\d_]", "\\.", "\\x41",
         "\\u00e9", "x", "0", " ", "[-+]", "\\-", "🎉", "\"", "\\\\", "\\t"]
TEXTS = "abcxé日0 9_.A\"\\\t-+zZ🎉"


def pattern(r, depth=0):
    kind = r.randrange(6 if depth < 3 else 2)
    if kind < 2:
        return r.choice(ATOMS)
    if kind < 4:
        return "".join(pattern(r, depth + 1) for _ in range(r.randint(1, 3)))
    if kind == 4:
        return "(?:" + "|".join(pattern(r, depth + 1) for _ in range(r.randint(1, 3))) + ")"
    suffix = r.choice(["*", "+", "?", "{2}", "{1,}", "{0,3}", "{2,40}", "*?"])
    return "(" + pattern(r, depth + 1) + ")" + suffix


def text(r):
    return "".join(r.choice(TEXTS) for _ in range(r.randrange(7)))


def gbnf(r):
    """A grammar without recursion and the regular expression that says the same."""
    rules = []

    def quote(literal):
        out = ""
        for c in literal:
            out += {"\"": "\\\"", "\\": "\\\\", "\t": "\\t", "\n": "\\n"}.get(c, c)
        return '"' + out + '"'

    def node(depth):
        import re
        kind = r.randrange(7 if depth < 3 else 2)
        if kind == 0:
            literal = "".join(r.choice(TEXTS) for _ in range(r.randint(1, 3)))
            return quote(literal), re.escape(literal)
        if kind == 1:
            source, regex = r.choice([("[a-c]", "[a-c]"), ("[^a-z]", "[^a-z]"), (".", "[\\s\\S]"),
                                      ("[\\x41\\u00e9]", "[Aé]"), ("[-+]", "[-+]"), ("[\\]]", "\\]")])
            return source, regex
        if kind < 4:
            parts = [node(depth + 1) for _ in range(r.randint(1, 3))]
            return "(" + " ".join(p[0] for p in parts) + ")", "(?:" + "".join(p[1] for p in parts) + ")"
        if kind == 4:
            parts = [node(depth + 1) for _ in range(r.randint(2, 3))]
            return "(" + " |\n ".join(p[0] for p in parts) + ")", "(?:" + "|".join(p[1] for p in parts) + ")"
        if kind == 5:
            source, regex = node(depth + 1)
            suffix = r.choice(["*", "+", "?", "{2}", "{1,}", "{0,3}", "{2,40}"])
            return f"({source}){suffix}", f"(?:{regex}){suffix}"
        source, regex = node(depth + 1)
        name = f"rule-{len(rules)}"
        rules.append(f"{name} ::= {source} # a comment")
        return name, f"(?:{regex})"

    source, regex = node(0)
    return "\n".join([f"root ::= {source}"] + rules) + "\n", regex
