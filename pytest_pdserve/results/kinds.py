"""Every kind of stored file: its type, schema, versions and migrations.

A kind's schema is generated from its dataclass (``make schemas``). Files are validated by it, and
values are built from the same dataclass, so that each field is defined once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import Field
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import is_dataclass
from importlib import resources
from typing import Any
from typing import Generic
from typing import TypeVar

import jsonschema
import msgspec

from pytest_pdserve.results import migrations
from pytest_pdserve.results.closed_schema import closed
from pytest_pdserve.results.files import check_values
from pytest_pdserve.results.files import pointer_text
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.claim import ClaimsFile
from pytest_pdserve.values.client_offsets import ClientOffsets
from pytest_pdserve.values.comparison import Comparison
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exclusion import Exclusion
from pytest_pdserve.values.expected import ExpectedFile
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate_state import GateState
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rehearsal import Rehearsal
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.text import MOMENT_FORMAT
from pytest_pdserve.values.text import is_moment
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferRecord

T = TypeVar("T")
Migration = Callable[..., dict[str, Any]]

_VALIDATOR = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
"""Draft 2020-12, but 4.0 is not an integer: using it as one would raise a TypeError."""


_FORMATS = jsonschema.FormatChecker(formats=())
_FORMATS.checks(MOMENT_FORMAT)(is_moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of stored file."""

    name: str
    """Name of its schema: ``schema/<name>.schema.json``."""
    title: str
    """Name of the kind in messages."""
    type: type[T]
    """Type of the value that a file holds."""
    version: int
    """``schema_version`` that is written."""
    placed: tuple[str, ...] = ()
    """Fields that are not in the file: they follow from its path."""
    arrange: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Converts validated data into the structure of :attr:`type`, where the file's differs."""
    amend: Callable[[dict[str, Any]], None] = lambda _: None
    """Changes the generated schema to the structure of the file."""
    sparse: bool = False
    """True if fields with their default value are omitted."""
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    """By version: function that converts data to the next version."""
    advice: str = "use the pytest-pdserve that wrote it"
    """Advice about a file of an unreadable version."""

    def parse(self, data: Any, source: object, /, *, given: Any = None, **placed: Any) -> T:
        """Build the value of a file's *data*.

        :param given: value that a migration needs beside the file.
        :param placed: the fields that are not in the file.
        :raises ConfigError: with file, JSON pointer and what is wrong there.
        """
        current = self._current(data, source, given)
        try:
            self.check(current, source)
        except ConfigError as error:
            if current is data:
                raise
            old = data["schema_version"]
            raise ConfigError(f"{error} (as read from schema version {old})") from error
        data = current
        without = {key: value for key, value in data.items() if key != "schema_version"}
        try:
            return msgspec.convert({**self.arrange(without), **placed}, self.type)
        except msgspec.ValidationError as error:  # beyond JSON schema, e.g. a key
            raise ConfigError(f"{source}: {error}") from error

    def dump(self, value: T, source: object) -> dict[str, Any]:
        """Return the data of a file with *value*.

        :raises ConfigError: if no file can hold it.
        """
        plain = msgspec.to_builtins(
            _without_defaults(value) if self.sparse else value, enc_hook=_plain_number
        )
        try:  # tuples become lists
            data = json.loads(json.dumps(plain, allow_nan=False))
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from error
        stored = {k: v for k, v in data.items() if k not in self.placed}
        stored = {"schema_version": self.version, **stored}
        self.check(stored, source)
        return stored

    def check(self, data: Any, source: object) -> None:
        """Validate *data* by the schema.

        :raises ConfigError: with file, JSON pointer and what is wrong there.
        """
        _check_schema(_validator(self.name), data, source)
        check_values(data, source)

    def _current(self, data: Any, source: object, given: Any) -> Any:
        """Return *data* in the current version."""
        if not isinstance(data, dict):
            return data
        if "schema_version" not in data:
            raise ConfigError(
                f"{source}: /: 'schema_version' is a required property; expected {self.version}"
            )
        found = data["schema_version"]
        if type(found) is int and found == self.version:
            return data
        if type(found) is not int or found not in self.migrations:
            versions = " or ".join(map(str, (*self.migrations, self.version)))
            raise ConfigError(
                f"{source}: /schema_version: {repr(found)[:40]}, expected {versions}; {self.advice}"
            )
        for version in range(found, self.version):
            try:
                data = self.migrations[version](data, given)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise ConfigError(
                    f"{source}: does not have the form of a {self.title} of schema version "
                    f"{version}; {self.advice}"
                ) from error
            except ConfigError as error:
                raise ConfigError(f"{source}: {error}") from error
        return data

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema, as generated from :attr:`type`."""
        generated = msgspec.json.schema(self.type)
        definitions = {name: closed(each) for name, each in generated["$defs"].items()}
        top = definitions.pop(self.type.__name__)
        for name in self.placed:
            top["properties"].pop(name)
        top["required"] = ["schema_version"] + [
            name for name in top.get("required", []) if name not in self.placed
        ]
        top["properties"] = {"schema_version": {"const": self.version}, **top["properties"]}
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **top,
            "title": f"pytest-pdserve {self.title}",
            "$defs": definitions,
        }
        self.amend(schema)
        return schema


def parse_table(kind: Any, data: Any, source: object, pointer: str) -> Any:
    """Validate and build one table of a file.

    :param pointer: of the table in the file, without the first slash.
    :raises ConfigError: with file, JSON pointer and what is wrong there.
    """
    _check_schema(_table_validator(kind), data, source, pointer)
    check_values({pointer: data}, source)
    return msgspec.convert(data, kind)


def _check_schema(validator: Any, data: Any, source: object, *pointer: str) -> None:
    """Reject *data*, which is at *pointer* of its file, if it violates a schema."""
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(data))
    except RecursionError as nested:
        raise ConfigError(f"{source}: nested too deeply") from nested
    except ValueError:  # an integer of more digits than Python prints
        return
    if error is None:
        return
    if len(reason := error.message) > 300:
        reason = f"{reason[:140]} … {reason[-140:]}"
    raise ConfigError(f"{source}: {pointer_text((*pointer, *error.absolute_path))}: {reason}")


@functools.cache
def _table_validator(kind: Any) -> Any:
    return _VALIDATOR(table_schema(kind), format_checker=_FORMATS)


def table_schema(kind: type) -> dict[str, Any]:
    """Return the JSON schema of a table that a dataclass describes."""
    result: dict[str, Any] = closed(msgspec.json.schema(kind))
    return result


def _without_defaults(value: Any) -> Any:
    """Return *value* as plain data, without fields that have their default value."""
    if is_dataclass(value):
        return {
            each.name: _without_defaults(own)
            for each in fields(value)
            if (own := getattr(value, each.name)) != _default(each)
        }
    if isinstance(value, Mapping):
        return {key: _without_defaults(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_without_defaults(each) for each in value]
    return value


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _plain_number(value: Any) -> Any:
    """Return a numpy number as a Python number."""
    if isinstance(value, float | int):
        return float(value) if isinstance(value, float) else int(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")


@functools.cache
def _validator(name: str) -> Any:
    text = resources.files(__package__).joinpath(f"schema/{name}.schema.json").read_text("utf-8")
    return _VALIDATOR(json.loads(text), format_checker=_FORMATS)


_WRITTEN = "write schema_version = 1"
RECORD = Kind(
    name="record",
    title="run record",
    type=Record,
    version=2,
    migrations={1: migrations.record_from_1},
)
SESSION = Kind(name="session", title="session", type=StoredRef, version=1)
PHASES = Kind(name="phases", title="phases of a session", type=SessionTimes, version=1)
COMPARISON = Kind(name="comparison", title="comparison", type=Comparison, version=1)
REPORT = Kind(name="report", title="report of a session", type=Report, version=1, sparse=True)
BASELINE = Kind(
    name="baseline",
    title="baseline",
    type=Baseline,
    version=3,
    placed=("source",),
    sparse=True,
    migrations={1: migrations.baseline_from_1, 2: migrations.baseline_from_2},
    advice="use the pytest-pdserve that wrote it, or move it away: the next session records a new "
    "reference",
)
CLIENT_OFFSETS = Kind(
    name="client",
    title="offsets of a benchmark client",
    type=ClientOffsets,
    version=1,
    advice="measure them again with pdserve calibrate --client",
)
EXPECTED = Kind(
    name="expected",
    title="expected changes",
    type=ExpectedFile,
    version=1,
    advice=_WRITTEN,
)
EXCLUSION = Kind(name="exclusion", title="exclusion of a session", type=Exclusion, version=1)
NIGHTLY_EVENT = Kind(
    name="nightly-event", title="event of a night, as notifiers get it", type=Event, version=1
)
NIGHTLY_STATE = Kind(
    name="nightly-state",
    title="state that a night leaves for the next",
    type=NightlyState,
    version=1,
    advice="move it away: the next night then takes every regression for a new one",
)
TRANSFER = Kind(name="transfer", title="transfer record", type=TransferRecord, version=1)
TRANSFER_BASELINE = Kind(
    name="transfer-baseline",
    title="baseline of transfers",
    type=TransferBaseline,
    version=1,
    advice="move it away, and measure again with pdserve transfer --accept",
)
_BY_ROLE = {"model": ("ModelSpec", "RoleServing"), "kv_transfer": ("KvTransfer", "RoleTransfer")}
"""Tables that have one of their own for each role: their type, and that of a role's."""


