"""Shell completion: what may come next on the command line.

In:        the words typed so far; the definitions of commands and flags.
Out:       candidates with descriptions; the script that makes a shell ask for them.
Elsewhere: command.py has the definitions, help.py shows them.

The scripts are thin: they run `flowscope __complete <shell> ...` and show what it prints, so all shells agree and new
flags need no new scripts. Protocol: one candidate per line, a tab, its description; the last line is `:`, followed by
`file` or `dir` when the shell is to offer those.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cli.command import HELP_FLAG, PROGRAM, Call, Command, Flag, Flags, Tree, UsageError

SHELLS: Final = ("bash", "zsh", "fish", "powershell")

_SERVER_WAIT_S: Final = 0.5
"""What a person waits for names from a server while typing."""

_WORD_BREAKS: Final = "=:"
"""Where bash cuts words, whatever the quotes say."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on."""

    text: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """All ways to go on."""

    candidates: tuple[Candidate, ...] = ()
    places: str = ""
    """`file` or `dir`: the shell knows those better."""


def complete(tree: Tree, words: Sequence[str]) -> Completion:
    """What may replace the last of `words`, which is being typed (and may be empty)."""
    *before, current = words or [""]
    try:
        path, rest = tree.find(before)
    except UsageError:
        return Completion()
    command = path[-1]
    if command.raw:
        return Completion(places="file")
    flags = tree.flags(command)
    name, equals, _ = current.partition("=")
    if equals and name.startswith("--"):
        flag = flags.by_name.get(name[2:])
        return _values(flag, current, f"{name}=") if flag is not None else Completion()
    if before and before[-1].startswith("-") and len(before[-1]) > 1 and "=" not in before[-1]:
        waiting = _waiting(before[-1], flags)
        if waiting is not None:
            return _values(waiting, current, "")
    if current.startswith("-"):
        return Completion(tuple(_flag_candidates(tree, command, current)))
    return Completion(tuple(_word_candidates(tree, path, flags, rest, current)))


def _waiting(word: str, flags: Flags) -> Flag | None:
    """The flag whose value comes next, if `word` is one."""
    flag = flags.by_name.get(word[2:]) if word.startswith("--") else flags.by_short.get(word[-1])
    return flag if flag is not None and flag.kind.bare is None else None


def _values(flag: Flag, current: str, prefix: str) -> Completion:
    typed = current.removeprefix(prefix)
    if flag.completes in ("file", "dir"):
        return Completion(places=flag.completes)
    texts = flag.choices or _from_server(flag.completes)
    return Completion(tuple(Candidate(prefix + text) for text in texts if text.startswith(typed)))


def _flag_candidates(tree: Tree, command: Command, current: str) -> Iterable[Candidate]:
    for flag in (*command.own_flags(), HELP_FLAG, *tree.global_flags):
        if not flag.hidden and f"--{flag.name}".startswith(current):
            yield Candidate(f"--{flag.name}", flag.help)
        if flag.short and current in ("-", f"-{flag.short}"):
            yield Candidate(f"-{flag.short}", flag.help)


def _word_candidates(
    tree: Tree, path: Sequence[Command], flags: Flags, rest: Sequence[str], current: str
) -> Iterable[Candidate]:
    command = path[-1]
    for child in tree.children(command):
        if not child.hidden and child.name.startswith(current):
            yield Candidate(child.name, child.summary)
    if command.words is not None:
        try:
            values, words = flags.parse(rest)
        except UsageError:
            values, words = {}, []
        call = Call(path=tuple(path), values=values, words=words, flags=flags.by_name)
        for text in command.words(call):
            if text.startswith(current):
                yield Candidate(text)


def _from_server(what: str) -> tuple[str, ...]:
    """Names that the server knows; none when it does not answer at once."""
    if what not in ("namespaces", "pods", "services", "nodes"):
        return ()
    import asyncio

    from cli.connection import connected
    from cli.globals import command_tree
    from cli.settings import load_settings
    from proto.observer import observer_pb2

    tree = command_tree()
    settings = load_settings(Call(path=(tree.root,), values={}, words=[], flags=tree.flags(tree.root).by_name))

    async def ask() -> tuple[str, ...]:
        async with asyncio.timeout(_SERVER_WAIT_S), connected(settings) as server:
            if what == "nodes":
                nodes = await server.unary(
                    "/observer.Observer/GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse
                )
                return tuple(sorted(node.name for node in nodes.nodes))
            reply = await server.unary(
                "/observer.Observer/GetNamespaces",
                observer_pb2.GetNamespacesRequest(),
                observer_pb2.GetNamespacesResponse,
            )
            names = sorted({one.namespace for one in reply.namespaces})
            return tuple(names if what == "namespaces" else [f"{name}/" for name in names])

    try:
        return asyncio.run(ask())
    except Exception:
        # Whoever types a command wants no error about another one.
        return ()


