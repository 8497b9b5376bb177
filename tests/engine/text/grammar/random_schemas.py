"""Random JSON Schemas with valid instances, from a seed. Each schema is what
docs/structured_output.md promises to support, and each instance is written within its rules:
members in the schema's order, compact or as json.dumps writes it."""
import string

WORDS = ["id", "name", "größe", "a b", "x\"y", "items", "value", "日本", "tags", "n", "note", "ok"]
PATTERNS = [
    ("^[a-z]{2,5}$", lambda r: letters(r, 2, 5)),
    ("^(red|green|blue)-[0-9]{1,3}$", lambda r: r.choice(["red", "green"]) + "-" + str(r.randrange(999))),
    ("[0-9]+", lambda r: letters(r, 0, 4) + str(r.randrange(100)) + letters(r, 0, 3)),
    ("^\\w+\\s\\w+$", lambda r: letters(r, 1, 4) + " " + letters(r, 1, 4)),
    ("^[^\"\\\\]*$", lambda r: letters(r, 0, 6) + r.choice(["", "é", "\t", "/", "🎉"])),
    ("^A|Z$", lambda r: r.choice(["A" + letters(r, 0, 3), letters(r, 0, 3) + "Z"])),
]
FORMATS = {
    "date": lambda r: r.choice(["2024-02-29", "1999-12-31", "2023-04-30", "0001-01-01"]),
    "time": lambda r: r.choice(["23:59:59Z", "00:00:00.25+05:30"]),
    "date-time": lambda r: "2024-02-29T12:00:00Z",
    "duration": lambda r: r.choice(["P3D", "PT5M", "P1Y2M3DT4H5M6S", "P4W"]),
    "email": lambda r: letters(r, 1, 6) + "@example.org",
    "hostname": lambda r: letters(r, 1, 6) + ".example.org",
    "ipv4": lambda r: ".".join(str(r.randrange(256)) for _ in range(4)),
    "ipv6": lambda r: r.choice(["::1", "2001:db8::ff00:42:8329", "1:2:3:4:5:6:7:8", "::"]),
    "uuid": lambda r: "123e4567-e89b-12d3-a456-426614174000",
    "uri": lambda r: "https://example.org:8080/a/b?c=d#e",
}


def letters(r, low, high):
    return "".join(r.choice(string.ascii_lowercase) for _ in range(r.randint(low, high)))


