"""One small, real-looking file for each language with a grammar."""

from __future__ import annotations

SAMPLES: dict[str, str] = {
    "python": '''"""Sessions."""

import time

LIMIT = 10
lifetime: int = 3600


@dataclass(frozen=True)
class Session:
    """One visit."""

    key: str = ""

    @property
    def age(self) -> float:
        """Return the seconds since it began."""
        return time.time() - self.start


async def refresh(session: Session, *, force: bool = False) -> Session:
    def renew() -> Session:
        return session

    return renew()
''',
    "javascript": """import http from 'http';

/** Serves files. */
export default class Server extends Base {
  static port = 80;
  constructor(root) { super(root); }
  serve(path) {
    return this.read(path);
  }
  close = () => this.stop();
}

// Joins two paths.
export const join = (a, b) => a + '/' + b;
module.exports.resolve = function (path) { return path; };
Server.prototype.reset = function () {};
const handlers = { open() {}, shut: () => 1 };
""",
    "typescript": """/** A shape. */
@Component()
export abstract class Shape<T> implements Drawable {
  private size: number = 1;
  @Input() area(scale: number): number { return scale * this.size; }
  abstract draw(): void;
}

export interface Drawable { draw(): void }
export type Name = string | number;
enum Color { Red }
namespace Geometry { export function unit(): number { return 1; } }
export const scale = <T>(shape: T): T => shape;
function parse(text: string): Name;
function parse(text: any) { return text; }
""",
    "tsx": """export function Button({ label }: Props): JSX.Element {
  const click = () => label;
  return <button onClick={click}>{label}</button>;
}
""",
    "go": """package store

import "errors"

const Limit = 10

// Store keeps values.
type Store[K comparable] struct {
	values map[K]string
}

type Reader interface {
	Read(key string) (string, error)
}

// Get returns the value of key.
func (s *Store[K]) Get(key K) (string, error) {
	return s.values[key], nil
}

func New() *Store[string] { return &Store[string]{} }
""",
    "rust": """//! Counting.

use std::fmt;

/// Counts things.
#[derive(Debug)]
pub struct Counter<T> {
    count: T,
}

impl<T> fmt::Display for Counter<T> {
    /// Writes the count.
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.count)
    }
}

pub trait Add { fn add(&mut self); }
mod inner { pub const START: u32 = 1; }
macro_rules! count { () => {} }
""",
    "java": """package shop;

import java.util.List;

/** A basket. */
@Entity
public class Basket<T> extends Base {
    private static final int LIMIT = 10;
    private List<T> items;

    /** Adds one item. */
    @Override
    public boolean add(T item) {
        return items.add(item);
    }

    interface Visitor { void visit(); }
}

enum Color { RED }
record Point(int x, int y) { }
""",
    "kotlin": """package shop

/** A basket. */
@Serializable
class Basket<T>(val limit: Int) : Base() {
    companion object {
        const val SIZE = 10
    }

    // Adds one item.
    @Synchronized
    fun add(item: T): Boolean {
        return true
    }

    val empty: Boolean get() = true
}

interface Visitor<T> {
    fun visit(item: T)
}

enum class Color {
    RED, BLUE
}

object Registry
typealias Items = List<Int>
fun String.shout(): String = uppercase()
""",
    "scala": """package shop

/** A basket. */
@deprecated
final class Basket[T](limit: Int) extends Base {
  def add(item: T): Boolean = true
  val empty = true
  type Item = T
}

trait Visitor { def visit(): Unit }
object Registry { val Size = 10 }
""",
    "c": """#include <stdio.h>
#define MAX 10
#define SQUARE(x) ((x) * (x))

/* A point. */
struct point {
    int x;
};

typedef struct { int width; } box;
enum color { RED };

/* Prints a point. */
static int *print_point(struct point *p, char **out)
{
    printf("%d", p->x);
    return 0;
}

int area(box b);
""",
    "cpp": """namespace geo { namespace flat {

/// A circle.
template <typename T>
class Circle : public Shape {
 public:
  explicit Circle(T r);
  ~Circle() {}
  T area(T scale) { return scale; }
};

template <typename T>
T Circle<T>::area(T scale) const {
  return scale;
}

bool operator==(const Circle& a, const Circle& b) { return true; }
using Real = double;

}}
""",
    "csharp": """using System;

namespace Shop.Core
{
    /// <summary>A basket.</summary>
    [Serializable]
    public class Basket : Base
    {
        public const int LIMIT = 10;
        public int Count { get; set; }

        public Basket(int count) { Count = count; }

        public int Add(int item)
        {
            return Count + item;
        }
    }

    interface IVisitor { void Visit(); }
    enum Color { Red }
    struct Point { }
}
""",
    "ruby": """# Shopping.
module Shop
  class Basket < Base
    LIMIT = 10
    attr_reader :items

    # Adds one item.
    def add(item)
      @items << item
    end

    def self.open; new; end
  end
end
""",
    "php": """<?php
namespace Shop;

use Other\\Thing;

/** A basket. */
#[Entity]
final class Basket extends Base implements Countable {
    const LIMIT = 10;
    private $items = [];

    /** Adds one item. */
    public function add(int $item): bool {
        return true;
    }
}

interface Visitor { public function visit(); }
trait Loud { }
function shout($text) { return $text; }
""",
    "swift": """/// A basket.
@objc public class Basket: Base {
  let limit = 10
  init(limit: Int) { }
  func add(_ item: Int) -> Bool {
    return true
  }
}

struct Point { }
protocol Visitor { func visit() }

extension Basket: Visitor {
  func visit() { }
}
""",
    "bash": """#!/bin/bash
LIMIT=10

# Prints a greeting.
greet() {
  echo "hello $1"
}

function main { greet world; }
main
""",
    "lua": """local M = {}

-- Adds one item.
function M.add(item)
  return item
end

function M:close() end
M.open = function(path) return path end
return M
""",
    "haskell": """module Shop.Basket where

import Data.List

-- | Adds one item.
add :: Int -> [Int] -> [Int]
add 0 items = items
add item items = item : items

data Color = Red | Blue deriving Show
class Visitor a where
  visit :: a -> Int
instance Visitor Color where
  visit _ = 1
""",
    "elixir": '''defmodule Shop.Basket do
  @moduledoc "Baskets."
  @limit 10

  @doc """
  Adds one item.
  """
  @spec add(list, any) :: list
  def add([], item), do: [item]
  def add(items, item) when is_list(items) do
    [item | items]
  end

  defmacro loud(text) do
    text
  end
end
''',
    "zig": """const std = @import("std");

/// Adds two numbers.
pub fn add(a: u32, b: u32) u32 {
    return a + b;
}

const Point = struct {
    x: u32,
    pub fn norm(self: Point) u32 {
        return self.x;
    }
};
""",
    "markdown": """# Guide

Words.

## Install

```sh
make
```

## Use

More words.

Appendix
========

The end.
""",
    "json": '{\n  "name": "shop",\n  "scripts": {\n    "test": "make test"\n  }\n}\n',
    "yaml": "name: shop\njobs:\n  test:\n    steps:\n      - run: make\n  lint:\n    steps: []\n",
    "toml": 'title = "shop"\n\n[tool.ruff]\nline-length = 100\n\n[[servers]]\nport = 1\n',
    "xml": '<project>\n  <name>shop</name>\n  <deps>\n    <dep id="a"/>\n  </deps>\n</project>\n',
    "html": "<html>\n  <body>\n    <p>Shop</p>\n    <script>open()</script>\n  </body>\n</html>\n",
    "css": "a, .b {\n  color: red;\n}\n\n@media print {\n  p { margin: 0 }\n}\n",
    "sql": "-- Baskets.\nCREATE TABLE shop.basket (id int);\n\nCREATE VIEW empty AS SELECT 1;\n",
    "hcl": 'resource "aws_instance" "web" {\n  ami = "a"\n}\n\nvariable "zone" {\n  default = "b"\n}\n',
    "make": "CC = gcc\n\nall: main.o\n\t$(CC) main.o\n\ndefine banner\nshop\nendef\n",
}