def answer(tree: Tree, arguments: Sequence[str]) -> str:
    """What `flowscope __complete SHELL ...` prints.

    bash    `__complete bash POINT LINE`: bash cuts words at `=` and `:`, so it hands over the line.
    others  `__complete SHELL WORD...`, the last word being typed.
    """
    if not arguments:
        return ":\n"
    shell, rest = arguments[0], list(arguments[1:])
    cut = ""
    if shell == "bash" and len(rest) == 2:
        rest = split_line(rest[1].encode()[: int(rest[0])].decode(errors="ignore"))[1:] or [""]
        current = rest[-1]
        at = max((current.rfind(char) for char in _WORD_BREAKS), default=-1)
        cut = current[: at + 1]
    found = complete(tree, rest)
    lines = [f"{one.text.removeprefix(cut)}\t{one.help}\n" for one in found.candidates]
    return "".join(lines) + f":{found.places}\n"


def split_line(line: str) -> list[str]:
    """The words of a line that is being typed, the last one possibly empty or in an open quote."""
    for closing in ("", "'", '"'):
        lexer = shlex.shlex(line + closing, posix=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            words = list(lexer)
        except ValueError:
            continue
        return [*words, ""] if not closing and (not line or line[-1].isspace()) else words
    return line.split()


def script(shell: str) -> str:
    """The completion script of a shell."""
    names = " ".join((PROGRAM, "hubble"))
    return _SCRIPTS[shell].replace("@PROGRAM@", PROGRAM).replace("@NAMES@", names)


def run_script(call: Call) -> None:
    """`flowscope completion SHELL`."""
    from cli.output import write

    write(script(call.command.name))


def run_complete(tree: Tree, arguments: Sequence[str]) -> int:
    """`flowscope __complete ...`: never an error, for it is printed into what someone types."""
    from cli.output import write

    os.environ.setdefault("NO_COLOR", "1")
    write(answer(tree, arguments))
    return 0


_SCRIPTS: Final = {
    "bash": """\
# Completion of @PROGRAM@ for bash. Load it: source <(@PROGRAM@ completion bash)
_@PROGRAM@_complete() {
    local line value places=""
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) places=${line#:} ;;
            *) COMPREPLY+=("${line%%$'\\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete bash "$COMP_POINT" "$COMP_LINE" 2>/dev/null)
    value=${COMP_WORDS[COMP_CWORD]}
    case $places in
        file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${value#=}") ;;
        dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "${value#=}") ;;
    esac
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace
    fi
}
complete -F _@PROGRAM@_complete @NAMES@
""",
    "zsh": """\
#compdef @NAMES@
# Completion of @PROGRAM@ for zsh. Load it: source <(@PROGRAM@ completion zsh)
_@PROGRAM@() {
    local line places=""
    local -a candidates
    for line in "${(@f)$("${words[1]}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            :*) places=${line#:} ;;
            *) candidates+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}") ;;
        esac
    done
    case $places in
        file) _files ;;
        dir) _files -/ ;;
        *) _describe -V '@PROGRAM@' candidates ;;
    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _@PROGRAM@ "$@"
else
    compdef _@PROGRAM@ @NAMES@
fi
""",
    "fish": """\
# Completion of @PROGRAM@ for fish. Load it: @PROGRAM@ completion fish | source
function __@PROGRAM@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] __complete fish $words[2..-1] "$current" 2>/dev/null)
    switch $lines[-1]
        case :file
            __fish_complete_path "$current"
        case :dir
            __fish_complete_directories "$current"
        case '*'
            printf '%s\\n' $lines[1..-2]
    end
end
for name in @NAMES@
    complete -c $name -f -a '(__@PROGRAM@_complete)'
end
""",
    "powershell": """\
# Completion of @PROGRAM@ for PowerShell. Load it: @PROGRAM@ completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName ("@NAMES@" -split " ") -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { $_.ToString() })
    $arguments = @($words | Select-Object -Skip 1) + @($wordToComplete)
    & $words[0] __complete powershell @arguments 2>$null | ForEach-Object {
        if ($_ -notmatch '^:') {
            $text, $help = $_ -split "`t", 2
            if (-not $help) { $help = $text }
            [System.Management.Automation.CompletionResult]::new($text, $text, 'ParameterValue', $help)
        }
    }
}
""",
}
