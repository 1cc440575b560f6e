"""Which syntax nodes define a name, per language: data only, read by definitions.py.

A rule's `name` is a path of steps from the node to the node that holds the name. A step is a field name or a child's
type; `*` is the first named child, `^x` the text before child x, a trailing `?` skips a step that does not apply and
`+` repeats one as long as it applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codeintel_rev.types import CALLABLES

SCOPE = "scope"
"""The kind of a node that qualifies the names within but defines none itself (Rust `impl`, Swift `extension`)."""

TYPES = frozenset({"class", "interface", "struct", "enum", "trait", "type"})
VALUES = frozenset({"constant", "variable", "field", "property"})
CONTAINERS = frozenset({"module", "namespace"})
KINDS = TYPES | CALLABLES | VALUES | CONTAINERS | {"heading", "key"}


@dataclass(frozen=True, slots=True)
class Rule:
    """`refine` maps the type of a direct child, or the node's first word, to a kind that replaces `kind`; first wins.

    `pattern` replaces the default query `(<node type>) @definition`. `scope` is the path to a name that qualifies
    this one (a Go receiver). `merge` joins neighbours of one name: clauses of one function, overload signatures.
    """

    kind: str
    name: str = "name"
    refine: Mapping[str, str] = field(default_factory=dict)
    pattern: str = ""
    scope: str = ""
    merge: bool = False


_FUNCTION_VALUES = {
    "arrow_function": "function",
    "function_expression": "function",
    "generator_function": "function",
    "class": "class",
}
_JS_FUNCTION = "[(arrow_function) (function_expression) (generator_function) (class)]"
_JAVASCRIPT = {
    "function_declaration": Rule("function", merge=True),
    "generator_function_declaration": Rule("function"),
    "class_declaration": Rule("class"),
    "method_definition": Rule("function", merge=True),
    "field_definition": Rule("field", "property", _FUNCTION_VALUES),
    "variable_declarator": Rule(
        "variable",
        refine=_FUNCTION_VALUES,
        pattern=f"(variable_declarator value: {_JS_FUNCTION}) @definition"
        "(program [(lexical_declaration (variable_declarator) @definition)"
        " (variable_declaration (variable_declarator) @definition)"
        " (export_statement (lexical_declaration (variable_declarator) @definition))"
        " (export_statement (variable_declaration (variable_declarator) @definition))])",
    ),
    "assignment_expression": Rule(
        "variable",
        "left",
        _FUNCTION_VALUES,
        f"(assignment_expression right: {_JS_FUNCTION}) @definition"
        "(program (expression_statement (assignment_expression left: (member_expression)) @definition))",
    ),
    "pair": Rule("function", "key", pattern=f"(pair value: {_JS_FUNCTION}) @definition"),
    "export_statement": Rule(
        "function", "default", {"class": "class"}, f"(export_statement value: {_JS_FUNCTION}) @definition"
    ),
}
_TYPESCRIPT = {
    **{node: rule for node, rule in _JAVASCRIPT.items() if node != "field_definition"},
    "public_field_definition": Rule("field", refine=_FUNCTION_VALUES),
    "abstract_class_declaration": Rule("class"),
    "interface_declaration": Rule("interface"),
    "type_alias_declaration": Rule("type"),
    "enum_declaration": Rule("enum"),
    "internal_module": Rule("namespace"),
    "module": Rule("namespace", pattern="(module name: (_)) @definition"),
    "function_signature": Rule("function", merge=True),
    "method_signature": Rule("function", merge=True),
    "abstract_method_signature": Rule("function", merge=True),
}
_C = {
    "function_definition": Rule("function", "declarator+"),
    "declaration": Rule(
        "function",
        "declarator+",
        pattern="(declaration declarator: (function_declarator)) @definition"
        "(declaration declarator: (pointer_declarator (function_declarator))) @definition",
    ),
    "init_declarator": Rule(
        "variable",
        "declarator+",
        pattern="(translation_unit (declaration declarator: (init_declarator) @definition))",
    ),
    "struct_specifier": Rule("struct", pattern="(struct_specifier name: (_) body: (_)) @definition"),
    "union_specifier": Rule("struct", pattern="(union_specifier name: (_) body: (_)) @definition"),
    "enum_specifier": Rule("enum", pattern="(enum_specifier name: (_) body: (_)) @definition"),
    "type_definition": Rule(
        "type",
        "declarator+",
        {"struct_specifier": "struct", "union_specifier": "struct", "enum_specifier": "enum"},
    ),
    "preproc_def": Rule("macro"),
    "preproc_function_def": Rule("macro"),
}
_TOP_LEVEL_KEY = Rule("key", "key")

RULES: dict[str, dict[str, Rule]] = {
    "python": {
        "function_definition": Rule("function"),
        "class_definition": Rule("class"),
        "assignment": Rule("variable", "left", pattern="(assignment left: (identifier)) @definition"),
        "type_alias_statement": Rule("type", "left"),
    },
    "javascript": _JAVASCRIPT,
    "typescript": _TYPESCRIPT,
    "tsx": _TYPESCRIPT,
    "go": {
        "function_declaration": Rule("function"),
        "method_declaration": Rule("method", scope="receiver parameter_declaration type"),
        "type_spec": Rule("type", refine={"struct_type": "struct", "interface_type": "interface"}),
        "type_alias": Rule("type"),
        "const_spec": Rule("constant"),
        "var_spec": Rule("variable"),
    },
    "rust": {
        "function_item": Rule("function"),
        "function_signature_item": Rule("function"),
        "struct_item": Rule("struct"),
        "union_item": Rule("struct"),
        "enum_item": Rule("enum"),
        "trait_item": Rule("trait"),
        "impl_item": Rule(SCOPE, "type"),
        "mod_item": Rule("module"),
        "type_item": Rule("type"),
        "const_item": Rule("constant"),
        "static_item": Rule("constant"),
        "macro_definition": Rule("macro"),
    },
    "java": {
        "class_declaration": Rule("class"),
        "record_declaration": Rule("class"),
        "interface_declaration": Rule("interface"),
        "annotation_type_declaration": Rule("interface"),
        "enum_declaration": Rule("enum"),
        "method_declaration": Rule("function"),
        "constructor_declaration": Rule("function"),
        "compact_constructor_declaration": Rule("function"),
        "field_declaration": Rule("field", "declarator name"),
    },
    "kotlin": {
        "class_declaration": Rule("class", refine={"interface": "interface", "enum_class_body": "enum"}),
        "object_declaration": Rule("class"),
        "function_declaration": Rule("function"),
        "property_declaration": Rule("property", "variable_declaration identifier"),
        "type_alias": Rule("type", "type"),
    },
    "scala": {
        "class_definition": Rule("class"),
        "object_definition": Rule("class"),
        "trait_definition": Rule("trait"),
        "enum_definition": Rule("enum"),
        "package_object": Rule("module"),
        "function_definition": Rule("function"),
        "function_declaration": Rule("function"),
        "val_definition": Rule("variable", "pattern"),
        "var_definition": Rule("variable", "pattern"),
        "given_definition": Rule("variable"),
        "type_definition": Rule("type"),
    },
    "c": _C,
    "cpp": {
        **_C,
        "field_declaration": Rule(
            "function",
            "declarator+",
            pattern="(field_declaration declarator: (function_declarator)) @definition"
            "(field_declaration declarator: (pointer_declarator (function_declarator))) @definition"
            "(field_declaration declarator: (reference_declarator (function_declarator))) @definition",
        ),
        "class_specifier": Rule("class", pattern="(class_specifier name: (_) body: (_)) @definition"),
        "namespace_definition": Rule("namespace"),
        "alias_declaration": Rule("type"),
        "concept_definition": Rule("type"),
    },
    "csharp": {
        "class_declaration": Rule("class"),
        "record_declaration": Rule("class"),
        "interface_declaration": Rule("interface"),
        "struct_declaration": Rule("struct"),
        "enum_declaration": Rule("enum"),
        "delegate_declaration": Rule("type"),
        "namespace_declaration": Rule("namespace"),
        "method_declaration": Rule("function"),
        "constructor_declaration": Rule("function"),
        "local_function_statement": Rule("function"),
        "property_declaration": Rule("property"),
        "field_declaration": Rule("field", "variable_declaration variable_declarator name"),
    },
    "ruby": {
        "class": Rule("class"),
        "module": Rule("module"),
        "method": Rule("function"),
        "singleton_method": Rule("function"),
        "assignment": Rule("constant", "left", pattern="(assignment left: (constant)) @definition"),
    },
    "php": {
        "class_declaration": Rule("class"),
        "interface_declaration": Rule("interface"),
        "trait_declaration": Rule("trait"),
        "enum_declaration": Rule("enum"),
        "function_definition": Rule("function"),
        "method_declaration": Rule("function"),
        "const_element": Rule("constant", "*"),
        "property_element": Rule("field"),
    },
    "swift": {
        "class_declaration": Rule("class", refine={"struct": "struct", "enum": "enum", "extension": SCOPE}),
        "protocol_declaration": Rule("interface"),
        "function_declaration": Rule("function"),
        "protocol_function_declaration": Rule("function"),
        "init_declaration": Rule("function", "init"),
        "property_declaration": Rule("property", "name"),
        "typealias_declaration": Rule("type"),
    },
    "bash": {
        "function_definition": Rule("function"),
        "variable_assignment": Rule("variable", pattern="(program (variable_assignment) @definition)"),
    },
    "lua": {
        "function_declaration": Rule("function"),
        "assignment_statement": Rule(
            "function",
            "variable_list name",
            pattern="(assignment_statement (expression_list value: (function_definition))) @definition",
        ),
        "field": Rule("function", pattern="(field name: (_) value: (function_definition)) @definition"),
    },
    "haskell": {
        "function": Rule(
            "function",
            merge=True,
            pattern="(declarations (function) @definition)(instance_declarations (function) @definition)",
        ),
        "bind": Rule("function", merge=True, pattern="(declarations (bind) @definition)"),
        "signature": Rule("function", pattern="(class_declarations (signature) @definition)"),
        "data_type": Rule("type"),
        "newtype": Rule("type"),
        "type_synonym": Rule("type"),
        "type_family": Rule("type"),
        "class": Rule("interface"),
        "instance": Rule(SCOPE),
    },
    "elixir": {
        "call": Rule(
            "function",
            "arguments * left? target?",
            {
                "defmodule": "module",
                "defprotocol": "interface",
                "defimpl": SCOPE,
                "defmacro": "macro",
                "defmacrop": "macro",
            },
            "((call target: (identifier) @_keyword) @definition (#any-of? @_keyword"
            ' "def" "defp" "defmacro" "defmacrop" "defmodule" "defprotocol" "defimpl" "defguard" "defdelegate"))',
            merge=True,
        ),
    },
    "zig": {
        "function_declaration": Rule("function"),
        "variable_declaration": Rule(
            "variable",
            "identifier",
            {
                "struct_declaration": "struct",
                "union_declaration": "struct",
                "enum_declaration": "enum",
                "const": "constant",
            },
        ),
    },
    "json": {"pair": _TOP_LEVEL_KEY},
    "yaml": {"block_mapping_pair": _TOP_LEVEL_KEY},
    "toml": {
        "pair": Rule("key", "*"),
        "table": Rule("key", "*"),
        "table_array_element": Rule("key", "*"),
    },
    "sql": {
        "create_table": Rule("type", "object_reference"),
        "create_view": Rule("type", "object_reference"),
        "create_materialized_view": Rule("type", "object_reference"),
        "create_type": Rule("type", "object_reference"),
        "create_function": Rule("function", "object_reference"),
        "create_procedure": Rule("function", "object_reference"),
        "create_trigger": Rule("function", "object_reference"),
    },
    "hcl": {
        "block": Rule(
            "key",
            "^block_start",
            {"variable": "variable", "module": "module"},
            "(config_file (body (block) @definition))",
        ),
    },
    "make": {
        "rule": Rule("function", "targets *"),
        "define_directive": Rule("macro"),
        "variable_assignment": Rule("variable"),
    },
    "markdown": {
        "atx_heading": Rule("heading", "heading_content"),
        "setext_heading": Rule("heading", "heading_content"),
    },
}

ATTRIBUTES: dict[str, str] = {
    "python": "(decorator) @attribute",
    "javascript": "(decorator) @attribute",
    "typescript": "(decorator) @attribute",
    "tsx": "(decorator) @attribute",
    "rust": "(attribute_item) @attribute",
    "haskell": "(declarations (signature) @attribute)(instance_declarations (signature) @attribute)",
    "elixir": "((unary_operator operand: (call target: (identifier) @_doc)) @comment"
    ' (#any-of? @_doc "doc" "moduledoc" "typedoc"))'
    "((unary_operator operand: (call target: (identifier) @_attribute)) @attribute"
    ' (#any-of? @_attribute "spec" "impl" "deprecated" "since"))',
}
"""Queries for the nodes that stand above a definition and belong to it. Elsewhere they lie within it."""

TRANSPARENT = frozenset(
    {
        "block",
        "block_mapping",
        "block_node",
        "block_sequence",
        "body",
        "body_statement",
        "class_declarations",
        "content",
        "declarations",
        "indented_block",
        "instance_declarations",
        "section",
        "statement_list",
        "statements",
    }
)
"""Nodes that only group their children: the first child starts where they start, and is no shallower than the next."""

PROSE = frozenset({"asciidoc", "html", "markdown", "rst", "tex", "text"})
"""Languages whose chunks outside every definition are of kind "text"."""
