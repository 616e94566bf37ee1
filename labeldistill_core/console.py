# SPDX-License-Identifier: Apache-2.0
"""A typed function as a command with options."""

from __future__ import annotations

import inspect
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import is_dataclass
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Positional

from labeldistill_core.errors import ConfigError
from labeldistill_core.exit_codes import exit_code
from labeldistill_core.files import open_descriptor
from labeldistill_core.names import plain_text

_Options = TypeVar("_Options")
Flat = Annotated[_Options, tyro.conf.arg(name="")]
"""`Flat[SomeOptions]`: the fields of a dataclass are options of the command itself."""

_OURS = ("labeldistill_core", "labeldistill_ros", "benchmarks")
"""Packages whose log is for the one who called."""
_POSITIONAL = get_args(Positional[str])[1:]
"""What tyro hangs on the type of an argument that stands by its position."""


def run_command(
    name: str,
    command: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    args: Sequence[str] | None = None,
) -> int:
    """Call a function with the options that the arguments give; returns one of `exit_codes`.

    Args:
        name: how the command is called, for its help.
        command: a function whose docstring is its help, or several by name; see `call_command`.
        args: of the command line; those of this process when None.

    Raises:
        SystemExit: the options are wrong, or help was asked for.
    """
    return exit_code(lambda: call_command(name, command, args), name)


def call_command(
    name: str,
    command: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    args: Sequence[str] | None = None,
) -> Any:
    """As `run_command`, but what the function returns and raises comes through."""
    # Here and not in a module, since whoever imports the library has a log of their own.
    handler = logging.StreamHandler()
    handler.addFilter(_is_for_the_caller)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
    words = list(sys.argv[1:] if args is None else args)
    if isinstance(command, Mapping):
        if words[:1] and words[0] in command:
            # By itself, so that its options may take defaults from others.
            return call_command(f"{name} {words[0]}", command[words[0]], words[1:])
        return tyro.extras.subcommand_cli_from_dict(
            dict(command), prog=name, args=[plain_text(word) for word in words]
        )
    prepared, args = _prepared(command, words)
    told = [plain_text(word) for word in args]
    # Tyro repeats what it cannot take as it came, which may colour the terminal or fill it.
    plain = told == list(args)
    try:
        call = tyro.cli(prepared, prog=name, args=args, console_outputs=plain)
    except SystemExit:
        if not plain:
            tyro.cli(prepared, prog=name, args=told)
        raise
    _refuse_empty(call, words)
    with _beside_written(words):
        return call()


def _refuse_empty(call: partial[Any], words: Sequence[str]) -> None:
    """See that an option of several values has one, unlike `--scenes $(...)` with no output.

    Without any it would mean the same as if it were not given.

    Raises:
        ConfigError: nothing stands behind it.
    """
    words = [*words, "--"]
    words = words[: words.index("--") + 1]
    bare = {
        word[2:].replace("-", "_")
        for word, following in pairwise(words)
        if word.startswith("--") and following.startswith("--")
    }
    for name, value in _values(call.keywords):
        if name in bare and isinstance(value, tuple | list | dict) and not value:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"nothing stands behind {option}: name one, or leave it out")


def _values(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options by their names, with those of dataclasses among them."""
    for name, value in options.items():
        yield name, value
        if is_dataclass(value):
            yield from _values(vars(value))


def _beside_written(words: Sequence[str]) -> AbstractContextManager[Any]:
    """Prints to the errors where a file that is written is the output itself, as `/dev/stdout`."""
    if any(open_descriptor(Path(word.rpartition("=")[2])) == 1 for word in words):
        return redirect_stdout(sys.stderr)
    return nullcontext()


def _prepared(
    command: Callable[..., Any], args: Sequence[str]
) -> tuple[Callable[..., partial[Any]], Sequence[str]]:
    """What gives the command with its options, and the arguments that are left.

    Some options take their defaults from others.

    Options of which that holds have a class method `prepared`, which gives their defaults from the
    arguments, and the arguments that it did not take. Arguments without an option's name are called
    in the help as the function calls them.
    """
    defaults: dict[str, Any] = {}
    for name, kind in get_type_hints(command).items():
        if name != "return" and hasattr(kind, "prepared"):
            defaults[name], args = kind.prepared(args)

    # To call when all options are read, so that what the command raises is none of theirs.
    @wraps(command)
    def with_defaults(*positional: Any, **named: Any) -> partial[Any]:
        return partial(command, *positional, **named)

    signature = inspect.signature(command)
    parameters = [
        each.replace(default=defaults.get(name, each.default))
        for name, each in signature.parameters.items()
    ]
    optional = {p.name for p in parameters if p.default is not inspect.Parameter.empty}
    # What tyro reads instead of the function's own.
    with_defaults.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_defaults.__annotations__ = {
        name: _called(name, hint, optional=name in optional)
        for name, hint in get_type_hints(command, include_extras=True).items()
    }
    del with_defaults.__wrapped__  # tyro would look through
    return with_defaults, args


def _called(name: str, hint: Any, *, optional: bool) -> Any:
    """The type of an argument; one that stands by its position gets a name for the help."""
    if get_origin(hint) is not Annotated or hint.__metadata__ != _POSITIONAL:
        return hint
    several = get_origin(get_args(hint)[0]) is tuple
    word = name.upper().removesuffix("S") if several else name.upper()
    metavar = f"[{word} ...]" if several else f"[{word}]" if optional else word
    return Annotated[hint, tyro.conf.arg(metavar=metavar)]


def last_value(args: Sequence[str], option: str) -> str | None:
    """What stands last behind an option among arguments; None where it is not given.

    Args:
        args: of the command line.
        option: such as `--preset`.
    """
    found = None
    for i, word in enumerate(args):
        if word == option and i + 1 < len(args):
            found = args[i + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def last_flag(args: Sequence[str], option: str) -> bool:
    """Whether an option without a value is on: what stands last among arguments counts.

    Args:
        args: of the command line.
        option: such as `--published`, whose opposite is `--no-published`.
    """
    words = [word for word in args if word in (option, f"--no-{option.removeprefix('--')}")]
    return words[-1:] == [option]


def _is_for_the_caller(record: logging.LogRecord) -> bool:
    # What other libraries tell at INFO is for those who wrote them: an export to ONNX has 60 lines.
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


def tell_written(*files: Path | None, then: Sequence[str | Path] = ()) -> None:
    """Print, as the last lines of a command, what it wrote and what usually comes next.

    Args:
        files: files and folders; None, and what is no file, such as `/dev/stdout`, is left out.
        then: words of the next command.
    """
    there = [file for file in files if file and (file.is_file() or file.is_dir())]
    if named := [str(file) for file in there if open_descriptor(file) is None]:
        print(f"wrote {', '.join(named)}")
    if then:
        print(f"next: {shlex.join(map(str, then))}")
