"""What a file is for, by the conventions of its language: the path mostly, and how its text begins."""

from __future__ import annotations

import re

from codeintel_rev.indexing.languages import PROSE
from codeintel_rev.types import Role

HEAD_CHARS = 4096
"""How much of a text's beginning `role_of` and `language_of` look at."""

# Spelt exactly: a Kubernetes client's own `pods` is not CocoaPods' `Pods`.
_VENDORED_FOLDERS = frozenset(
    "node_modules bower_components jspm_packages vendor vendored _vendor _vendored third_party third-party thirdparty "
    "ThirdParty 3rdparty 3rd_party 3rd-party Godeps Pods Carthage site-packages dist-packages .venv .tox .nox "
    ".yarn .pnpm-store __pypackages__ elm-stuff".split()
)
_GENERATED_FOLDERS = frozenset(
    "__generated__ __pycache__ .next .nuxt .svelte-kit .dart_tool .ipynb_checkpoints".split()
)
_TEST_FOLDERS = frozenset(
    "test tests testing __tests__ __mocks__ spec specs e2e testdata test_data test-data testlib fixtures __fixtures__ "
    "androidtest unittest unittests integration_tests integration-tests acceptance_tests".split()
)
_DOCS_FOLDERS = frozenset("doc docs documentation javadoc apidocs".split())
_EXAMPLE_FOLDERS = frozenset("example examples sample samples demo demos tutorial tutorials cookbook docs_src".split())
_WEB_OUTPUT = re.compile(r"(^|/)dist/.*\.(js|cjs|mjs|css|map|d\.ts)$")

_LOCKFILES = frozenset(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock composer.lock cargo.lock gemfile.lock "
    "podfile.lock poetry.lock pdm.lock uv.lock pipfile.lock mix.lock go.sum flake.lock pubspec.lock deno.lock "
    "packages.lock.json gradle.lockfile package.resolved conda-lock.yml .terraform.lock.hcl cartfile.resolved".split()
)
_GENERATED_NAME = re.compile(
    r"(_pb2(_grpc)?\.pyi?|\.pb(\.gw|\.validate)?\.(go|cc|h)|_grpc\.pb\.go|\.pb\.(swift|dart)|\.(g|freezed)\.dart"
    r"|\.g\.cs|\.designer\.cs|_generated\.(go|rs|ts|py)|\.generated\.\w+|^zz_generated\..*|\.(js|css)\.map|\.snap)$"
)
_MINIFIED_NAME = re.compile(r"[.-]min\.(js|cjs|mjs|css)$")
_TEST_NAME = re.compile(r"(^(test_.*|tests?|conftest)\.\w+|[_.-](test|tests|spec|specs|unittest|e2e|cy)\.\w+)$")
# CamelCase: LatestNews.java is no test, UserTest.java is.
_TEST_CLASS = re.compile(
    r"(^|[a-z0-9])(Test|Tests|TestCase|Spec|Specs|Suite|IT)\.(java|kt|kts|scala|groovy|cs|fs|vb|php|swift|m|hs|dart)$"
    r"|^Test[A-Z0-9]\w*\.(java|kt|scala|groovy|php)$"
)
# A Gradle source set: `src/androidTest/`, `src/testFixtures/`; not a package about tests, `src/_pytest/`.
_TEST_SOURCE_SET = re.compile(r"(^|/)src/(test|\w*[a-z]Test)([A-Z_]\w*)?/")
_DOCS_NAME = re.compile(
    r"^(readme|changelog|changes|history|news|contributing|authors|contributors|maintainers|license|licence|copying"
    r"|notice|code_of_conduct|security|upgrading|roadmap|todo|copyright|patents)\b",
    re.IGNORECASE,
)
_DOCS_LANGUAGES = frozenset({"markdown", "rst", "asciidoc", "tex"})
_CONFIG_LANGUAGES = frozenset("json yaml toml ini hcl make cmake dockerfile xml nix starlark".split())
_CONFIG_NAME = re.compile(
    r"^(\.[\w.-]+rc(\.\w+)?|[\w.-]+\.config\.(js|cjs|mjs|ts|mts)|setup\.py|noxfile\.py|requirements[\w.-]*\.txt"
    r"|constraints[\w.-]*\.txt|go\.(mod|work)|gemfile|podfile|rakefile|jenkinsfile|[\w.-]+\.gradle(\.kts)?"
    r"|build\.sbt|\.(git|docker|npm|eslint|prettier|code\w*)(ignore|attributes|keep))$",
    re.IGNORECASE,
)

