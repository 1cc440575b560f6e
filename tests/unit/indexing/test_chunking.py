from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeintel_rev.indexing.chunking import ParsedFile, chunk_by_lines, chunk_file
from codeintel_rev.indexing.grammars import LANGUAGES
from codeintel_rev.indexing.token_estimate import estimate_tokens
from codeintel_rev.types import Chunk, Role, SourceFile
from tests.language_samples import SAMPLES

SAMPLE_LINES = sorted({line for text in SAMPLES.values() for line in text.split("\n")})


def source(text: str, language: str = "python", path: str = "a.py") -> SourceFile:
    return SourceFile(path, language, Role.CONFIG, len(text), "", "utf-8", text)


def chunks_of(text: str, language: str = "python", budget: int = 60) -> tuple[Chunk, ...]:
    return chunk_file("r", source(text, language), budget).chunks


def function(name: str, statements: int) -> str:
    return f"def {name}(value):\n" + "".join(f"    value = value + {i}\n" for i in range(statements))


def assert_every_line_is_in_exactly_one_chunk(file: SourceFile, parsed: ParsedFile) -> None:
    lines = file.text.split("\n")
    held = [0] * len(lines)
    for chunk in parsed.chunks:
        assert chunk.text == "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        for line in range(chunk.start_line - 1, chunk.end_line):
            held[line] += 1
    assert all(count == 1 if line.strip() else count <= 1 for line, count in zip(lines, held, strict=True))
    assert len({chunk.chunk_id for chunk in parsed.chunks}) == len(parsed.chunks)


@pytest.mark.parametrize("budget", [32, 64, 128, 256, 2048])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_of_real_code_is_in_exactly_one_chunk(language: str, budget: int) -> None:
    file = source(SAMPLES[language] * 3, language)

    assert_every_line_is_in_exactly_one_chunk(file, chunk_file("r", file, budget))


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters()), st.sampled_from((*LANGUAGES, "text", "cobol")), st.integers(32, 256))
def test_every_line_of_any_text_is_in_exactly_one_chunk(text: str, language: str, budget: int) -> None:
    """F09: NUL, lone surrogates and every separator that is not a newline are ordinary characters."""
    file = source(text, language)

    assert_every_line_is_in_exactly_one_chunk(file, chunk_file("r", file, budget))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(SAMPLE_LINES), max_size=60), st.sampled_from(LANGUAGES), st.integers(32, 256))
def test_every_line_of_shuffled_code_is_in_exactly_one_chunk(lines: list[str], language: str, budget: int) -> None:
    file = source("\n".join(lines), language)

    assert_every_line_is_in_exactly_one_chunk(file, chunk_file("r", file, budget))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(SAMPLE_LINES), max_size=60), st.sampled_from(LANGUAGES), st.integers(32, 256))
def test_no_chunk_of_several_lines_is_above_the_budget(lines: list[str], language: str, budget: int) -> None:
    found = chunks_of("\n".join(lines), language, budget)

    assert all(estimate_tokens(chunk.text) <= budget or chunk.start_line == chunk.end_line for chunk in found)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(8, 30), min_size=1, max_size=5), st.lists(st.integers(8, 30), min_size=1, max_size=5))
def test_ids_stay_when_other_code_is_inserted_above(sizes: list[int], inserted: list[int]) -> None:
    body = "\n\n".join(function(f"f{i}", size) for i, size in enumerate(sizes))
    above = "\n\n".join(function(f"g{i}", size) for i, size in enumerate(inserted))

    before = {chunk.chunk_id for chunk in chunks_of(body)}

    assert before <= {chunk.chunk_id for chunk in chunks_of(above + "\n\n" + body)}


def test_a_definition_that_fits_is_one_chunk_with_its_comment_and_attributes() -> None:
    text = "use a::b;\n\n// Long ago.\n\n/// Adds.\n#[inline]\nfn add(a: u32) -> u32 {\n" + "    a;\n" * 12 + "}\n"

    chunk = chunks_of(text, "rust")[-1]

    assert (chunk.start_line, chunk.symbol, chunk.kind) == (5, "add", "function")


def test_two_sizeable_functions_are_two_chunks_though_both_fit_into_one() -> None:
    text = function("one", 7) + "\n\n" + function("two", 7)

    assert [chunk.symbol for chunk in chunks_of(text, budget=100)] == ["one", "two"]


def test_small_functions_share_a_chunk() -> None:
    text = "".join(f"def f{i}(): pass\n\n\n" for i in range(3))

    assert [(chunk.symbol, chunk.kind) for chunk in chunks_of(text)] == [("", "module")]


def test_a_chunk_with_one_definition_among_other_code_is_named_after_it() -> None:
    chunk = chunks_of("import a\nimport b\n\n\ndef f(): pass\n")[0]

    assert (chunk.symbol, chunk.kind, chunk.start_line) == ("f", "function", 1)


