"""`--where` expressions over a manifest: `kind = 'hcc' and diameter_mm < 10`, `split = 'test' or n_tumors = 0`.

Names are manifest columns and the fields of `tumors`. An expression that names a tumor field selects the samples in
which at least one tumor meets the whole expression. Operators: = != < <= > >= in, and or not, parentheses.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.manifest import SCHEMA, TUMOR_TYPE

if TYPE_CHECKING:
    from pipeline.catalog import Dataset

Positions = npt.NDArray[np.int64]  # of rows in a manifest, ascending
Marks = npt.NDArray[np.bool_]
_TUMOR_FIELDS = tuple(field.name for field in TUMOR_TYPE)
_SAMPLE_COLUMNS = tuple(
    field.name for field in SCHEMA if not pa.types.is_list(field.type) and not pa.types.is_fixed_size_list(field.type)
)
_COMPARE = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
EXAMPLE = "kind = 'hcc' and diameter_mm < 10"
_GRAMMAR = "Write comparisons of columns joined by and/or/not"
_MAX_LENGTH = 2000
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|\b(and|or|not|in)\b|(?<![<>=!])=(?!=)""", re.IGNORECASE
)  # strings, which stay as they are; words; single equals signs


class ExpressionError(InputError):
    """An expression that is none. `reason` says why, for who asks for expressions by another name than `--where`."""

    def __init__(self, expression: str, reason: str) -> None:
        shown = f" {expression!r}" if len(expression) <= _MAX_LENGTH else ""
        super().__init__(f'--where{shown}: {reason}. {_GRAMMAR}, e.g. --where "{EXAMPLE}"')
        self.reason = f"{reason}. {_GRAMMAR}, e.g. {EXAMPLE}"


@dataclass(frozen=True)
class Matches:
    """What meets an expression: rows, and which of all rows' tumors; None where it names no field of tumors."""

    rows: Positions
    tumors: Marks | None


def select(table: pa.Table, expression: str) -> pa.Table:
    """The rows of a manifest that meet an expression."""
    tree, names = _parse(expression)
    return table.take(pa.array(_matching(table, tree, names, expression).rows))


def chosen(dataset: Dataset, where: str | None = None, split: str = "all", limit: int | None = None) -> Positions:
    """Which rows of a dataset's manifest meet `where` and are of the split, of these the first `limit`.

    Reads the columns that this takes, and no others.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: must be 1 or more")
    found = np.arange(dataset.rows) if where is None else positions(dataset, where)
    if split != "all":
        of_split = pc.fill_null(pc.equal(dataset.columns(["split"])["split"], split), False)
        found = found[of_split.to_numpy()[found]]
    return found[:limit]


def positions(dataset: Dataset, expression: str) -> Positions:
    """Which rows of a dataset's manifest meet an expression."""
    return matches(dataset, expression).rows


def matches(dataset: Dataset, expression: str) -> Matches:
    """Which rows of a dataset's manifest meet an expression, and by which of their tumors."""
    tree, names = _parse(expression)
    return _matching(dataset.columns(columns_named(expression)), tree, names, expression)


def columns_named(expression: str) -> list[str]:
    """The columns that an expression needs, as `Dataset.columns` takes them."""
    return [f"tumors.{name}" if name in _TUMOR_FIELDS else name for name in sorted(_parse(expression)[1])]


def _matching(table: pa.Table, tree: ast.expr, names: set[str], expression: str) -> Matches:
    if names & set(_TUMOR_FIELDS):
        return _by_tumor(table, tree, names, expression)
    mask = _evaluate(tree, {name: table[name] for name in names}, expression)
    return Matches(np.flatnonzero(pc.fill_null(mask, False).to_numpy()), None)


def _parse(expression: str) -> tuple[ast.expr, set[str]]:
    """The expression as a tree, and the columns that it names."""
    tree = _tree(expression)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    _check_names(names, expression)
    return tree, names


