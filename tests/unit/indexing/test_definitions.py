from __future__ import annotations

import pytest

from codeintel_rev.indexing.chunking import chunk_file
from codeintel_rev.indexing.definition_rules import KINDS
from codeintel_rev.types import Definition, Role, SourceFile
from tests.language_samples import SAMPLES


def defined(language: str, text: str, role: Role = Role.CODE) -> dict[str, Definition]:
    file = SourceFile("a", language, role, len(text), "", "utf-8", text)
    return {definition.qualified_name: definition for definition in chunk_file("r", file, 256).definitions}


EXPECTED = {
    "python": "LIMIT:constant, lifetime:variable, Session:class, Session.key:field, Session.age:method, "
    "refresh:function, refresh.renew:function",
    "javascript": "Server:class, Server.port:field, Server.constructor:method, Server.serve:method, "
    "Server.close:method, join:function, resolve:function, Server.reset:method, handlers:variable, "
    "handlers.open:method, handlers.shut:method",
    "typescript": "Shape:class, Shape.size:field, Shape.area:method, Shape.draw:method, Drawable:interface, "
    "Drawable.draw:method, Name:type, Color:enum, Geometry:namespace, Geometry.unit:function, "
    "scale:function, parse:function",
    "tsx": "Button:function, Button.click:function",
    "go": "Limit:constant, Store:struct, Reader:interface, Store.Get:method, New:function",
    "rust": "Counter:struct, Counter.fmt:method, Add:trait, Add.add:method, inner:module, inner.START:constant, "
    "count:macro",
    "java": "Basket:class, Basket.LIMIT:constant, Basket.items:field, Basket.add:method, "
    "Basket.Visitor:interface, Basket.Visitor.visit:method, Color:enum, Point:class",
    "kotlin": "Basket:class, Basket.SIZE:property, Basket.add:method, Basket.empty:property, Visitor:interface, "
    "Visitor.visit:method, Color:enum, Registry:class, Items:type, shout:function",
    "scala": "Basket:class, Basket.add:method, Basket.empty:field, Basket.Item:type, Visitor:trait, "
    "Visitor.visit:method, Registry:class, Registry.Size:field",
    "c": "MAX:macro, SQUARE:macro, point:struct, box:struct, color:enum, print_point:function, area:function",
    "cpp": "geo:namespace, geo.flat:namespace, geo.flat.Circle:class, geo.flat.Circle.Circle:method, "
    "geo.flat.Circle.~Circle:method, geo.flat.Circle.area:method, geo.flat.operator==:function, "
    "geo.flat.Real:type",
    "csharp": "Shop.Core:namespace, Shop.Core.Basket:class, Shop.Core.Basket.LIMIT:constant, "
    "Shop.Core.Basket.Count:property, Shop.Core.Basket.Basket:method, Shop.Core.Basket.Add:method, "
    "Shop.Core.IVisitor:interface, Shop.Core.IVisitor.Visit:method, Shop.Core.Color:enum, "
    "Shop.Core.Point:struct",
    "ruby": "Shop:module, Shop.Basket:class, Shop.Basket.LIMIT:constant, Shop.Basket.add:method, "
    "Shop.Basket.open:method",
    "php": "Basket:class, Basket.LIMIT:constant, Basket.items:field, Basket.add:method, Visitor:interface, "
    "Visitor.visit:method, Loud:trait, shout:function",
    "swift": "Basket:class, Basket.limit:property, Basket.init:method, Basket.add:method, Point:struct, "
    "Visitor:interface, Visitor.visit:method, Basket.visit:method",
    "bash": "LIMIT:constant, greet:function, main:function",
    "lua": "M.add:method, M.close:method, M.open:method",
    "haskell": "add:function, Color:type, Visitor:interface, Visitor.visit:method",
    "elixir": "Shop.Basket:module, Shop.Basket.add:function, Shop.Basket.loud:macro",
    "zig": "std:constant, add:function, Point:struct, Point.norm:method",
    "markdown": "Guide:heading, Guide > Install:heading, Guide > Use:heading, Appendix:heading",
    "json": "name:key, scripts:key, scripts.test:key",
    "yaml": "name:key, jobs:key, jobs.test:key, jobs.lint:key",
    "toml": "title:key, tool.ruff:key, tool.ruff.line-length:key, servers:key, servers.port:key",
    "sql": "shop.basket:type, empty:type",
    "hcl": "resource.aws_instance.web:key, variable.zone:variable",
    "make": "CC:constant, all:function, banner:macro",
}


@pytest.mark.parametrize("language", EXPECTED)
def test_every_language_gives_its_definitions_with_qualified_names_and_kinds(language: str) -> None:
    found = defined(language, SAMPLES[language], Role.CONFIG)

    assert {f"{name}:{definition.kind}" for name, definition in found.items()} == set(EXPECTED[language].split(", "))


def test_the_kinds_are_a_closed_set() -> None:
    kinds = {item.kind for language, text in SAMPLES.items() for item in defined(language, text, Role.CONFIG).values()}

    assert kinds <= KINDS