def _roles_together(data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* with tables such as ``[model.decode]`` in one mapping by role."""
    result = dict(data)
    for table in _BY_ROLE:
        own = dict(result.get(table, {}))
        roles = {name: own.pop(name) for name in ROLES if name in own}
        result[table] = {**own, "roles": roles}
    return result


def _roles_apart(schema: dict[str, Any]) -> None:
    for kind, of_role in _BY_ROLE.values():
        properties = schema["$defs"][kind]["properties"]
        del properties["roles"]
        properties |= {name: {"$ref": f"#/$defs/{of_role}"} for name in ROLES}


SYSTEM = Kind(
    name="system",
    title="system",
    type=System,
    version=1,
    placed=("name", "source", "simulated", "tables"),
    arrange=_roles_together,
    amend=_roles_apart,
    advice=_WRITTEN,
)
CLAIMS = Kind(name="claims", title="claims", type=ClaimsFile, version=1, advice=_WRITTEN)
FIGURES = Kind(
    name="figures",
    title="figures: values that were read off plots",
    type=Figures,
    version=1,
    placed=("source",),
    advice=_WRITTEN,
)
GATE = Kind(name="gate", title="result of an upgrade gate", type=GateResult, version=1)
GATE_STATE = Kind(
    name="gate-state",
    title="state of an upgrade gate",
    type=GateState,
    version=1,
    advice="begin a new gate",
)
GATE_POLICY = Kind(
    name="gate-policy", title="policy of upgrade gates", type=GatePolicy, version=1, advice=_WRITTEN
)
REHEARSAL = Kind(name="rehearsal", title="rehearsal of an upgrade", type=Rehearsal, version=1)
KINDS: tuple[Kind[Any], ...] = (
    REHEARSAL,
    *(RECORD, SESSION, PHASES, REPORT, COMPARISON, CLIENT_OFFSETS),
    *(BASELINE, EXPECTED, EXCLUSION, SYSTEM, CLAIMS, FIGURES),
    *(GATE, GATE_STATE, GATE_POLICY),
    *(TRANSFER, TRANSFER_BASELINE, NIGHTLY_EVENT, NIGHTLY_STATE),
)
"""Every kind."""