def test_imports_are_kept_apart_from_a_sizeable_function() -> None:
    text = "".join(f"import module{i}\n" for i in range(5)) + "\n\n" + function("f", 6)

    assert [(chunk.symbol, chunk.kind) for chunk in chunks_of(text)] == [("", "module"), ("f", "function")]


def test_parts_of_a_large_function_keep_its_signature_as_header() -> None:
    found = chunks_of(function("long", 40))

    assert [(chunk.symbol, chunk.header) for chunk in found[:2]] == [("long", ""), ("long", "def long(value)")]


def test_a_large_function_is_cut_between_statements() -> None:
    statement = "    value = call(\n        value,\n        1,\n    )\n"

    found = chunks_of("def long(value):\n" + statement * 20)

    assert all(chunk.text.rstrip().endswith(")") for chunk in found)


def test_a_split_definition_has_no_orphaned_tail() -> None:
    found = chunks_of(function("long", 33))

    assert min(estimate_tokens(chunk.text) for chunk in found) > 15


def test_a_large_class_becomes_its_head_and_its_methods() -> None:
    methods = "".join("\n    " + function(f"m{i}", 5).replace("\n    ", "\n        ") for i in range(3))
    text = 'class Big(Base):\n    """A class with much to say about what it is and does."""\n\n    size = 1\n' + methods

    found = chunks_of(text, budget=64)

    assert [(chunk.symbol, chunk.kind, chunk.header) for chunk in found] == [
        ("Big", "class", ""),
        ("Big.m0", "method", "class Big(Base)"),
        ("Big.m1", "method", "class Big(Base)"),
        ("Big.m2", "method", "class Big(Base)"),
    ]


def test_a_one_line_head_goes_to_the_first_method() -> None:
    body = "".join(f"        let a{i} = {i};\n" for i in range(6))
    text = "impl Bag {\n" + "".join(f"    fn f{i}() {{\n{body}    }}\n\n" for i in range(3)) + "}\n"

    assert [(chunk.symbol, chunk.start_line) for chunk in chunks_of(text, "rust", 64)] == [
        ("Bag.f0", 1),
        ("Bag.f1", 11),
        ("Bag.f2", 20),
    ]


@pytest.mark.parametrize("language", ["rust", "java", "cpp", "csharp", "php", "kotlin"])
@pytest.mark.parametrize("budget", [32, 48, 64])
def test_no_chunk_holds_only_closing_brackets(language: str, budget: int) -> None:
    found = chunks_of(SAMPLES[language], language, budget)

    assert all(any(char.isalnum() for char in chunk.text) for chunk in found)


def test_a_brace_on_its_own_line_stays_with_its_function() -> None:
    text = "int main(void)\n{\n" + "    call();\n" * 30 + "}\n"

    assert chunks_of(text, "c")[0].text.startswith("int main(void)\n{\n    call();")


def test_a_section_of_prose_is_named_after_its_headings() -> None:
    text = "# Guide\n\n" + "Words and words. " * 12 + "\n\n## Install\n\n" + "More of them. " * 12 + "\n"

    assert [(chunk.symbol, chunk.kind) for chunk in chunks_of(text, "markdown")] == [
        ("Guide", "heading"),
        ("Guide > Install", "heading"),
    ]


def test_prose_without_headings_is_text() -> None:
    assert chunks_of("Only words.\n", "markdown")[0].kind == "text"


def test_an_unknown_language_is_cut_at_blank_lines() -> None:
    paragraph = "MOVE A TO B ADDING C.\n" * 5

    found = chunks_of("\n".join([paragraph] * 4), "cobol")

    assert {(chunk.kind, chunk.text) for chunk in found} == {("window", paragraph.rstrip())}


def test_a_tree_of_errors_is_cut_by_lines_and_says_so() -> None:
    parsed = chunk_file("r", source("module x\n\nrequire (\n\ta v1\n)\n" * 9, "java"), 60)

    assert (parsed.note, parsed.chunks[0].kind, parsed.definitions) == ("parse-errors", "window", ())


def test_an_empty_file_has_no_chunks() -> None:
    assert chunk_file("r", source(" \n\t\n"), 60).chunks == chunk_by_lines("r", source(""), 60).chunks == ()


def test_one_line_above_the_budget_is_one_chunk() -> None:
    assert len(chunks_of("x = [" + "1, " * 5000 + "]\n")) == 1


@pytest.mark.parametrize("language", ["python", "javascript", "kotlin", "cpp", "json"])
def test_nesting_without_end_does_not_exhaust_the_stack(language: str) -> None:
    """F09: 5,000 levels, a hundred times the walkers' cap, over lines and within one."""
    file = source("(\n" * 5000 + ")\n" * 5000 + "[" * 2000, language)

    assert_every_line_is_in_exactly_one_chunk(file, chunk_file("r", file, 256))


def test_chunks_know_where_they_come_from() -> None:
    chunk = chunk_file("shop", source("x = 1\n", path="src/a.py"), 60).chunks[0]

    assert (chunk.repo, chunk.path, chunk.language, chunk.role) == ("shop", "src/a.py", "python", Role.CONFIG)
