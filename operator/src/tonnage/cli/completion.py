"""`tonnage completion`: the scripts that let a shell ask `tonnage __complete`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Final

from tonnage.cli.exits import FINE

BASH: Final = r"""# bash completion for tonnage
_tonnage() {
    local line="${COMP_LINE:0:COMP_POINT}" words=() answer candidate directive
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    answer="$("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)" || return
    directive="${answer##*:}"
    # bash cuts words at = and : and replaces the last piece alone
    local current="${words[${#words[@]}-1]}" piece="${COMP_WORDS[COMP_CWORD]}" kept
    case "$piece" in "="|":") piece="" ;; esac
    kept="${current%"$piece"}"
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        [[ "$candidate" == :* || -z "$candidate" ]] || COMPREPLY+=("${candidate#"$kept"}")
    done <<< "$answer"
    [[ "$directive" == 4 ]] && compopt +o default +o bashdefault 2>/dev/null
    return 0
}
complete -o bashdefault -o default -F _tonnage tonnage kubectl-tonnage
"""
ZSH: Final = r"""#compdef tonnage kubectl-tonnage
# zsh completion for tonnage
_tonnage() {
    local answer line name
    local -a lines candidates
    answer="$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)" || return 1
    lines=("${(@f)answer}")
    for line in "${(@)lines[1,-2]}"; do
        name="${${line%%$'\t'*}//:/\\:}"
        [[ "$line" == *$'\t'* ]] && candidates+=("${name}:${line#*$'\t'}") || candidates+=("$name")
    done
    (( $#candidates )) && _describe 'tonnage' candidates -M 'm:{a-zA-Z}={A-Za-z}' && return 0
    [[ "${lines[-1]}" == ":4" ]] || _files
}
if [[ "${funcstack[1]}" == "_tonnage" ]]; then
    _tonnage
else
    compdef _tonnage tonnage kubectl-tonnage
fi
"""
FISH: Final = r"""# fish completion for tonnage
function __tonnage_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l program $words[1]
    set -e words[1]
    set -l lines ($program __complete $words "$current" 2>/dev/null)
    set -l directive $lines[-1]
    set -e lines[-1]
    if test (count $lines) -gt 0
        printf '%s\n' $lines
    else if test "$directive" = ":0"
        __fish_complete_path "$current"
    end
end
complete --command tonnage --no-files --arguments '(__tonnage_complete)'
complete --command kubectl-tonnage --no-files --arguments '(__tonnage_complete)'
"""
SCRIPTS: Final[Mapping[str, str]] = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    sys.stdout.write(SCRIPTS[options.shell])
    return FINE
