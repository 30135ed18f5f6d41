"""As much of the Common Expression Language as the chart's MutatingAdmissionPolicy uses, to see what it makes of a pod without an API server.

Kubernetes evaluates the same with its own library: `transformList` and the other macros over two variables since 1.32.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+|\w+|&&|\|\||[=!<>]=|[-+?:()\[\]{},.!<>])""")
_BINARY = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">"), ("+",))

Scope = Mapping[str, Any]
Expression = Callable[[Scope], Any]


class _Select:
    """A field of a value, which `has` asks for without reading it."""

    def __init__(self, holder: Expression, name: str) -> None:
        self.holder, self.name = holder, name

    def __call__(self, scope: Scope) -> Any:
        return self.holder(scope)[self.name]

    def exists(self, scope: Scope) -> bool:
        return self.name in self.holder(scope)


def evaluate(text: str, scope: Scope) -> Any:
    parser = _Parser(text)
    expression = parser.expression()
    parser.take("")
    return expression(scope)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            assert found, text[at : at + 60]
            self.tokens.append(found[1])
            at = found.end()
        self.tokens.append("")
        self.at = 0

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, token: str | None = None) -> str:
        found = self.next
        assert token in (None, found), f"expected {token!r}, found {' '.join(self.tokens[self.at : self.at + 12])}"
        self.at += 1
        return found

    def expression(self) -> Expression:
        condition = self.binary(0)
        if self.next != "?":
            return condition
        self.take()
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return lambda scope: yes(scope) if condition(scope) else no(scope)

    def binary(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while self.next in _BINARY[level]:
            left = self.operation(self.take(), left, self.binary(level + 1))
        return left

    @staticmethod
    def operation(operator: str, left: Expression, right: Expression) -> Expression:
        match operator:
            case "||":
                return lambda scope: left(scope) or right(scope)
            case "&&":
                return lambda scope: left(scope) and right(scope)
            case "==":
                return lambda scope: left(scope) == right(scope)
            case "!=":
                return lambda scope: left(scope) != right(scope)
            case ">=":
                return lambda scope: left(scope) >= right(scope)
            case "<=":
                return lambda scope: left(scope) <= right(scope)
            case "<":
                return lambda scope: left(scope) < right(scope)
            case ">":
                return lambda scope: left(scope) > right(scope)
        return lambda scope: left(scope) + right(scope)

    def unary(self) -> Expression:
        if self.next == "!":
            self.take()
            inner = self.unary()
            return lambda scope: not inner(scope)
        found = self.primary()
        while self.next in (".", "["):
            found = self.member(found)
        return found

    def member(self, holder: Expression) -> Expression:
        if self.take() == "[":
            index = self.expression()
            self.take("]")
            return lambda scope: holder(scope)[index(scope)]
        name = self.take()
        if self.next != "(":
            return _Select(holder, name)
        arguments = self.items("(", ")")
        return _macro(holder, name, arguments)

    def items(self, begin: str, end: str) -> list[Expression]:
        self.take(begin)
        found = []
        while self.next != end:
            found.append(self.expression())
            if self.next != end:
                self.take(",")
        self.take(end)
        return found

    def primary(self) -> Expression:
        token = self.next
        if token == "(":
            self.take()
            inner = self.expression()
            self.take(")")
            return inner
        if token == "[":
            items = self.items("[", "]")
            return lambda scope: [each(scope) for each in items]
        if token == "{":
            return self.mapping()
        self.take()
        if token[0] in "\"'" or token.isdecimal() or token in ("true", "false"):
            value = {"true": True, "false": False}.get(token)
            constant = value if value is not None else int(token) if token.isdecimal() else _text(token)
            return lambda scope: constant
        if self.next == "(":
            return _function(token, self.items("(", ")"))
        if self.next == "{":
            assert token == "JSONPatch"
            return self.mapping(fields=True)
        return _Variable(token)

    def mapping(self, *, fields: bool = False) -> Expression:
        """A map, or a message, whose fields are names."""
        self.take("{")
        pairs: list[tuple[Expression, Expression]] = []
        while self.next != "}":
            name = self.take() if fields else ""
            key: Expression = (lambda scope, name=name: name) if fields else self.expression()  # type: ignore[misc]
            self.take(":")
            pairs.append((key, self.expression()))
            if self.next != "}":
                self.take(",")
        self.take("}")
        return lambda scope: {key(scope): value(scope) for key, value in pairs}


class _Variable:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, scope: Scope) -> Any:
        return scope[self.name]


def _text(token: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), token[1:-1])


def _function(name: str, arguments: list[Expression]) -> Expression:
    (argument,) = arguments
    if name == "has":
        assert isinstance(argument, _Select)
        return argument.exists
    functions: dict[str, Callable[[Any], Any]] = {"dyn": lambda value: value, "size": len, "string": str}
    function = functions[name]
    return lambda scope: function(argument(scope))


def _macro(holder: Expression, name: str, arguments: list[Expression]) -> Expression:
    if name == "escapeKey":
        assert isinstance(holder, _Variable)
        assert holder.name == "jsonpatch"
        return lambda scope: arguments[0](scope).replace("~", "~0").replace("/", "~1")
    names = [each.name for each in arguments[: 2 if name == "transformList" else 1] if isinstance(each, _Variable)]
    if name == "exists":
        (item,) = names
        return lambda scope: any(arguments[1](dict(scope) | {item: each}) for each in holder(scope))
    assert name == "transformList"
    index, item = names
    _, _, test, made = arguments

    def transform(scope: Scope) -> list[Any]:
        scopes = [dict(scope) | {index: number, item: each} for number, each in enumerate(holder(scope))]
        return [made(each) for each in scopes if test(each)]

    return transform