class Generator:
    def __init__(self, random):
        self.r = random
        self.definitions = {}

    def schema(self):
        """A schema and a function that makes a valid instance of it."""
        made, instance = self.any(0)
        made = dict(made) if isinstance(made, dict) else {"anyOf": [made]}
        if self.definitions:
            made["$defs"] = {name: entry[0] for name, entry in self.definitions.items()}
        if self.r.random() < 0.3:
            made["title"] = "random"
            made["description"] = "a random schema"
        return made, instance

    def any(self, depth):
        r = self.r
        kinds = [self.string] * 3 + [self.integer] * 2 + [self.number, self.boolean, self.null,
                                                        self.enum, self.const]
        if depth < 4:
            kinds += [self.object] * 5 + [self.array] * 3 + [self.union, self.all_of, self.types,
                                                            self.reference, self.recursive, self.one_of]
        return r.choice(kinds)(depth)

    def string(self, depth):
        r = self.r
        kind = r.randrange(5)
        if kind == 0:
            return {"type": "string"}, lambda: r.choice(["", "plain", "é\"\\/\n\u0001🎉", "x" * 40])
        if kind == 1:
            low = r.randrange(4)
            high = low + r.randrange(1, r.choice([5, 300]))
            made = {"type": "string", "minLength": low, "maxLength": high}
            return made, lambda: "".join(r.choice("abé🎉\"\\\n ") for _ in range(r.randint(low, high)))
        if kind == 2:
            pattern, make = r.choice(PATTERNS)
            return {"type": "string", "pattern": pattern}, lambda: make(r)
        if kind == 3:
            name = r.choice(list(FORMATS))
            return {"type": "string", "format": name}, lambda: FORMATS[name](r)
        pattern, make = r.choice(PATTERNS[:4])
        return ({"type": "string", "pattern": pattern, "minLength": 1, "maxLength": 12},
                lambda: make(r))

    def integer(self, depth):
        r = self.r
        made = {"type": "integer"}
        low, high = -10**17, 10**17
        if r.random() < 0.6:
            low = r.choice([-1000, -7, 0, 1, 17, 12345])
            key = r.choice(["minimum", "exclusiveMinimum"])
            made[key] = low - (key == "exclusiveMinimum")
        if r.random() < 0.6:
            high = max(low, -1000) + r.choice([0, 3, 90, 10**6])
            key = r.choice(["maximum", "exclusiveMaximum"])
            made[key] = high + (key == "exclusiveMaximum")
        step = 1
        if r.random() < 0.2 and high - low > 20:
            step = made["multipleOf"] = r.choice([2, 3, 5, 7])
        def instance():
            return r.randint(-(-low // step), high // step) * step
        return made, instance

    def number(self, depth):
        r = self.r
        kind = r.randrange(3)
        if kind == 0:
            return {"type": "number"}, lambda: r.choice([0, -1.5, 2.5e-7, 1e20, 123456.789, 3])
        low = r.choice([-12.5, -1, 0, 0.25, 7])
        high = low + r.choice([0.5, 1.75, 3, 1000])
        if kind == 1:
            return {"type": "number", "minimum": low, "maximum": high}, lambda: r.choice(
                [low, high, round(r.uniform(low, high), 3)])
        return ({"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high},
                lambda: low + (high - low) * r.choice([0.25, 0.5, 0.75]))

    def boolean(self, depth):
        return {"type": "boolean"}, lambda: self.r.random() < 0.5

    def null(self, depth):
        return {"type": "null"}, lambda: None

    def enum(self, depth):
        values = self.r.sample(["a", "b\"c", "é", "", 1, 2.5, -3, True, None, "long " * 5, [1, "x"],
                                {"k": [None]}], self.r.randint(1, 6))
        return {"enum": values}, lambda: self.r.choice(values)

    def const(self, depth):
        value = self.r.choice(["fixed", 7, None, False, "q\"\\", [], {}])
        return {"const": value}, lambda: value

    def object(self, depth):
        r = self.r
        names = r.sample(WORDS, r.randint(0, 5))
        parts = {name: self.any(depth + 1) for name in names}
        required = [name for name in names if r.random() < 0.6]
        made = {"type": "object", "properties": {name: part[0] for name, part in parts.items()}}
        if required or r.random() < 0.5:
            made["required"] = r.sample(required, len(required))
        extra = None
        kind = r.randrange(4)
        if kind == 0:
            made["additionalProperties"] = False
        elif kind == 1:
            extra = self.any(depth + 2)
            made["additionalProperties"] = extra[0]
        elif kind == 2 and r.random() < 0.5:
            extra = self.integer(depth)
            made["patternProperties"] = {"^x-[0-9]+$": extra[0]}
            made["additionalProperties"] = False
        high = None
        if r.random() < 0.2:
            high = made["maxProperties"] = len(required) + r.randint(0, 2)
        if r.random() < 0.2 and (names or extra):
            made["minProperties"] = r.randint(0, max(len(required), 1))
        if made.get("minProperties", 0) > (high if high is not None else 99):
            made["minProperties"] = high

        def instance():
            chosen = list(required)
            optional = [name for name in names if name not in required]
            for name in optional:
                if high is None or len(chosen) < high:
                    if r.random() < 0.5 or len(chosen) < made.get("minProperties", 0):
                        chosen.append(name)
            result = {name: parts[name][1]() for name in names if name in chosen}
            while extra and (high is None or len(result) < high):
                if len(result) >= made.get("minProperties", 0) and r.random() < 0.6:
                    break
                key = f"x-{r.randrange(100)}"
                result[key] = extra[1]()
            return result
        return made, instance

    def array(self, depth):
        r = self.r
        made = {"type": "array"}
        prefix = []
        if r.random() < 0.3:
            prefix = [self.any(depth + 1) for _ in range(r.randint(1, 3))]
            made["prefixItems"] = [part[0] for part in prefix]
        items = None
        if not prefix or r.random() < 0.5:
            items = self.any(depth + 1)
            made["items"] = items[0]
        low = 0
        high = len(prefix) + (4 if items else 0)
        if r.random() < 0.5:
            low = made["minItems"] = r.randint(0, high)
        if r.random() < 0.5:
            high = made["maxItems"] = r.randint(low, high)

        def instance():
            count = r.randint(low, high)
            return [(prefix[i] if i < len(prefix) else items)[1]() for i in range(count)]
        return made, instance

    def union(self, depth):
        parts = [self.any(depth + 1) for _ in range(self.r.randint(1, 3))]
        return {"anyOf": [part[0] for part in parts]}, lambda: self.r.choice(parts)[1]()

    def one_of(self, depth):
        """A discriminated union: exactly one branch holds."""
        a, b = self.any(depth + 1), self.any(depth + 1)
        branches = [{"type": "object", "properties": {"kind": {"const": kind}, "of": part[0]},
                     "required": ["kind", "of"], "additionalProperties": False}
                    for kind, part in (("a", a), ("b", b))]
        def instance():
            kind, part = self.r.choice([("a", a), ("b", b)])
            return {"kind": kind, "of": part[1]()}
        return {"oneOf": branches, "type": "object"}, instance

    def all_of(self, depth):
        first, second = self.any(depth + 2), self.any(depth + 2)
        made = {"allOf": [
            {"type": "object", "properties": {"p": first[0]}, "required": ["p"]},
            {"type": ["object", "null"], "properties": {"q": second[0]}, "required": ["q"]}]}
        return made, lambda: {"p": first[1](), "q": second[1]()}

    def types(self, depth):
        made = {"type": ["string", "null", "integer"], "maxLength": 5, "minimum": 3}
        return made, lambda: self.r.choice(["", "abcde", None, 3, 70])

    def reference(self, depth):
        name = f"shared/{len(self.definitions)}"
        self.definitions[name] = None
        self.definitions[name] = self.any(depth + 1)
        instance = self.definitions[name][1]
        return {"$ref": "#/$defs/" + name.replace("/", "~1")}, instance

    def recursive(self, depth):
        name = f"tree{len(self.definitions)}"
        label = self.integer(depth)
        made = {"type": "object", "properties": {
                    "label": label[0],
                    "left": {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]},
                    "rest": {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}},
                "required": ["label", "left"], "additionalProperties": False}
        def instance(level=0):
            node = {"label": label[1](),
                    "left": instance(level + 1) if level < 3 and self.r.random() < 0.5 else None}
            if self.r.random() < 0.4:
                node["rest"] = [instance(level + 1) for _ in range(self.r.randint(0, 2) if level < 3 else 0)]
            return node
        self.definitions[name] = (made, instance)
        return {"$ref": f"#/$defs/{name}"}, instance
