"""The language of a file is one of a closed table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.indexing.languages import LANGUAGES, language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("A.PY", "python"),
        ("app.tsx", "tsx"),
        ("types.d.ts", "typescript"),
        ("index.mjs", "javascript"),
        ("Main.java", "java"),
        ("build.gradle.kts", "kotlin"),
        ("lib.rs", "rust"),
        ("x.hpp", "cpp"),
        ("main.tf", "hcl"),
        ("Makefile", "make"),
        ("Makefile.am", "make"),
        ("CMakeLists.txt", "cmake"),
        ("Dockerfile.dev", "dockerfile"),
        ("Gemfile", "ruby"),
        (".bashrc", "bash"),
        ("go.mod", "go"),
        ("Cargo.lock", "toml"),
        ("README.md", "markdown"),
        ("LICENSE", "text"),
        ("strange.xyz", "text"),
        (".py", "text"),
    ],
)
def test_the_name_tells_the_language(path: str, language: str) -> None:
    assert language_of(path, "") == language


@pytest.mark.parametrize(
    ("head", "language"),
    [
        ("#!/bin/sh\n", "bash"),
        ("#!/usr/bin/env python3.11\n", "python"),
        ("#!/usr/bin/env -S node --no-warnings\n", "javascript"),
        ("#! /usr/local/bin/ruby -w\n", "ruby"),
        ("#!/usr/bin/env FOO=1 lua5.4\n", "lua"),
        ("#!/opt/unknown\n", "text"),
        ("no shebang", "text"),
    ],
)
def test_a_shebang_tells_the_language_of_a_nameless_script(head: str, language: str) -> None:
    assert language_of("bin/tool", head) == language


def test_a_shebang_outranks_a_name_that_is_no_extension() -> None:
    assert language_of("build", "#!/bin/bash\n") == "bash"


@pytest.mark.parametrize(
    ("head", "language"),
    [
        ("#include <stdio.h>\nint size(void);\n", "c"),
        ('/* std::vector, class Foo */\n#ifdef __cplusplus\nextern "C" {\n#endif\n', "c"),
        ("#include <vector>\n", "cpp"),
        ("namespace a {\n", "cpp"),
        ("template <typename T>\nT max(T a, T b);\n", "cpp"),
        ("struct A {\npublic:\n  int x;\n};\n", "cpp"),
        ("#import <Foundation/Foundation.h>\n@interface A : NSObject\n", "objc"),
    ],
)
def test_the_content_of_a_header_tells_c_from_its_descendants(head: str, language: str) -> None:
    assert language_of("include/a.h", head) == language


@given(path=st.text(max_size=20), head=st.text(max_size=40))
def test_every_file_has_a_language_of_the_table(path: str, head: str) -> None:
    assert language_of(path, head) in LANGUAGES