_COMMENT = r"^[ \t]*(?:#+|//[/!]?|/\*+!?|\*+|--+|;+|%+|<!--+|\(\*|\{-|\"\"\"|'''|dnl|REM|@?rem)?[ \t]*"
_EDIT = r"\bdo(?: not|n't) (?:edit|modify|change|hand.?edit)\b"
# No quote, call or assignment before the words: a generator's own source holds them in a string.
_GENERATED_HEAD = re.compile(
    _COMMENT + r"(?:@generated\b|<auto-?generated\b"
    rf"|[^\n\"=(]{{0,200}}\bgenerated\b[^\n]{{0,200}}{_EDIT}|[^\n\"=(]{{0,200}}{_EDIT}[^\n]{{0,200}}\bgenerated\b"
    r"|(?:code |auto-?|automatically )generated (?:by|from|file|code)\b"
    r"|(?:this|the) (?:file|code|source|class|module|document)\b[^\n\"=(]{0,60}\b(?:is|was|has been|were)"
    r" (?:auto(?:matically)?[ -]?)?generated\b)",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD_LINES = 40
_LONG_LINE = 500


def role_of(path: str, language: str, head: str) -> Role:
    """Return what the file at `path` is for; `head` is how its text begins (HEAD_CHARS are enough)."""
    if is_vendored(path):
        return Role.VENDORED
    if is_generated(path, language, head):
        return Role.GENERATED
    folders, name = _split(path)
    if _is_test(path, folders, name):
        return Role.TEST
    if not folders.isdisjoint(_EXAMPLE_FOLDERS):
        return Role.EXAMPLE
    if _is_docs(folders, name, language):
        return Role.DOCS
    return Role.CONFIG if language in _CONFIG_LANGUAGES or _CONFIG_NAME.match(name) else Role.CODE


def is_vendored(path: str) -> bool:
    """Tell whether `path` lies in a folder that holds other people's code."""
    return not _VENDORED_FOLDERS.isdisjoint(path.split("/")[:-1])


def is_minified_name(path: str) -> bool:
    """Tell whether the name alone says minified (`jquery.min.js`)."""
    return _MINIFIED_NAME.search(path.lower()) is not None


def is_generated(path: str, language: str, head: str) -> bool:
    """Tell whether a program wrote the file: by its name or folder, or because its first comments say so."""
    folders, name = _split(path)
    if name.lower() in _LOCKFILES or not folders.isdisjoint(_GENERATED_FOLDERS):
        return True
    if _GENERATED_NAME.search(name.lower()) or _WEB_OUTPUT.search(path.lower()):
        return True
    first_lines = "\n".join(head[:HEAD_CHARS].split("\n", _HEAD_LINES)[:_HEAD_LINES])
    # The word first: most files lack it, and the expression costs ten times more than reading one.
    mentioned = language not in PROSE and "generated" in first_lines.lower()
    return mentioned and _GENERATED_HEAD.search(first_lines) is not None


def is_minified(text: str) -> bool:
    """Tell whether `text` is code written for machines: most of it in very long lines, with hardly a blank in them.

    Prose with one paragraph a line has blanks, and source with one embedded blob has other lines.
    """
    longest = "".join(line for line in text.split("\n") if len(line) > _LONG_LINE)
    blanks = longest.count(" ") + longest.count("\t")
    return len(longest) > 0.75 * len(text) and blanks < 0.1 * len(longest)


def _split(path: str) -> tuple[frozenset[str], str]:
    folders, _, name = path.rpartition("/")
    return frozenset(folders.lower().split("/")), name


def _is_test(path: str, folders: frozenset[str], name: str) -> bool:
    if not folders.isdisjoint(_TEST_FOLDERS) or _TEST_SOURCE_SET.search(path):
        return True
    return _TEST_NAME.search(name.lower()) is not None or _TEST_CLASS.search(name) is not None


def _is_docs(folders: frozenset[str], name: str, language: str) -> bool:
    if language in _DOCS_LANGUAGES or not folders.isdisjoint(_DOCS_FOLDERS):
        return True
    return language in PROSE and _DOCS_NAME.match(name) is not None
