"""The language of a file, from its name, its shebang and, for C headers, a look at its content."""

from __future__ import annotations

import re

TEXT = "text"
# Written for people, or holding one record a line: long lines say nothing about them.
PROSE = frozenset({"markdown", "rst", "asciidoc", "tex", "text", "csv", "notebook"})

_EXTENSIONS = {
    "ada": "adb ads",
    "asciidoc": "adoc asciidoc",
    "assembly": "asm s",
    "astro": "astro",
    "awk": "awk",
    "bash": "bash bats ebuild ksh sh zsh",
    "batch": "bat cmd",
    "c": "c",
    "clojure": "clj cljc cljs edn",
    "cmake": "cmake",
    "cpp": "c++ cc cpp cppm cu cuh cxx h++ hh hpp hxx inl ino ipp ixx tcc tpp",
    "crystal": "cr",
    "csharp": "cs csx",
    "css": "css less sass scss",
    "csv": "csv tsv",
    "cython": "pxd pxi pyx",
    "d": "d",
    "dart": "dart",
    "diff": "diff patch",
    "dockerfile": "dockerfile",
    "elixir": "ex exs",
    "elm": "elm",
    "erlang": "erl hrl",
    "fish": "fish",
    "fortran": "f f03 f08 f90 f95 for",
    "fsharp": "fs fsi fsx",
    "gleam": "gleam",
    "glsl": "comp frag geom glsl vert wgsl",
    "go": "go",
    "graphql": "gql graphql graphqls",
    "groovy": "gradle groovy",
    "haskell": "hs hsc lhs",
    "hcl": "hcl nomad tf tfvars",
    "html": "cshtml ejs erb htm html jinja jinja2 xhtml",
    "ini": "cfg conf desktop editorconfig ini properties service",
    "java": "java",
    "javascript": "cjs es6 js jsx mjs",
    "json": "geojson json json5 jsonc jsonl ndjson webmanifest",
    "julia": "jl",
    "kotlin": "kt kts",
    "lisp": "cl el lisp lsp",
    "lua": "lua luau rockspec",
    "make": "mak make mk",
    "markdown": "markdown md mdown mdx mkd",
    "matlab": "matlab",
    "nim": "nim nims",
    "nix": "nix",
    "notebook": "ipynb",
    "objc": "m mm",
    "ocaml": "ml mli mll mly",
    "pascal": "dpr pas pp",
    "perl": "pl pm t",
    "php": "php phps phtml",
    "powershell": "ps1 psd1 psm1",
    "prolog": "pro",
    "proto": "proto",
    "python": "py pyi pyw",
    "r": "r rmd",
    "racket": "rkt",
    "rst": "rst",
    "ruby": "gemspec podspec rake rb rbi rbs ru",
    "rust": "rs",
    "scala": "sbt sc scala",
    "scheme": "scm ss",
    "solidity": "sol",
    "sql": "ddl dml psql sql",
    "starlark": "bazel bzl star",
    "svelte": "svelte",
    "swift": "swift",
    "tcl": "tcl",
    "tex": "bib cls sty tex",
    "text": "log text txt",
    "thrift": "thrift",
    "toml": "toml",
    "tsx": "tsx",
    "typescript": "cts mts ts",
    "vb": "bas vb",
    "verilog": "sv svh v vh",
    "vhdl": "vhd vhdl",
    "vim": "vim",
    "vue": "vue",
    "xml": "csproj fsproj plist pom props resx storyboard svg targets vbproj wsdl xaml xib xml xsd xsl xslt",
    "yaml": "yaml yml",
    "zig": "zig zon",
}
_NAMES = {
    "bash": ".bash_aliases .bash_profile .bashrc .profile .zprofile .zshenv .zshrc pkgbuild",
    "cmake": "cmakelists.txt",
    "dockerfile": "containerfile dockerfile",
    "elixir": "mix.lock",
    "go": "go.mod go.sum go.work",
    "groovy": "jenkinsfile",
    "ini": ".coveragerc .editorconfig .flake8 .gitconfig .gitmodules .pylintrc",
    "json": ".babelrc .eslintrc .prettierrc composer.lock flake.lock pipfile.lock",
    "make": "gnumakefile makefile",
    "ruby": "appraisals brewfile capfile dangerfile fastfile gemfile guardfile podfile rakefile vagrantfile",
    "starlark": "build module.bazel tiltfile workspace",
    "toml": "cargo.lock pdm.lock pipfile poetry.lock uv.lock",
    "vim": ".vimrc",
    "yaml": ".clang-format .clang-tidy .clangd",
}
_INTERPRETERS = {
    "ash": "bash",
    "awk": "awk",
    "bash": "bash",
    "bun": "typescript",
    "crystal": "crystal",
    "dash": "bash",
    "deno": "typescript",
    "elixir": "elixir",
    "escript": "erlang",
    "fish": "fish",
    "groovy": "groovy",
    "julia": "julia",
    "ksh": "bash",
    "lua": "lua",
    "luajit": "lua",
    "make": "make",
    "node": "javascript",
    "nodejs": "javascript",
    "perl": "perl",
    "php": "php",
    "pwsh": "powershell",
    "pypy": "python",
    "python": "python",
    "racket": "racket",
    "rscript": "r",
    "ruby": "ruby",
    "runghc": "haskell",
    "runhaskell": "haskell",
    "scala": "scala",
    "sh": "bash",
    "swift": "swift",
    "tclsh": "tcl",
    "ts-node": "typescript",
    "tsx": "typescript",
    "wish": "tcl",
    "zsh": "bash",
}

LANGUAGES = frozenset(_EXTENSIONS)

_BY_EXTENSION = {extension: language for language, listed in _EXTENSIONS.items() for extension in listed.split()}
_BY_NAME = {name: language for language, listed in _NAMES.items() for name in listed.split()}

_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+|\w+=\S*\s+)*)?(?:\S*/)?(?P<program>[\w.+-]+)")
_VERSION = re.compile(r"[\d.]+$")
_CPP_ONLY = re.compile(
    r"^\s*(?:class\s+\w|namespace\b|template\s*<|using\s+\w|(?:public|protected|private)\s*:|#\s*include\s*<\w+>)"
    r"|\w::\w|\b(?:constexpr|noexcept|nullptr|static_cast)\b",
    re.MULTILINE,
)
_OBJC_ONLY = re.compile(r"^\s*(?:@(?:interface|protocol|class|import)\b|#\s*import\b)", re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)


def language_of(path: str, head: str) -> str:
    """Return the language, one of LANGUAGES, of the file at `path` whose text begins with `head`; "text" if unknown."""
    name = path.rpartition("/")[2].lower()
    stem, dot, extension = name.rpartition(".")
    if name in _BY_NAME:
        return _interpreter(head) or _BY_NAME[name]
    if extension == "h" and dot:
        return _header(head)
    if dot and stem and extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    return _interpreter(head) or _BY_NAME.get(name.partition(".")[0], TEXT)


def _header(head: str) -> str:
    code = _COMMENT.sub("", head)
    if _OBJC_ONLY.search(code):
        return "objc"
    return "cpp" if _CPP_ONLY.search(code) else "c"


def _interpreter(head: str) -> str | None:
    shebang = _SHEBANG.match(head)
    return _INTERPRETERS.get(_VERSION.sub("", shebang["program"].lower())) if shebang else None