def _tree(expression: str) -> ast.expr:
    if len(expression) > _MAX_LENGTH:
        raise ExpressionError(expression, f"{len(expression)} characters; {_MAX_LENGTH} are allowed")
    python = _TOKEN.sub(lambda m: m.group(1) or (m.group(2) or "==").lower(), expression)
    try:
        tree = ast.parse(python.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(expression, "it cannot be read") from error
    if _depth(tree) > _MAX_DEPTH:
        raise ExpressionError(expression, "it is nested too deeply")
    return tree


def _depth(tree: ast.AST) -> int:
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


def _check_names(names: set[str], expression: str) -> None:
    unknown = sorted(names - set(_TUMOR_FIELDS) - set(_SAMPLE_COLUMNS))
    if unknown:
        columns = f"columns: {', '.join(_SAMPLE_COLUMNS)}; of tumors: {', '.join(_TUMOR_FIELDS)}"
        raise ExpressionError(expression, f"unknown column {', '.join(unknown)} ({columns}); text stands in quotes")
    if not names:
        raise ExpressionError(expression, "it names no column")


def _by_tumor(table: pa.Table, tree: ast.expr, names: set[str], expression: str) -> Matches:
    tumors = table["tumors"].combine_chunks()
    parents = pc.list_parent_indices(tumors)
    flat = pc.list_flatten(tumors)
    columns = {
        name: pc.struct_field(flat, name) if name in _TUMOR_FIELDS else table[name].combine_chunks().take(parents)
        for name in names
    }
    mask = pc.fill_null(_evaluate(tree, columns, expression), False)
    rows = np.unique(parents.filter(mask).to_numpy(zero_copy_only=False)).astype(np.int64)
    return Matches(rows, mask.to_numpy(zero_copy_only=False))


def _evaluate(node: ast.expr, columns: dict[str, Any], expression: str) -> Any:
    """A boolean array for a node of the expression; only the grammar of the module's docstring is accepted."""
    match node:
        case ast.BoolOp(op, values):
            join = pc.and_ if isinstance(op, ast.And) else pc.or_
            result = _evaluate(values[0], columns, expression)
            for value in values[1:]:
                result = join(result, _evaluate(value, columns, expression))
            return result
        case ast.UnaryOp(ast.Not(), operand):
            return pc.invert(_evaluate(operand, columns, expression))
        case ast.Compare(left, ops, comparators):
            return _chain(left, ops, comparators, columns, expression)
    raise ExpressionError(expression, f"{ast.unparse(node)!r} is not a comparison")


def _chain(
    left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr], columns: dict[str, Any], expression: str
) -> Any:
    result = None
    for op, right in zip(ops, comparators, strict=True):
        one = _compare(left, op, right, columns, expression)
        result = one if result is None else pc.and_(result, one)
        left = right
    return result


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, columns: dict[str, Any], expression: str) -> Any:
    if not any(isinstance(node, ast.Name) for node in (left, right)):
        raise ExpressionError(
            expression, f"{ast.unparse(left)} is compared with {ast.unparse(right)}, neither is a column"
        )
    if not isinstance(op, (ast.In, ast.NotIn, *_COMPARE)):
        raise ExpressionError(expression, f"operator after {ast.unparse(left)!r} is not allowed")
    try:
        if isinstance(op, ast.In | ast.NotIn):
            found = _is_in(_operand(left, columns, expression), right, expression)
            return pc.invert(found) if isinstance(op, ast.NotIn) else found
        return _COMPARE[type(op)](_operand(left, columns, expression), _operand(right, columns, expression))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ExpressionError(expression, f"{ast.unparse(left)} and {ast.unparse(right)} cannot be compared") from error


def _is_in(column: Any, values: ast.expr, expression: str) -> Any:
    """Whether a column equals one of the values; `in ('a')` is a list of one, as in SQL."""
    elements = values.elts if isinstance(values, ast.Tuple | ast.List) else [values]
    if not elements or isinstance(column, str | float | int) or any(isinstance(e, ast.Name) for e in elements):
        raise ExpressionError(expression, "`in` stands between a column and a list of values")
    return reduce(pc.or_, [pc.equal(column, _operand(element, {}, expression)) for element in elements])


def _operand(node: ast.expr, columns: dict[str, Any], expression: str) -> Any:
    match node:
        case ast.Name(name):
            return columns[name]
        case ast.Constant(bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
    raise ExpressionError(expression, f"{ast.unparse(node)!r} is neither a column nor a value")
