"""Options of the commands other than `fit`."""

from __future__ import annotations

import argparse
from typing import Final

_PLAN_EPILOG: Final = """\
examples:
  %(prog)s -f chat.yaml                    in the current cluster: its nodes, and what runs there
  %(prog)s -f - --context prod -n team-a < chat.yaml
  kubectl get nodes -o yaml > nodes.yaml
  %(prog)s -f chat.yaml --node nodes.yaml --model ./smollm2    offline
  %(prog)s -f all.yaml --node nodes.yaml --model pvc://models/a=./a --model hf://org/b=./b
  %(prog)s -f chat.yaml -o json | jq '.objects[].outcome'

A file may hold several documents; those of other kinds are skipped. Objects that want GPUs are planned in the
operator's order, each with what those ahead leave. The cluster is only read: nodes, and for objects that
exist there, the object and its plans.

exit codes (of several objects the highest): 0 planned, 1 does not fit, 2 wrong usage, or a file, the model
or the cluster cannot be read, 3 refused: invalid, or not supported
"""
_EXPLAIN_EPILOG: Final = """\
examples:
  %(prog)s chat                  in the namespace of the current context
  %(prog)s llmdep/chat -n prod
  %(prog)s -A                    a list of all
  %(prog)s chat -o json | jq '.conditions[] | select(.next)'

Only the API server is asked: it works while the operator is down.

exit codes: 0 Ready, or a list was printed; 1 not Ready, 2 wrong usage, not found or no access, 3 refused
"""
_CRD_EPILOG: Final = """\
examples:
  %(prog)s | kubectl apply --server-side -f -
  %(prog)s -o json | jq '.spec.versions[].name'
"""
_COMPLETION_EPILOG: Final = """\
examples:
  source <(%(prog)s bash)                                             this shell, bash
  %(prog)s bash > ~/.local/share/bash-completion/completions/tonnage   every shell, bash
  %(prog)s zsh > "${fpath[1]}/_tonnage"                               zsh
  %(prog)s fish > ~/.config/fish/completions/tonnage.fish             fish

`kubectl tonnage` is completed by kubectl itself (kubectl completion --help), through the program
kubectl_complete-tonnage, which is installed beside this one.
"""


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of `tonnage plan`."""
    parser.description = "Tell what the operator would make of LLMDeployments, by the same rules."
    parser.epilog = _PLAN_EPILOG
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML or JSON with LLMDeployments; - is standard input; may be repeated",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="what the objects' model is: a directory, a config.json, or a name of the catalogue; "
        "URI=MODEL for one of several; without it the cluster's plans and the catalogue are asked",
    )
    parser.add_argument(
        "--engine-version",
        metavar="V",
        help="of vLLM, where the object names none (default: that of the object's plan, else this release's)",
    )
    offline = parser.add_argument_group("without a cluster")
    offline.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="FILE",
        help="nodes as kubectl get nodes -o yaml prints them; for GPUs also pods, which say what is taken, "
        "and what the claims of devices need; may be repeated; no cluster is asked then",
    )
    _add_cluster(parser)
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text")
    output.add_argument(
        "--manifests", action="store_true", help="print the objects that the operator would apply, as YAML"
    )
    output.add_argument(
        "--worker-image",
        metavar="IMAGE",
        help="with --manifests: the chart's worker image, for objects that name none",
    )


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The options of `tonnage explain`."""
    parser.description = "Tell in plain words what was asked, planned, measured, and what to do next."
    parser.epilog = _EXPLAIN_EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the LLMDeployment; without it: a list")
    _add_cluster(parser).add_argument(
        "-A", "--all-namespaces", action="store_true", help="list those of all namespaces"
    )
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text")


def add_crd(parser: argparse.ArgumentParser) -> None:
    """The options of `tonnage crd`."""
    parser.description = "Print the CustomResourceDefinition of LLMDeployment."
    parser.epilog = _CRD_EPILOG
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """The options of `tonnage completion`."""
    parser.description = "Print a script that completes commands, options, names and values in a shell."
    parser.epilog = _COMPLETION_EPILOG
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def _add_cluster(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("-n", "--namespace", metavar="NS", help="default: that of the context")
    cluster.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
    cluster.add_argument("--kubeconfig", metavar="FILE", help="default: KUBECONFIG, or ~/.kube/config")
    return cluster