SPANS = {
    "python": ("Session", "@dataclass(frozen=True)", "return time.time() - self.start"),
    "typescript": ("Shape", "/** A shape. */", "}"),
    "go": ("Store.Get", "// Get returns the value of key.", "}"),
    "rust": ("Counter.fmt", "/// Writes the count.", "}"),
    "java": ("Basket.add", "/** Adds one item. */", "}"),
    "kotlin": ("Basket.add", "// Adds one item.", "}"),
    "cpp": ("geo.flat.Circle", "/// A circle.", "};"),
    "csharp": ("Shop.Core.Basket", "/// <summary>A basket.</summary>", "}"),
    "php": ("Basket", "/** A basket. */", "}"),
    "haskell": ("add", "-- | Adds one item.", "add item items = item : items"),
    "elixir": ("Shop.Basket.add", '@doc """', "end"),
    "javascript": ("join", "// Joins two paths.", "export const join = (a, b) => a + '/' + b;"),
    "markdown": ("Guide > Install", "## Install", "```"),
}


@pytest.mark.parametrize("language", SPANS)
def test_a_span_holds_the_doc_comment_the_attributes_and_the_whole_body(language: str) -> None:
    name, first, last = SPANS[language]
    lines = SAMPLES[language].split("\n")

    found = defined(language, SAMPLES[language])[name]

    assert (lines[found.start_line - 1].strip(), lines[found.end_line - 1].strip()) == (first, last)


SIGNATURES = {
    "python": ("refresh", "async def refresh(session: Session, *, force: bool = False) -> Session"),
    "javascript": ("Server", "export default class Server extends Base"),
    "typescript": ("scale", "export const scale = <T>(shape: T): T"),
    "go": ("Store.Get", "func (s *Store[K]) Get(key K) (string, error)"),
    "rust": ("Counter.fmt", "fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result"),
    "c": ("print_point", "static int *print_point(struct point *p, char **out)"),
    "haskell": ("add", "add :: Int -> [Int] -> [Int]"),
    "swift": ("Basket.add", "func add(_ item: Int) -> Bool"),
    "ruby": ("Shop.Basket", "class Basket < Base"),
}


@pytest.mark.parametrize("language", SIGNATURES)
def test_a_signature_is_the_header_up_to_the_body(language: str) -> None:
    name, signature = SIGNATURES[language]

    assert defined(language, SAMPLES[language])[name].signature == signature


DOCS = {
    "python": ("Session.age", "Return the seconds since it began."),
    "javascript": ("Server", "Serves files."),
    "go": ("Store", "Store keeps values."),
    "rust": ("Counter", "Counts things."),
    "c": ("print_point", "Prints a point."),
    "haskell": ("add", "Adds one item."),
    "elixir": ("Shop.Basket.add", "Adds one item."),
    "bash": ("greet", "Prints a greeting."),
    "sql": ("shop.basket", "Baskets."),
}


@pytest.mark.parametrize("language", DOCS)
def test_a_doc_is_the_docstring_or_the_comment_above_without_its_markers(language: str) -> None:
    name, doc = DOCS[language]

    assert defined(language, SAMPLES[language])[name].doc == doc


def test_a_comment_above_a_blank_line_is_not_a_doc() -> None:
    found = defined("go", "package a\n\n// Licence.\n\nfunc F() {}\n")["F"]

    assert (found.doc, found.start_line) == ("", 5)


def test_the_shebang_is_not_a_doc() -> None:
    assert defined("bash", "#!/bin/sh\nrun() { :; }\n")["run"].doc == ""


def test_signature_and_doc_of_a_hostile_header_are_cut() -> None:
    found = defined("python", f'def f({"a" * 5000}):\n    """{"b" * 5000}"""\n')["f"]

    assert (len(found.signature), len(found.doc)) == (300, 500)


def test_local_variables_are_not_definitions() -> None:
    assert list(defined("python", "def f():\n    x = 1\n    y = [z for z in x]\n    return y\n")) == ["f"]


def test_a_destructuring_has_no_name_and_gives_no_definition() -> None:
    assert defined("javascript", "const { a, b } = c;\nconst [d] = e;\n") == {}


def test_keys_of_a_data_file_are_not_definitions() -> None:
    assert defined("json", '{"a": 1}', Role.CODE) == {}


def test_keys_below_the_second_level_are_not_definitions() -> None:
    assert list(defined("yaml", "a:\n  b:\n    c: 1\n", Role.CONFIG)) == ["a", "a.b"]


def test_overloads_and_clauses_of_one_function_are_one_definition() -> None:
    found = defined("haskell", "f :: Int -> Int\nf 0 = 1\nf x = x\n\ng = 1\n")

    assert {name: (item.start_line, item.end_line) for name, item in found.items()} == {"f": (1, 3), "g": (5, 5)}


def test_methods_of_an_impl_are_named_after_the_type_and_the_impl_is_no_definition() -> None:
    found = defined("rust", "impl<T> Show for a::Bag<T> {\n    fn show(&self) {}\n}\n")

    assert {name: item.kind for name, item in found.items()} == {"a.Bag.show": "method"}


def test_an_export_macro_does_not_hide_a_class() -> None:
    found = defined("cpp", "class CORE_API Tensor final : public Base {\n  int size() { return 1; }\n};\n")

    assert {name: item.signature for name, item in found.items()} == {
        "Tensor": "class CORE_API Tensor final : public Base",
        "Tensor.size": "int size()",
    }
